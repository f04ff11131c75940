//! Nginx with Nchan: WebSockets on both sides, a frame per event, 2,000 events per channel in shared memory. The floor is
//! spoken to in the same way.

use std::{fs, net::SocketAddr, path::Path, process::Command, sync::Arc};

use anyhow::{Context as _, Result, bail};

use super::{
    Acked, Heard, Peer, ProducerCodec, Running, ViewerCodec,
    process::{Process, first_line, free_port, loopback},
};
use crate::wire::websocket::{Socket, TEXT, client_frame, handshake};

const MODULE: &str = "/usr/lib/nginx/modules/ngx_nchan_module.so";
const NGINX: &str = "/usr/sbin/nginx";

pub(super) fn version() -> Result<String> {
    fs::metadata(MODULE).with_context(|| format!("{MODULE} is not installed (libnginx-mod-nchan)"))?;
    let nginx = first_line(Path::new(NGINX), "-v")?;
    let packages = fs::read_to_string("/var/lib/dpkg/status").unwrap_or_default();
    let nchan = packages.split("\n\n").find(|package| package.starts_with("Package: libnginx-mod-nchan\n"));
    let nchan = nchan.and_then(|package| package.lines().find_map(|line| line.strip_prefix("Version: ")));
    Ok(format!("{nginx}, Nchan {}", nchan.unwrap_or("of unknown version")))
}

pub(super) fn start(directory: tempfile::TempDir) -> Result<Running> {
    let address = loopback(free_port()?);
    fs::write(directory.path().join("nginx.conf"), configuration(address.port()))?;
    // The workers run as another user.
    fs::set_permissions(directory.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    let mut command = Command::new(NGINX);
    command.arg("-p").arg(directory.path()).args(["-c", "nginx.conf", "-e", "error.log"]);
    let mut process = Process::spawn(command, directory.path())?;
    process.wait_listening(address)?;
    Ok(Running { peer: Arc::new(Nchan { address }), process, directory })
}

fn configuration(port: u16) -> String {
    format!(
        "load_module {MODULE};
daemon off;
worker_processes 2;
pid nginx.pid;
error_log error.log warn;
events {{ worker_connections 19000; }}
http {{
  access_log off;
  nchan_shared_memory_size 1024M;
  server {{
    listen 127.0.0.1:{port} backlog=4096 reuseport;
    location ~ ^/produce/(\\w+)$ {{
      nchan_publisher websocket;
      nchan_channel_id $1;
      nchan_message_buffer_length 2000;
      nchan_message_timeout 1h;
    }}
    location ~ ^/view/(\\w+)$ {{
      nchan_subscriber websocket;
      nchan_channel_id $1;
      nchan_subscriber_first_message oldest;
    }}
  }}
}}
"
    )
}

struct Nchan {
    address: SocketAddr,
}

impl Peer for Nchan {
    fn viewer_address(&self) -> SocketAddr {
        self.address
    }

    fn viewer(&self, channel: &str) -> Box<dyn ViewerCodec> {
        Box::new(FrameViewer::new(handshake(&self.address.to_string(), &format!("/view/{channel}"), "")))
    }

    fn producer(&self, channel: &str) -> Box<dyn ProducerCodec> {
        Box::new(FrameProducer::new(handshake(&self.address.to_string(), &format!("/produce/{channel}"), "")))
    }
}

/// A viewer whose messages are events.
pub(super) struct FrameViewer {
    hello: Vec<u8>,
    socket: Socket,
}

impl FrameViewer {
    pub(super) fn new(hello: Vec<u8>) -> Self {
        Self { hello, socket: Socket::default() }
    }
}

impl ViewerCodec for FrameViewer {
    fn open(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.hello)
    }

    fn feed(&mut self, bytes: &[u8], heard: &mut Heard<'_>) -> Result<usize> {
        let events = &mut *heard.events;
        let fed = self.socket.feed(bytes, &mut heard.reply, |message| {
            events(message);
            Ok(())
        })?;
        heard.ready |= fed.opened;
        heard.closed |= fed.closed;
        Ok(fed.used)
    }
}

/// A producer that sends a frame per event, and gets one for each as its ack.
pub(super) struct FrameProducer {
    hello: Vec<u8>,
    socket: Socket,
}

impl FrameProducer {
    pub(super) fn new(hello: Vec<u8>) -> Self {
        Self { hello, socket: Socket::default() }
    }
}

impl ProducerCodec for FrameProducer {
    fn open(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.hello)
    }

    fn encode(&mut self, events: &[Vec<u8>], out: &mut Vec<u8>) {
        for event in events {
            client_frame(TEXT, event, out);
        }
    }

    fn feed(&mut self, bytes: &[u8], acked: &mut Acked) -> Result<usize> {
        let mut events = 0;
        let fed = self.socket.feed(bytes, &mut acked.reply, |_| {
            events += 1;
            Ok(())
        })?;
        acked.events += events;
        acked.ready |= fed.opened;
        if fed.closed {
            bail!("the server closed the producer's socket");
        }
        Ok(fed.used)
    }
}
