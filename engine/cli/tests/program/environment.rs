//! What people have in their environment: proxies, tokens as they were pasted, `~`, odd paths, other users' home folders.

use crate::support::*;
use bitnet_mock_hub::{Fault, Repo, Side, Storage};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const REPO: &str = "org/name";

fn machine() -> Machine {
    let repo = Repo::new(REPO).file("tokenizer.json", "{\"model\": {}}".repeat(900), Storage::Lfs).file(
        "tokenizer_config.json",
        "{}",
        Storage::Git,
    );
    Machine::with([repo])
}

/// A SOCKS5 proxy without a password. It connects every request to its port on this machine, whatever the name, and notes what
/// was asked for: `name NAME` or `address ADDRESS`.
fn socks() -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let notes = asked.clone();
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let notes = notes.clone();
            std::thread::spawn(move || serve(client, &notes));
        }
    });
    (address, asked)
}

fn serve(mut client: TcpStream, asked: &Mutex<Vec<String>>) -> Option<()> {
    let mut stream = client.try_clone().ok()?;
    let mut read = |n: usize| -> Option<Vec<u8>> {
        let mut bytes = vec![0; n];
        stream.read_exact(&mut bytes).ok().map(|()| bytes)
    };
    let hello = read(2)?;
    read(usize::from(hello[1]))?;
    client.write_all(&[5, 0]).ok()?;
    let what = match read(4)?[3] {
        1 => format!("address {:?}", read(4)?),
        3 => {
            let length = read(1)?[0];
            format!("name {}", String::from_utf8(read(usize::from(length))?).ok()?)
        }
        _ => "address of 16 bytes".to_owned(),
    };
    let port = read(2)?;
    asked.lock().ok()?.push(what);
    let mut server = TcpStream::connect(("127.0.0.1", u16::from_be_bytes([port[0], port[1]]))).ok()?;
    client.write_all(&[5, 0, 0, 1, 127, 0, 0, 1, 0, 0]).ok()?;
    let (mut up, mut down) = (client.try_clone().ok()?, server.try_clone().ok()?);
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut up, &mut down);
        let _ = down.shutdown(Shutdown::Write);
    });
    let _ = std::io::copy(&mut server, &mut client);
    let _ = client.shutdown(Shutdown::Write);
    Some(())
}

#[test]
fn socks_proxies_are_used() {
    let m = machine();
    let port = m.hub.endpoint().rsplit(':').next().unwrap().to_owned();
    // A name that only the proxy knows is resolved there (socks5h); an address arrives as one.
    for (scheme, host, wanted) in [
        ("socks5h", "hub.invalid", "name hub.invalid"),
        ("socks5h", "127.0.0.1", "address [127, 0, 0, 1]"),
        ("socks5", "localhost", "address"),
    ] {
        m.forget();
        let (proxy, asked) = socks();
        let (proxy, endpoint) = (format!("{scheme}://{proxy}"), format!("http://{host}:{port}"));
        let env = [("ALL_PROXY", proxy.as_str()), ("HF_ENDPOINT", &endpoint)];
        m.run_env(&env, &["download", REPO, "--file", "tokenizer_config.json"]).ok();
        let asked = asked.lock().unwrap();
        assert!(asked.first().is_some_and(|first| first.starts_with(wanted)), "{scheme} {host}: {asked:?}");
    }
}

#[test]
fn no_proxy_exempts_names_and_addresses() {
    let m = machine();
    for (none, direct) in [("*", true), ("127.0.0.1", true), ("127.0.0.0/8", true), ("10.0.0.0/8,example.com", false)] {
        m.forget();
        let (proxy, asked) = socks();
        let proxy = format!("socks5h://{proxy}");
        let env = [("ALL_PROXY", proxy.as_str()), ("NO_PROXY", none)];
        m.run_env(&env, &["download", REPO]).ok();
        assert_eq!(asked.lock().unwrap().is_empty(), direct, "NO_PROXY={none}");
    }
}

#[test]
fn a_proxy_that_is_none_is_refused_at_once() {
    let m = machine();
    for proxy in ["ftp://u:secret@proxy:21", "socks9://proxy:1", "http://"] {
        let started = Instant::now();
        let run = m.run_env(&[("ALL_PROXY", proxy)], &["download", REPO]);
        let run = run.fails_with(&["ALL_PROXY", "socks5h://"]);
        assert!(!run.err.contains("secret") && !run.err.contains("attempt"), "{}", run.err);
        assert!(started.elapsed() < Duration::from_secs(2));
    }
    assert!(m.hub.log().is_empty(), "nothing goes around the proxy");
    // One that does not answer is named, with what could not be reached.
    let env = [("ALL_PROXY", "socks5h://u:secret@127.0.0.1:9"), ("BITNET_DOWNLOAD_TIMEOUT", "2")];
    let run = m.run_env(&env, &["download", REPO]).fails_with(&["through the proxy socks5h://127.0.0.1:9"]);
    assert!(!run.err.contains("secret"), "{}", run.err);
    // Offline no proxy is needed, so a wrong one does not matter.
    let error = m.run_env(&[("ALL_PROXY", "ftp://p"), ("BITNET_OFFLINE", "1")], &["download", REPO]);
    error.fails_with(&["offline", "no cache has"]);
}

#[test]
fn tokens_as_they_are_pasted() {
    let m = machine();
    for (name, value) in [("HF_TOKEN", "hf_x\n"), ("HF_TOKEN", " hf_x\r\n"), ("HUGGING_FACE_HUB_TOKEN", "hf_x")] {
        m.forget();
        m.hub.log().clear();
        m.run_env(&[(name, value)], &["download", REPO]).ok();
        assert!(m.hub.log().token_seen(Side::Hub), "{name}={value:?}");
    }
    m.forget();
    m.hub.log().clear();
    for value in ["hf_a\nhf_b", "hf_a b", "hf_\u{e9}"] {
        let run = m.run_env(&[("HF_TOKEN", value)], &["download", REPO]);
        let run = run.fails_with(&["HF_TOKEN", "cannot be sent", "character"]);
        assert!(!run.err.contains("CA certificates") && !run.err.contains("hf_a"), "{}", run.err);
    }
    let file = m.path("token");
    std::fs::write(&file, "hf_a\nhf_b\n").unwrap();
    m.run_env(&[("HF_TOKEN_PATH", text(&file))], &["download", REPO]).fails_with(&[text(&file), "character 5"]);
    assert!(m.hub.log().is_empty(), "{:?}", m.hub.log().entries());
}

#[test]
fn a_hub_that_is_down_does_not_matter_where_everything_is_cached() {
    let m = machine();
    let download = |args: &[&str]| m.run(&[&["download", REPO], args].concat());
    download(&[]).ok();
    m.hub.fault(Fault::Refuse.always());
    // The branch was seen a moment ago: nothing is asked.
    m.hub.log().clear();
    assert!(download(&[]).ok().err.contains("0 downloaded"));
    assert!(m.hub.log().is_empty(), "{:?}", m.hub.log().entries());
    // It was seen long ago: asked once, and said.
    m.forget_the_day(REPO);
    let started = Instant::now();
    let run = download(&[]).ok();
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
    assert!(run.out.lines().count() == 2 && run.err.contains("as it was last seen"), "{}{}", run.out, run.err);
}

#[test]
fn another_users_home_does_not_matter() {
    let m = machine();
    // Nothing below a file can be read or made, which no permission of the tester changes.
    std::fs::write(m.path("home"), "not a folder").unwrap();
    let home = text(&m.path("home")).to_owned();
    m.run_env(&[("HOME", &home)], &["download", REPO]).ok();
    m.run_env(&[("HOME", &home)], &["tokenize", "--text", "a"]).ok();
    // A token file that somebody named is another matter.
    let inside = format!("{home}/token");
    m.run_env(&[("HF_TOKEN_PATH", &inside)], &["download", REPO, "--revision", "dev"]).fails_with(&[&inside]);
}

#[test]
fn a_tilde_is_the_home_folder_or_refused() {
    let m = machine();
    let home = m.path("home");
    std::fs::create_dir(&home).unwrap();
    std::fs::copy(tiny(), home.join("m.gguf")).unwrap();
    let run = m.run_env(&[("BITNET_GGUF", "~/m.gguf")], &["tokenize", "--text", "a"]).ok();
    assert_eq!(run.out, m.run(&["tokenize", "--text", "a"]).ok().out);
    let run = m.run_env(&[("BITNET_TOKENIZER_CACHE", "~/c")], &["cache", "path"]).ok();
    assert_eq!(run.out.trim_end(), text(&home.join("c")));
    for name in ["BITNET_GGUF", "BITNET_NVRTC", "BITNET_CUDA_CACHE"] {
        m.run_env(&[(name, "~ann/x")], &["tokenize", "--text", "a"]).fails_with(&[name, "~ann/x"]);
    }
    for name in ["BITNET_TOKENIZER_CACHE", "HF_HOME", "HF_HUB_CACHE"] {
        m.run_env(&[(name, "~ann/x")], &["download", REPO]).fails_with(&[name, "~ann/x"]);
    }
    assert!(!m.path("~").exists() && !m.path("~ann").exists(), "no folder of that name is made");
}

#[cfg(unix)]
#[test]
fn a_model_whose_path_is_not_utf8() {
    use std::os::unix::ffi::OsStrExt;
    let m = machine();
    let path = m.dir.path().join(std::ffi::OsStr::from_bytes(b"m\xff\xfe.gguf"));
    std::fs::copy(tiny(), &path).unwrap();
    let mut command = bitnet(&["tokenize", "--text", "a"]);
    finish(command.env("BITNET_GGUF", &path)).ok();
    let cache = path.with_extension("cache");
    for args in [
        &["discover", "--format", "json"][..],
        &["discover", "--build", "--format", "json"],
        &["inspect", "--format", "json"],
        &["infer", "--prompt", "a", "-n", "1", "--format", "json"],
        &["download", REPO, "--format", "json"],
        &["cache", "list", "--format", "json"],
        &["cache", "path", "--format", "json"],
        &["cache", "evict", "--bytes", "0", "--format", "json"],
    ] {
        let mut command = m.command(&[], args);
        finish(command.env("BITNET_GGUF", &path).env("BITNET_TOKENIZER_CACHE", &cache)).ok().json();
    }
    assert!(cache.is_dir(), "the folder that was named is the one that is used");
}
