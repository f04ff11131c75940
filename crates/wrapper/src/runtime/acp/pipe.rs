//! The two ends of an agent's stdin and stdout: lines go in and out, and neither end ever waits for the other.

use std::{io, path::Path};

use bytes::BytesMut;
use rustix::fs::{CWD, Mode, mkfifoat};
use serde_json::Value;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _},
    net::unix::pipe,
    process::ChildStdout,
    sync::mpsc,
};

use super::rpc::{self, Incoming, RpcError};

/// Lines that may wait to be written: an agent that reads none of so many does not read at all.
const OUTGOING: usize = 256;
/// Lines that may wait to be looked at; then the agent waits.
const INCOMING: usize = 64;
/// Bytes of one line: a file that is read or written whole, with room to spare.
const LINE: usize = 32 * 1024 * 1024;

/// The ends that the driver holds.
#[derive(Debug)]
pub(super) struct Pipe {
    outgoing: mpsc::Sender<Vec<u8>>,
    incoming: mpsc::Receiver<Incoming>,
    /// Until the agent's stdout is there to be read.
    lines: Option<mpsc::Sender<Incoming>>,
    requests: u64,
}

/// The agent's stdin.
#[derive(Debug)]
pub(super) struct Writer {
    stdin: pipe::Sender,
    lines: mpsc::Receiver<Vec<u8>>,
}

/// The agent does not read what it is sent, or is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the agent does not read what it is sent")]
pub(super) struct Deaf;

impl Pipe {
    /// Makes the FIFO that is to be the agent's stdin.
    pub(super) fn open(fifo: &Path) -> io::Result<(Writer, Self)> {
        let _ = std::fs::remove_file(fifo);
        mkfifoat(CWD, fifo, Mode::RUSR | Mode::WUSR)?;
        // For reading too: so it can be opened before the agent's end is, and writing to it never signals.
        let stdin = pipe::OpenOptions::new().read_write(true).open_sender(fifo)?;
        let (outgoing, lines) = mpsc::channel(OUTGOING);
        let (sender, incoming) = mpsc::channel(INCOMING);
        Ok((Writer { stdin, lines }, Self { outgoing, incoming, lines: Some(sender), requests: 0 }))
    }

    /// Reads the agent's stdout to its end. What is no message is said to the log.
    pub(super) fn read(
        &mut self,
        stdout: ChildStdout,
    ) -> impl Future<Output = io::Result<()>> + Send + use<> {
        let lines = self.lines.take();
        async move {
            match lines {
                Some(lines) => read(stdout, &lines).await,
                None => Ok(()),
            }
        }
    }

    /// The agent's next message; nothing when it has closed its stdout.
    pub(super) async fn next(&mut self) -> Option<Incoming> {
        self.incoming.recv().await
    }

    /// Asks the agent. Returns the number that its answer will bear.
    pub(super) fn request(&mut self, method: &str, params: &Value) -> Result<u64, Deaf> {
        self.requests += 1;
        self.send(rpc::request(self.requests, method, params))?;
        Ok(self.requests)
    }

    /// Tells the agent.
    pub(super) fn notify(&mut self, method: &str, params: &Value) -> Result<(), Deaf> {
        self.send(rpc::notification(method, params))
    }

    /// Answers the agent.
    pub(super) fn respond(&mut self, request: &Value, result: &Result<Value, RpcError>) -> Result<(), Deaf> {
        self.send(rpc::response(request, result))
    }

    fn send(&mut self, line: Vec<u8>) -> Result<(), Deaf> {
        self.outgoing.try_send(line).map_err(|_| Deaf)
    }
}

impl Writer {
    /// Writes what is sent until nobody sends any more, or the agent is gone.
    pub(super) async fn write(mut self) {
        while let Some(line) = self.lines.recv().await {
            if let Err(error) = self.stdin.write_all(&line).await {
                tracing::debug!(%error, "the agent's stdin is closed");
                return;
            }
        }
    }
}

async fn read(mut stdout: impl AsyncRead + Unpin, lines: &mpsc::Sender<Incoming>) -> io::Result<()> {
    let mut bytes = BytesMut::with_capacity(16 * 1024);
    let mut searched = 0;
    loop {
        while let Some(at) = bytes[searched..].iter().position(|byte| *byte == b'\n') {
            let line = bytes.split_to(searched + at + 1);
            searched = 0;
            match rpc::parse(&line) {
                Some(message) => {
                    if lines.send(message).await.is_err() {
                        return Ok(());
                    }
                }
                None if line.trim_ascii().is_empty() => {}
                None => tracing::debug!(target: "agent", "{}", String::from_utf8_lossy(line.trim_ascii())),
            }
        }
        searched = bytes.len();
        if searched > LINE {
            tracing::warn!(
                bytes = searched,
                "the agent writes a line without an end: its output is not read on"
            );
            return Ok(());
        }
        if stdout.read_buf(&mut bytes).await? == 0 {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tokio::io::duplex;

    use super::*;

    #[tokio::test]
    async fn a_line_is_a_message_however_its_bytes_come() {
        let line = |id: u64| rpc::response(&json!(id), &Ok(json!("ä")));
        for bytes in [1, 2, 3, 1024] {
            let (mut agent, stdout) = duplex(bytes);
            let (lines, mut said) = mpsc::channel(INCOMING);
            let says = async {
                agent.write_all(&[line(1), b"npm warn\n\n".to_vec(), line(2)].concat()).await.unwrap();
                drop(agent);
            };
            tokio::join!(read(stdout, &lines), says).0.unwrap();
            drop(lines);
            for number in 1..=2 {
                let message = said.recv().await;
                let is_it = matches!(&message, Some(Incoming::Response { id, result: Ok(result) }) if *id == number && result == "ä");
                assert!(is_it, "{message:?} in pieces of {bytes}");
            }
            assert!(said.recv().await.is_none());
        }
    }

    #[tokio::test]
    async fn a_line_without_an_end_is_not_read_on() {
        let (mut agent, stdout) = duplex(1024 * 1024);
        let (lines, _said) = mpsc::channel(INCOMING);
        let says = async {
            let some = vec![b'x'; 1024 * 1024];
            for _ in 0..2 * LINE / some.len() {
                agent.write_all(&some).await?;
            }
            io::Result::Ok(())
        };
        let (read, said) = tokio::join!(async { read(stdout, &lines).await }, says);
        read.unwrap();
        assert_eq!(said.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }

    #[tokio::test]
    async fn an_agent_that_reads_none_of_many_lines_is_deaf() {
        let dir = tempfile::tempdir().unwrap();
        let (_unread, mut pipe) = Pipe::open(&dir.path().join("fifo")).unwrap();
        for _ in 0..OUTGOING {
            pipe.notify("session/cancel", &json!({})).unwrap();
        }
        assert_eq!(pipe.notify("session/cancel", &json!({})), Err(Deaf));
    }
}
