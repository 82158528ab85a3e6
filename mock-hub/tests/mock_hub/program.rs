//! The mock hub as a program: its endpoint on stdout, faults from the command line, errors in words.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

/// Ends the program with the test, also when the test fails.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn program() -> Command {
    Command::new(env!("CARGO_BIN_EXE_bitnet-mock-hub"))
}

#[tokio::test]
async fn it_serves_a_folder_with_faults_and_a_log() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(dir.path().join("o/n")).unwrap();
    std::fs::write(dir.path().join("o/n/a.json"), "{}").unwrap();
    let mut child = program()
        .args(["--stop-after", "30", "--fault", "status=503,times=1", "--renamed", "old/n=o/n", "--dir"])
        .arg(dir.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map(Running)
        .unwrap();
    let mut endpoint = String::new();
    BufReader::new(child.0.stdout.take().unwrap()).read_line(&mut endpoint).unwrap();
    let endpoint = endpoint.trim();

    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let get = |path: &str| client.get(format!("{endpoint}{path}")).send();
    assert_eq!(get("/o/n/resolve/main/a.json").await.unwrap().status(), 503);
    // reqwest follows the relative redirect of the renamed repository
    assert_eq!(get("/old/n/resolve/main/a.json").await.unwrap().text().await.unwrap(), "{}");
    let log = get("/_mock/log").await.unwrap().text().await.unwrap();
    assert_eq!(log.matches("\"method\":\"GET\"").count(), 3, "{log}");
}

#[test]
fn it_refuses_what_it_cannot_do() {
    let dir = tempfile::tempdir().unwrap();
    for (args, wanted) in [
        (vec!["--fault", "nonsense=1"], "unknown fault `nonsense`"),
        (vec![], "holds no <org>/<name>/<files>"),
        (vec!["--dir", "/nonexistent-folder"], "cannot read /nonexistent-folder"),
    ] {
        let mut command = program();
        if !args.contains(&"--dir") {
            command.arg("--dir").arg(dir.path());
        }
        let out = command.args(&args).output().unwrap();
        let text = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(!out.status.success() && text.contains(wanted), "{args:?}: {text}");
    }
}
