//! An agent server as far as a wrapper asks it: its API, and the event stream, which is written by whoever measures.

use std::{
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result};
use meter::clock::{now_ns, wait_until};
use serde_json::{Value, json};

use crate::turn::{Event, SESSION};

/// How long a follower may take to come.
const PATIENCE: Duration = Duration::from_secs(30);

/// The server. Its threads end with the process.
#[derive(Debug)]
pub(crate) struct AgentServer {
    pub(crate) address: SocketAddr,
    followers: Receiver<TcpStream>,
}

/// Who follows the event stream.
#[derive(Debug)]
pub(crate) struct Follower(TcpStream);

impl AgentServer {
    /// Serves one work folder.
    pub(crate) fn start(directory: &str) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let (follows, followers) = sync_channel(4);
        let directory = directory.to_owned();
        thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                let (directory, follows) = (directory.clone(), follows.clone());
                // A connection that breaks is the client's to make again.
                thread::spawn(move || serve(connection, &directory, &follows));
            }
        });
        Ok(Self { address, followers })
    }

    /// The next one who follows the stream.
    pub(crate) fn follower(&self) -> Result<Follower> {
        self.followers.recv_timeout(PATIENCE).map(Follower).context("nobody follows the event stream")
    }
}

impl Follower {
    /// Says these events, one write each as agent servers do, `per_second` of them or as fast as they are taken. Gives the time at which
    /// each was written.
    pub(crate) fn play(&mut self, turn: &[Event], per_second: Option<u32>) -> io::Result<Vec<u64>> {
        let chunks: Vec<Vec<u8>> = turn.iter().map(|event| chunk(&event.json)).collect();
        let mut written = Vec::with_capacity(turn.len());
        let began = now_ns();
        for (chunk, number) in chunks.iter().zip(0_u64..) {
            if let Some(per_second) = per_second {
                wait_until(began + number * 1_000_000_000 / u64::from(per_second));
            }
            written.push(now_ns());
            self.0.write_all(chunk)?;
        }
        Ok(written)
    }

    /// Ends the stream.
    pub(crate) fn end(mut self) -> io::Result<()> {
        self.0.write_all(b"0\r\n\r\n")
    }
}

/// An event on the stream.
fn chunk(json: &str) -> Vec<u8> {
    let event = format!("data: {json}\n\n");
    format!("{:x}\r\n{event}\r\n", event.len()).into_bytes()
}

/// Answers a connection's requests, until one of them follows the stream.
fn serve(connection: TcpStream, directory: &str, follows: &SyncSender<TcpStream>) -> io::Result<()> {
    connection.set_nodelay(true)?;
    let mut stream = connection.try_clone()?;
    let mut requests = BufReader::new(connection);
    while let Some(path) = request(&mut requests)? {
        if path == "/event" {
            stream.write_all(
                b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n",
            )?;
            stream.write_all(&chunk(r#"{"type":"server.connected","properties":{}}"#))?;
            let _ = follows.send(stream);
            return Ok(());
        }
        let body = answer(&path, directory).to_string();
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all((head + &body).as_bytes())?;
    }
    Ok(())
}

/// The path of the next request, whose body is read over; `None` when there are no more.
fn request(requests: &mut impl io::BufRead) -> io::Result<Option<String>> {
    let mut first = String::new();
    if requests.read_line(&mut first)? == 0 {
        return Ok(None);
    }
    let mut body = 0;
    for line in requests.by_ref().lines() {
        let line = line?.to_ascii_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some(len) = line.strip_prefix("content-length:") {
            body = len.trim().parse().map_err(io::Error::other)?;
        }
    }
    io::copy(&mut requests.by_ref().take(body), &mut io::sink())?;
    let target = first.split(' ').nth(1).unwrap_or_default();
    Ok(Some(target.split('?').next().unwrap_or_default().to_owned()))
}

fn answer(path: &str, directory: &str) -> Value {
    match path {
        "/global/health" => json!({ "healthy": true, "version": "1.18.33" }),
        "/session" => json!({ "id": SESSION, "directory": directory }),
        _ => json!({}),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_read_one_after_the_other_with_their_bodies() {
        let mut bytes = &b"POST /session?directory=%2F HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}GET /event HTTP/1.1\r\n\r\n"[..];
        assert_eq!(request(&mut bytes).unwrap().as_deref(), Some("/session"));
        assert_eq!(request(&mut bytes).unwrap().as_deref(), Some("/event"));
        assert_eq!(request(&mut bytes).unwrap(), None);
    }

    #[test]
    fn a_paced_stream_keeps_its_pace() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let mut reader = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let mut follower = Follower(listener.accept().unwrap().0);
        let turn = crate::turn::turn();
        let written = follower.play(&turn[..10], Some(1_000)).unwrap();
        assert!(written[9] - written[0] >= 9_000_000);
        follower.end().unwrap();
        let mut all = String::new();
        reader.read_to_string(&mut all).unwrap();
        assert!(all.starts_with(&chunk_text(&turn[0])) && all.ends_with("\n\n\r\n0\r\n\r\n"), "{all}");
    }

    fn chunk_text(event: &Event) -> String {
        String::from_utf8(chunk(&event.json)).unwrap()
    }
}
