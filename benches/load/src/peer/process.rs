//! Starting a server, and ending it by its own id.

use std::{
    collections::BTreeMap,
    fs::File,
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use meter::clock::{now_ns, pause, seconds};
use rustix::process::{Pid, Signal, kill_process};
use tokio::signal::unix::{SignalKind, signal};

use super::Peer;

/// Time for a server to listen, and to end.
const PATIENCE_S: f64 = 20.0;
const LOOK: Duration = Duration::from_millis(10);

/// A server that runs until this is dropped.
pub(crate) struct Running {
    pub(crate) peer: Arc<dyn Peer>,
    pub(crate) process: Process,
    /// Its data; removed after it.
    pub(crate) directory: tempfile::TempDir,
}

/// A process of ours.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    name: String,
}

impl Process {
    /// Starts a command in a directory; what it says goes to `server.log` there.
    pub(crate) fn spawn(mut command: Command, directory: &Path) -> Result<Self> {
        command.stdout(log(directory)?);
        Self::start(command, directory)
    }

    /// The same, but what it says on its output is the caller's to read.
    pub(crate) fn spawn_piped(mut command: Command, directory: &Path) -> Result<(Self, ChildStdout)> {
        command.stdout(Stdio::piped());
        let mut process = Self::start(command, directory)?;
        let output = process.child.stdout.take().context("its output is piped")?;
        Ok((process, output))
    }

    fn start(mut command: Command, directory: &Path) -> Result<Self> {
        let name = Path::new(command.get_program()).display().to_string();
        command.current_dir(directory).stdin(Stdio::null()).stderr(log(directory)?);
        let child = command.spawn().with_context(|| format!("{name} did not start"))?;
        started().insert(child.id(), directory.to_owned());
        Ok(Self { child, name })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until it listens.
    pub(crate) fn wait_listening(&mut self, address: SocketAddr) -> Result<()> {
        let began = now_ns();
        while TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_err() {
            if let Some(status) = self.child.try_wait()? {
                bail!("{} ended: {status}", self.name);
            }
            if seconds(began, now_ns()) > PATIENCE_S {
                bail!("{} does not listen on {address}", self.name);
            }
            pause(LOOK);
        }
        Ok(())
    }
}

impl Drop for Process {
    /// Asks it to end, and ends it if it does not. An error means that it has ended.
    fn drop(&mut self) {
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::TERM);
        }
        let began = now_ns();
        while matches!(self.child.try_wait(), Ok(None)) {
            if seconds(began, now_ns()) > PATIENCE_S {
                let _ = self.child.kill();
            }
            pause(LOOK);
        }
        started().remove(&self.child.id());
    }
}

/// The servers that run, and their directories.
fn started() -> MutexGuard<'static, BTreeMap<u32, PathBuf>> {
    static STARTED: Mutex<BTreeMap<u32, PathBuf>> = Mutex::new(BTreeMap::new());
    STARTED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// From now on a signal that ends this process ends its servers too, and takes their data away.
pub(crate) fn end_servers_on_a_signal() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let guard = runtime.enter();
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    drop(guard);
    std::thread::spawn(move || {
        runtime.block_on(async {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        });
        // Held to the end, so that no other is started.
        let servers = started();
        for (server, directory) in servers.iter() {
            if let Some(pid) = i32::try_from(*server).ok().and_then(Pid::from_raw) {
                // It may have ended just now.
                let _ = kill_process(pid, Signal::KILL);
            }
            let _ = std::fs::remove_dir_all(directory);
        }
        std::process::exit(ENDED_BY_A_SIGNAL);
    });
    Ok(())
}

/// As shells have it.
const ENDED_BY_A_SIGNAL: i32 = 130;

fn log(directory: &Path) -> Result<File> {
    Ok(File::options().create(true).append(true).open(directory.join("server.log"))?)
}

/// A port that nobody listens on, as the system gives it.
pub(crate) fn free_port() -> Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

pub(crate) fn loopback(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

/// The first line that a program prints about itself.
pub(crate) fn first_line(program: &Path, argument: &str) -> Result<String> {
    let output = Command::new(program)
        .arg(argument)
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("{} is not installed", program.display()))?;
    let text = if output.stdout.is_empty() { output.stderr } else { output.stdout };
    Ok(String::from_utf8_lossy(&text).lines().next().unwrap_or_default().trim().to_owned())
}
