//! P20: what a process holds for those who show no credentials.

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
};

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinSet,
};

use crate::support::within;

const CONNECTIONS: usize = 200;
/// Far below the mebibyte that P20 allows one: a header's 16 KiB, twice, and room for what serves it.
const EACH_KIB: u64 = 128;

#[tokio::test]
async fn p20_connections_without_credentials_hold_little_memory() {
    let relay = Relay::start();
    // Without them the first connections would seem to cost what the process makes once.
    relay
        .hold(&[b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n".to_vec()], 20)
        .await;
    let header = b"GET /v1/stream HTTP/1.1\r\nhost: localhost\r\nx: ";
    let unfinished = [header.to_vec(), vec![b'x'; 15 * 1024]].concat();
    let body = b"POST /v1/agents/a1/events HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1000000\r\n\r\n";
    let half_a_body = [body.to_vec(), vec![b'x'; 100_000]].concat();
    let upgrade =
        b"GET /v1/stream HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
        sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    // Refused after the upgrade, and then sent what it will not read.
    let refused = [upgrade.to_vec(), vec![0x81; 100_000]].concat();
    for (name, bytes) in [("a header", unfinished), ("a body", half_a_body), ("a stream", refused)] {
        let before = relay.peak_kib();
        relay.hold(&[bytes], CONNECTIONS).await;
        let each = (relay.peak_kib() - before) / CONNECTIONS as u64;
        assert!(each <= EACH_KIB, "{name} that is not finished holds {each} KiB");
    }
}

/// A relay in a process of its own.
struct Relay {
    child: Child,
    address: String,
    _dir: tempfile::TempDir,
}

impl Relay {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_gastown-relay"));
        command.args(["--listen", "127.0.0.1:0", "--json", "--data-dir"]).arg(dir.path());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let ready: Value = serde_json::from_str(&line).unwrap();
        let address = ready["url"].as_str().unwrap().strip_prefix("http://").unwrap().to_owned();
        Self { child, address, _dir: dir }
    }

    /// The most memory that the process ever had.
    fn peak_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    /// Sends this on so many connections at once, as far as it is taken, and waits until the relay has ended all of them.
    async fn hold(&self, pieces: &[Vec<u8>], connections: usize) {
        let bytes = pieces.concat();
        let mut held = JoinSet::new();
        let mut open = Vec::new();
        for _ in 0..connections {
            open.push(within(TcpStream::connect(&self.address)).await.unwrap());
        }
        for mut client in open {
            let bytes = bytes.clone();
            held.spawn(async move {
                let (mut input, mut output) = client.split();
                let mut rest = Vec::new();
                // A relay that reads no more resets the connection: that is an end as well.
                let _ = tokio::join!(output.write_all(&bytes), input.read_to_end(&mut rest));
            });
        }
        within(held.join_all()).await;
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
