//! What a hub answers: the bytes of whole HTTP answers, header and body, from a server on the loopback interface.
//!
//! The client lists a repository and fetches a file. The parts of an input are the answers in turn; the last one goes on.

use super::{folder, joined, parts, unable};
use crate::Target;
use bitnet_engine::hub::HubSettings;
use bitnet_engine::hub::blocking::BlockingDownload;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

pub const TARGET: Target =
    Target { name: "hub", about: "HTTP answers of a hub: headers, ranges, JSON, bodies", seeds, run };

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// Answers that are left, the next one last, and the port.
struct Server {
    answers: Mutex<Vec<Vec<u8>>>,
    port: u16,
}

fn server() -> Option<&'static Server> {
    static SERVER: OnceLock<Option<Server>> = OnceLock::new();
    let found = SERVER.get_or_init(|| {
        let listener = TcpListener::bind("127.0.0.1:0").ok()?;
        let port = listener.local_addr().ok()?.port();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                answer(stream);
            }
        });
        Some(Server { answers: Mutex::default(), port })
    });
    found.as_ref()
}

fn answer(mut stream: TcpStream) {
    let _ = stream.set_read_timeout(Some(Duration::from_secs(1)));
    let (mut request, mut buffer) = (Vec::new(), [0; 4096]);
    while !request.windows(4).any(|window| window == b"\r\n\r\n") {
        match stream.read(&mut buffer) {
            Ok(0) | Err(_) => return,
            Ok(n) => request.extend_from_slice(&buffer[..n]),
        }
    }
    let Some(server) = server() else { return };
    let mut answers = server.answers.lock().unwrap_or_else(PoisonError::into_inner);
    let bytes = if answers.len() > 1 { answers.pop() } else { answers.last().cloned() };
    drop(answers);
    // The client may have gone.
    let _ = stream.write_all(&bytes.unwrap_or_default());
}

fn run(bytes: &[u8]) -> String {
    let Some(server) = server() else { unable("no server on the loopback interface") };
    let mut answers: Vec<Vec<u8>> = parts(bytes).into_iter().map(<[u8]>::to_vec).collect();
    answers.reverse();
    *server.answers.lock().unwrap_or_else(PoisonError::into_inner) = answers;
    let cache = folder().join("hub");
    let _ = std::fs::remove_dir_all(&cache);
    let mut settings = HubSettings::new(&cache);
    settings.endpoint = format!("http://127.0.0.1:{}", server.port);
    settings.retry.retries = 0;
    settings.retry.longest_wait = Duration::ZERO;
    settings.ref_ttl = Duration::ZERO;
    settings.timeouts.metadata = Duration::from_millis(60);
    settings.timeouts.stall = Duration::from_millis(60);
    settings.timeouts.overall = Duration::from_millis(400);
    let client = match BlockingDownload::new(settings, None) {
        Ok(client) => client,
        Err(error) => return error.to_string(),
    };
    let listed = match client.list("o/r", "main") {
        Ok(listing) => format!("{} files", listing.files.len()),
        Err(error) => error.to_string(),
    };
    let fetched = match client.fetch("o/r", "main", "tokenizer.json") {
        Ok(file) => format!("fetched, read {}", file.read().is_ok()),
        Err(error) => error.to_string(),
    };
    // Ports are not words.
    format!("{listed}; {fetched}").replace(&server.port.to_string(), "")
}

fn seeds() -> Vec<Vec<u8>> {
    let answer = |status: &str, headers: &str, body: &str| {
        format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len())
            .into_bytes()
    };
    let commit = format!("X-Repo-Commit: {COMMIT}\r\n");
    let list = answer(
        "200 OK",
        "Content-Type: application/json\r\n",
        &format!(
            r#"{{"sha": "{COMMIT}", "siblings": [{{"rfilename": "tokenizer.json", "size": 2, "lfs": null}}, {{"rfilename": "model.gguf", "size": 9, "lfs": {{"sha256": "{}", "size": 9}}}}]}}"#,
            "a".repeat(64)
        ),
    );
    // The SHA-1 of a git blob of `{}`.
    let etag = "ETag: \"9e26dfeeb6e641a33dae4961196235bdb965b21b\"\r\n";
    let head = format!(
        "HTTP/1.1 200 OK\r\n{commit}{etag}Accept-Ranges: bytes\r\nContent-Length: 2\r\nConnection: close\r\n\r\n"
    );
    let body = answer("200 OK", &format!("{commit}{etag}"), "{}");
    let part = answer("206 Partial Content", &format!("{commit}{etag}Content-Range: bytes 0-1/2\r\n"), "{}");
    let moved = format!(
        "HTTP/1.1 302 Found\r\n{commit}X-Linked-Etag: \"{}\"\r\nX-Linked-Size: 2\r\nLocation: /elsewhere\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        "b".repeat(64)
    );
    let limited = answer("429 Too Many Requests", "ratelimit: \"api\";r=0;t=55\r\nRetry-After: 3\r\n", "");
    let gone = answer("404 Not Found", "X-Error-Code: EntryNotFound\r\nX-Error-Message: no such file\r\n", "");
    let gated = answer("403 Forbidden", "X-Error-Code: GatedRepo\r\n", "<html>no</html>");
    vec![
        joined(&[&list, head.as_bytes(), &body]),
        joined(&[&list, head.as_bytes(), &part]),
        joined(&[&list, moved.as_bytes(), &body]),
        joined(&[&limited]),
        joined(&[&list, &gone]),
        joined(&[&gated]),
        list,
    ]
}
