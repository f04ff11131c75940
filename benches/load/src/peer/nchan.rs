//! Nginx with Nchan: WebSockets on both sides, a frame per event, 2,000 events per channel in shared memory.

use std::{fs, net::SocketAddr, path::Path, process::Command, sync::Arc};

use anyhow::{Context as _, Result};

use super::{
    Peer, ProducerCodec, Running, ViewerCodec,
    frames::{FrameProducer, FrameViewer},
    process::{Process, first_line, free_port, loopback},
};
use crate::wire::websocket::handshake;

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
