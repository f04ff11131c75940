//! The floor: a server without any logic, which no server can be below. It takes events from a producer, frames them
//! and writes them to every viewer with plain blocking writes.

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    process::Command,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::{Result, bail};

use super::{
    Peer, ProducerCodec, Running, ViewerCodec,
    frames::{FrameProducer, FrameViewer},
    process::{Process, free_port, loopback},
};
use crate::wire::websocket::{handshake, server_text, unmasked};

pub(super) fn start(directory: tempfile::TempDir, coalesce: bool) -> Result<Running> {
    let address = loopback(free_port()?);
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["floor", "--port", &address.port().to_string()]);
    if coalesce {
        command.arg("--coalesce");
    }
    let mut process = Process::spawn(command, directory.path())?;
    process.wait_listening(address)?;
    Ok(Running { peer: Arc::new(Floor { address }), process, directory })
}

struct Floor {
    address: SocketAddr,
}

impl Peer for Floor {
    fn viewer_address(&self) -> SocketAddr {
        self.address
    }

    fn viewer(&self, _channel: &str) -> Box<dyn ViewerCodec> {
        Box::new(FrameViewer::new(handshake(&self.address.to_string(), "/view", "")))
    }

    fn producer(&self, _channel: &str) -> Box<dyn ProducerCodec> {
        Box::new(FrameProducer::new(handshake(&self.address.to_string(), "/produce", "")))
    }
}

/// Serves until it is killed. With `coalesce` all events of one read go to a viewer in one write.
pub(crate) fn serve(port: u16, coalesce: bool) -> Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
    let viewers = Arc::new(Mutex::new(Vec::new()));
    for stream in listener.incoming() {
        let mut stream = stream?;
        stream.set_nodelay(true)?;
        let Ok(head) = request_head(&mut stream) else { continue };
        let accept = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n";
        if stream.write_all(accept.as_bytes()).is_err() {
            continue;
        }
        if head.starts_with(b"GET /produce") {
            let viewers = Arc::clone(&viewers);
            std::thread::spawn(move || take_events(stream, &viewers, coalesce));
        } else {
            viewers.lock().unwrap_or_else(PoisonError::into_inner).push(stream);
        }
    }
    Ok(())
}

fn request_head(stream: &mut TcpStream) -> Result<Vec<u8>> {
    let (mut head, mut piece) = (Vec::new(), [0; 2048]);
    while memchr::memmem::find(&head, b"\r\n\r\n").is_none() {
        match stream.read(&mut piece)? {
            0 => bail!("it ended"),
            read => head.extend_from_slice(&piece[..read]),
        }
    }
    Ok(head)
}

fn take_events(mut producer: TcpStream, viewers: &Mutex<Vec<TcpStream>>, coalesce: bool) -> Result<()> {
    let (mut held, mut piece) = (Vec::new(), vec![0; 64 * 1024]);
    loop {
        match producer.read(&mut piece)? {
            0 => return Ok(()),
            read => held.extend_from_slice(&piece[..read]),
        }
        let (mut used, mut acks, mut writes) = (0, Vec::new(), Vec::<Vec<u8>>::new());
        while let Some((event, len)) = unmasked(&held[used..]) {
            used += len;
            if !coalesce || writes.is_empty() {
                writes.push(Vec::new());
            }
            server_text(&event, writes.last_mut().expect("there is one"));
            server_text(b"ok", &mut acks);
        }
        held.drain(..used);
        let mut viewers = viewers.lock().unwrap_or_else(PoisonError::into_inner);
        for write in writes {
            viewers.retain_mut(|viewer| viewer.write_all(&write).is_ok());
        }
        drop(viewers);
        producer.write_all(&acks)?;
    }
}
