//! The guard: a small process between wrapper and agent server that leaves no orphan (promise P16).
//!
//! It is the subreaper of all that descends from it: a process whose parent died becomes the guard's child, so that nothing gets
//! out of its sight. Its stdin is a pipe from the wrapper; when that closes, however the wrapper ended, the guard ends the tree.
//! What it does not do: it reads no output (stdout and stderr are the command's), and it decides nothing.

use std::{
    ffi::OsString,
    fs::{self, File},
    io,
    os::{fd::AsFd, unix::process::CommandExt as _},
    path::PathBuf,
    process::{Command, Stdio},
    time::Duration,
};

use rustix::{
    fs::{Mode, OFlags, fcntl_setfl},
    process::{Pid, WaitOptions, WaitStatus, getpid, set_child_subreaper, wait},
};
use tokio::{
    io::AsyncReadExt as _,
    net::unix::pipe,
    signal::unix::{Signal, SignalKind, signal},
};

use crate::process_tree::{MARK, Process, Tree};

/// The arguments of the guard: the command it runs and watches over.
#[derive(Debug, Clone, clap::Args)]
#[non_exhaustive]
pub struct GuardArgs {
    /// Milliseconds between TERM and KILL
    #[arg(long, value_name = "MS", default_value_t = 3000)]
    pub grace_ms: u64,
    /// The value that marks the command's processes in their environment
    #[arg(long, value_name = "TEXT")]
    pub mark: Option<String>,
    /// A FIFO that becomes the command's stdin, and is removed; without it, the command has none
    #[arg(long, value_name = "FILE")]
    pub stdin: Option<PathBuf>,
    /// The command and its arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,
}

/// Runs a command and ends every process it began when it ends, or when this process is told to end: by TERM, INT or HUP, or by
/// its stdin, if that is a pipe, with a byte or its end (the wrapper is gone). TERM comes first, KILL after the grace.
///
/// Returns the command's exit code, or 128 and the number of the signal that ended it.
///
/// # Errors
/// When the command cannot be started.
pub fn guard(args: &GuardArgs) -> io::Result<u8> {
    set_child_subreaper(Some(getpid()))?;
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(watch(args))
}

async fn watch(args: &GuardArgs) -> io::Result<u8> {
    // Before anything is started: the end of a child must not be missed, and a TERM must not leave one behind.
    let mut children = signal(SignalKind::child())?;
    let mut told = Told::listen()?;
    let command = start(args)?;
    let tree = Tree::new(Process::find(getpid().as_raw_pid()), args.mark.clone());
    let grace = Duration::from_millis(args.grace_ms);
    let mut ending = false;
    let code = loop {
        if let Some(status) = reap(command)? {
            break exit_code(status);
        }
        tokio::select! {
            _ = children.recv() => {}
            () = told.wait(), if !ending => {
                ending = true;
                tree.end(grace).await;
            }
        }
    };
    tree.end(grace).await;
    Ok(code)
}

fn start(args: &GuardArgs) -> io::Result<Pid> {
    let (program, rest) = args.command.split_first().ok_or(io::ErrorKind::InvalidInput)?;
    let mut command = Command::new(program);
    let stdin = match &args.stdin {
        Some(fifo) => {
            // The wrapper has its end open before it starts this process. Where it has died since, an open that waits for it would
            // wait for ever, deaf to all else.
            let stdin =
                rustix::fs::open(fifo, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty())?;
            fcntl_setfl(&stdin, OFlags::RDONLY)?;
            fs::remove_file(fifo)?;
            stdin.into()
        }
        None => Stdio::null(),
    };
    command.args(rest).stdin(stdin).process_group(0);
    if let Some(mark) = &args.mark {
        command.env(MARK, mark);
    }
    let child = command
        .spawn()
        .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", program.display())))?;
    Ok(Pid::from_child(&child))
}

/// Buries whoever has died, adopted ones too. Returns the command's status if it is among them.
fn reap(command: Pid) -> io::Result<Option<WaitStatus>> {
    let mut found = None;
    loop {
        match wait(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) if pid == command => found = Some(status),
            Ok(Some(_)) => {}
            Ok(None) | Err(rustix::io::Errno::CHILD) => return Ok(found),
            Err(error) => return Err(error.into()),
        }
    }
}

fn exit_code(status: WaitStatus) -> u8 {
    let code = status.exit_status().or_else(|| Some(128 + status.terminating_signal()?));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX)
}

/// The ways in which a guard is told to end.
#[derive(Debug)]
struct Told {
    /// From the wrapper, if stdin is a pipe: there is nothing to be told by a terminal or a file.
    pipe: Option<pipe::Receiver>,
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Told {
    fn listen() -> io::Result<Self> {
        let stdin = File::from(io::stdin().as_fd().try_clone_to_owned()?);
        Ok(Self {
            pipe: pipe::Receiver::from_file(stdin).ok(),
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn wait(&mut self) {
        let pipe = async {
            match &mut self.pipe {
                // A byte, the end, an error: whichever, the wrapper has no more use for this process.
                Some(pipe) => drop(pipe.read_u8().await),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = pipe => {}
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
            _ = self.hangup.recv() => {}
        }
    }
}
