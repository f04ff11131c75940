//! A server that sends every message back, over the relay's WebSockets: what Autobahn's test suite speaks to
//! (`cargo xtask autobahn`). It prints the address that it listens on.

use base64::Engine as _;
use gastown_relay::websocket::{Connection, Incoming, text};
use sha1::{Digest as _, Sha1};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

/// The suite's largest messages have 16 MiB.
const MESSAGE_BYTES: usize = 32 * 1024 * 1024;

#[tokio::main(flavor = "current_thread")]
#[expect(clippy::print_stdout, reason = "whoever starts it waits for the address")]
async fn main() -> std::io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("listening on ws://{}", listener.local_addr()?);
    loop {
        let (stream, _) = listener.accept().await?;
        // A connection that fails is the suite's to judge.
        drop(tokio::spawn(converse(stream)));
    }
}

async fn converse(mut stream: TcpStream) -> std::io::Result<()> {
    let mut bytes = Vec::new();
    let head = loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break String::from_utf8_lossy(&bytes.drain(..end + 4).collect::<Vec<_>>()).into_owned();
        }
        if stream.read_buf(&mut bytes).await? == 0 {
            return Ok(());
        }
    };
    let key = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("sec-websocket-key").then(|| value.trim().to_owned())
    });
    let accept = Sha1::new()
        .chain_update(key.unwrap_or_default())
        .chain_update("258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    let accept = base64::engine::general_purpose::STANDARD.encode(accept.finalize());
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
    );
    stream.write_all(answer.as_bytes()).await?;
    let mut connection = Connection::new(MESSAGE_BYTES);
    loop {
        let is_over = take(&mut connection, &mut bytes);
        send(&mut connection, &mut stream).await?;
        if is_over {
            // The server ends the connection, when the client has read the close.
            stream.shutdown().await?;
            while stream.read_buf(&mut bytes).await? > 0 {
                bytes.clear();
            }
            return Ok(());
        }
        bytes.clear();
        if stream.read_buf(&mut bytes).await? == 0 {
            return Ok(());
        }
    }
}

/// Answers what came in, and says whether nothing more will.
fn take(connection: &mut Connection, bytes: &mut [u8]) -> bool {
    let mut input = bytes;
    let mut echoes = Vec::new();
    let mut fault = None;
    let mut is_over = false;
    while let Some(incoming) = connection.receive(&mut input) {
        match incoming {
            Incoming::Text(message) => echoes.push(text(message.as_bytes())),
            Incoming::Binary(message) => echoes.push(binary(message)),
            Incoming::SignOfLife => continue,
            Incoming::Closed => is_over = true,
            Incoming::Fault(found) => fault = Some(found),
        }
        for echo in echoes.drain(..) {
            connection.send(echo);
        }
        if let Some(fault) = fault.take() {
            connection.close(fault.close_code(), &fault.to_string());
            is_over = true;
        }
    }
    is_over
}

/// A binary message: as a text in its frame, but for the opcode.
fn binary(message: &[u8]) -> bytes::Bytes {
    let mut frame = text(message).to_vec();
    frame[0] = 0x82;
    frame.into()
}

async fn send(connection: &mut Connection, stream: &mut TcpStream) -> std::io::Result<()> {
    while !connection.is_all_sent() {
        let mut slices = [std::io::IoSlice::new(&[]); 16];
        let unsent = connection.unsent(&mut slices);
        let written = stream.write_vectored(unsent).await?;
        connection.sent(written);
    }
    Ok(())
}
