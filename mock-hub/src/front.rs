//! The front: plain sockets before wiremock, for everything that happens to a connection rather than in HTTP.
//!
//! One request per connection. The request is passed on with `Connection: close`, the whole answer is collected, and then
//! written back under the faults that its log entry names.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::answer::ENTRY_HEADER;
use crate::faults::Fault;
use crate::log::Log;

const HEAD_LIMIT: usize = 64 << 10;
const REQUEST_LIMIT: usize = 1 << 20;
/// A client that neither asks nor leaves is let go after this long.
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) async fn accept(listener: TcpListener, backend: SocketAddr, log: Log) {
    loop {
        match listener.accept().await {
            Ok((client, _)) => {
                let log = log.clone();
                tokio::spawn(async move {
                    // a client that breaks off is everyday life here, not an error
                    let _ = exchange(client, backend, &log).await;
                });
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await, // out of descriptors: try again
        }
    }
}

async fn exchange(mut client: TcpStream, backend: SocketAddr, log: &Log) -> io::Result<()> {
    client.set_nodelay(true)?;
    let Some((head, body)) = tokio::time::timeout(PATIENCE, read_request(&mut client)).await?? else {
        return Ok(());
    };
    let is_head = head.starts_with("HEAD ");

    let mut server = TcpStream::connect(backend).await?;
    let mut lines: Vec<&str> = head.split("\r\n").filter(|line| !is_field(line, "connection")).collect();
    lines.push("Connection: close");
    server.write_all(format!("{}\r\n\r\n", lines.join("\r\n")).as_bytes()).await?;
    server.write_all(&body).await?;
    let mut answer = Vec::new();
    server.read_to_end(&mut answer).await?;

    let Some(end) = find(&answer, b"\r\n\r\n") else {
        return Ok(());
    };
    let head = String::from_utf8_lossy(&answer[..end]).into_owned();
    let body = &answer[end + 4..];
    let index = field(&head, ENTRY_HEADER).and_then(|value| value.parse::<usize>().ok());
    let entry = index.and_then(|index| log.get(index));
    let faults = entry.map(|entry| entry.faults).unwrap_or_default();

    let head = match rewrite(&head, &faults, &mut client).await? {
        Some(head) => head,
        None => return Ok(()),
    };
    client.write_all(head.as_bytes()).await?;
    if !is_head {
        write_body(&mut client, body, &faults, |sent| {
            if let Some(index) = index {
                log.update(index, |entry| entry.sent = sent);
            }
        })
        .await?;
    }
    client.shutdown().await
}

/// The head as the client shall see it; `None` if it shall see nothing.
async fn rewrite(head: &str, faults: &[Fault], client: &mut TcpStream) -> io::Result<Option<String>> {
    let mut lines: Vec<String> =
        head.split("\r\n").filter(|line| !is_field(line, ENTRY_HEADER)).map(str::to_owned).collect();
    for fault in faults {
        match fault {
            Fault::Refuse => {
                client.set_zero_linger()?; // a reset, the rudest way to go
                return Ok(None);
            }
            Fault::Delay { pause } => tokio::time::sleep(*pause).await,
            Fault::NoLength => lines.retain(|line| !is_field(line, "content-length")),
            Fault::Header { name, value } => {
                lines.retain(|line| !is_field(line, name));
                if !value.is_empty() {
                    lines.push(format!("{name}: {value}"));
                }
            }
            Fault::WrongLength { delta } => {
                for line in &mut lines {
                    if let Some(length) = field(line, "content-length").and_then(|value| value.parse::<i64>().ok()) {
                        *line = format!("content-length: {}", length.saturating_add(*delta).max(0));
                    }
                }
            }
            _ => {}
        }
    }
    Ok(Some(format!("{}\r\n\r\n", lines.join("\r\n"))))
}

/// Writes the body under the connection's faults. `count` is told how much was handed to the socket, each time before
/// the piece goes out: a client that has read the bytes finds them in the log.
async fn write_body(
    client: &mut TcpStream,
    body: &[u8],
    faults: &[Fault],
    mut count: impl FnMut(u64),
) -> io::Result<()> {
    let mut end = body.len();
    let (mut chunk, mut pause) = (64 << 10, Duration::ZERO);
    let mut stall: Option<(usize, Duration)> = None;
    for fault in faults {
        match fault {
            Fault::Cut { at } => end = end.min(usize::try_from(*at).unwrap_or(usize::MAX)),
            Fault::Drip { chunk: bytes, pause: time } => (chunk, pause) = (*bytes, *time),
            Fault::Stall { at, pause } => stall = Some((usize::try_from(*at).unwrap_or(usize::MAX), *pause)),
            _ => {}
        }
    }
    let mut at = 0;
    loop {
        if let Some((_, silence)) = stall.take_if(|(position, _)| *position <= at) {
            client.flush().await?;
            tokio::time::sleep(silence).await;
        }
        if at >= end {
            return Ok(());
        }
        let mut to = end.min(at + chunk);
        if let Some((position, _)) = stall {
            to = to.min(position);
        }
        count(to as u64);
        if let Err(error) = client.write_all(&body[at..to]).await {
            count(at as u64);
            return Err(error);
        }
        at = to;
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
    }
}

/// Head (without the empty line) and body of a request; `None` if the client left without a word.
async fn read_request(client: &mut TcpStream) -> io::Result<Option<(String, Vec<u8>)>> {
    let mut data = Vec::new();
    let end = loop {
        if let Some(end) = find(&data, b"\r\n\r\n") {
            break end;
        }
        if data.len() > HEAD_LIMIT {
            return Err(io::Error::other("request head too long"));
        }
        if client.read_buf(&mut data).await? == 0 {
            return Ok(None);
        }
    };
    let head = String::from_utf8_lossy(&data[..end]).into_owned();
    let mut body = data.split_off(end + 4);
    let length = field(&head, "content-length").and_then(|value| value.parse::<usize>().ok()).unwrap_or(0);
    if length > REQUEST_LIMIT {
        return Err(io::Error::other("request body too long"));
    }
    while body.len() < length {
        if client.read_buf(&mut body).await? == 0 {
            return Ok(None);
        }
    }
    Ok(Some((head, body)))
}

fn find(data: &[u8], wanted: &[u8]) -> Option<usize> {
    data.windows(wanted.len()).position(|window| window == wanted)
}

fn is_field(line: &str, name: &str) -> bool {
    line.split_once(':').is_some_and(|(key, _)| key.trim().eq_ignore_ascii_case(name))
}

fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.split("\r\n")
        .find(|line| is_field(line, name))
        .and_then(|line| line.split_once(':'))
        .map(|(_, value)| value.trim())
}
