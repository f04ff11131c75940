//! `gastown record`.

use std::{
    io::{self, IsTerminal as _},
    path::PathBuf,
    sync::Arc,
};

use anyhow::Context as _;
use clap::Args;
use futures_util::StreamExt as _;
use protocol::{
    AgentId, Event,
    view::{Lifecycle, SessionView},
};
use relay::Delivery;
use tokio::{fs::File, io::AsyncWriteExt as _};
use wrapper::runtime::replay::Recorder;

use super::{
    Exit,
    exit::Refusal,
    print,
    progress::say,
    server::{Server, ServerArgs, agent_id, log_of},
    signals::Signals,
};

/// Write what an agent did to a file that plays as an agent
#[derive(Debug, Args)]
#[command(after_help = "\
What is kept of the agent's log comes first, then what it does, until it ends or Ctrl-C. The recording has everything \
the agent said, with the prompts it was given and the answers it got; a replay plays it with the same pauses, or \
faster.

Examples:
  gastown record toast --out toast.jsonl               until the agent ends
  gastown record toast --no-follow --out toast.jsonl   what is there now
  gastown agent start film --runtime replay --recording toast.jsonl --speed 4")]
pub(super) struct Record {
    /// The agent
    #[arg(value_parser = agent_id, value_name = "AGENT")]
    agent: AgentId,
    /// A file that is not there yet; without it, stdout
    #[arg(short, long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// End when all that is there has been written
    #[arg(long)]
    no_follow: bool,
    #[command(flatten)]
    server: ServerArgs,
}

/// Deliveries that are written at once.
const AT_ONCE: usize = 256;

impl Record {
    pub(super) async fn run(self) -> anyhow::Result<Exit> {
        let server = Server::find(&self.server)?;
        server.find_agent(&self.agent).await?;
        let mut out = Out::open(self.out.clone()).await?;
        let mut deliveries =
            server.relay().await?.follow_when_there(log_of(&self.agent), None).ready_chunks(AT_ONCE);
        let mut recording = Recording::default();
        let mut signals = Signals::follow()?;
        loop {
            tokio::select! {
                biased;
                () = signals.next() => break,
                chunk = deliveries.next() => {
                    let Some(chunk) = chunk else { break };
                    for delivery in chunk {
                        recording.take(delivery?);
                    }
                    out.write(&recording.text()).await?;
                    if recording.is_over(self.no_follow) {
                        break;
                    }
                }
            }
        }
        out.write(&recording.finish()).await?;
        let events = recording.lines;
        say(&format!("{events} events recorded\n"));
        Ok(Exit::Done)
    }
}

/// What was delivered, on its way to the file.
#[derive(Default)]
struct Recording {
    recorder: Recorder,
    view: SessionView,
    /// Events that are not written yet. Those that the log has at the beginning are written together.
    waiting: Vec<Arc<Event>>,
    is_live: bool,
    lines: usize,
}

impl Recording {
    fn take(&mut self, delivery: Delivery) {
        match delivery {
            Delivery::Event(event) => {
                self.view.apply(&event);
                self.waiting.push(event);
            }
            Delivery::Gap { .. } => {
                say("some of the log is not kept any more: the recording goes on after it\n")
            }
            Delivery::Live { .. } => self.is_live = true,
            Delivery::Subscribed { .. } | Delivery::Presence { .. } | Delivery::Ended { .. } | _ => {}
        }
    }

    /// The lines that may be written.
    fn text(&mut self) -> String {
        if self.is_live { self.finish() } else { String::new() }
    }

    /// The lines of all that was taken.
    fn finish(&mut self) -> String {
        let lines = self.recorder.lines(&std::mem::take(&mut self.waiting));
        self.lines += lines.lines().count();
        lines
    }

    fn is_over(&self, at_the_head: bool) -> bool {
        let has_ended = matches!(self.view.agent().lifecycle, Lifecycle::Exited(_));
        self.is_live && (at_the_head || has_ended)
    }
}

/// Where the recording goes.
enum Out {
    File(File, PathBuf),
    Stdout,
}

impl Out {
    async fn open(path: Option<PathBuf>) -> anyhow::Result<Self> {
        let Some(path) = path else {
            if io::stdout().is_terminal() {
                let message = "a recording is no text to be read: give --out FILE";
                return Err(Refusal::because(Exit::Usage, message));
            }
            return Ok(Self::Stdout);
        };
        match File::create_new(&path).await {
            Ok(file) => Ok(Self::File(file, path)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let message = format!("{} is there: a recording overwrites nothing", path.display());
                Err(Refusal::because(Exit::Conflict, message))
            }
            Err(error) => Err(error).with_context(|| format!("{} cannot be written", path.display())),
        }
    }

    async fn write(&mut self, text: &str) -> anyhow::Result<()> {
        match self {
            Self::File(file, path) => {
                let written = async {
                    file.write_all(text.as_bytes()).await?;
                    file.flush().await
                };
                written.await.with_context(|| format!("{} cannot be written", path.display()))
            }
            Self::Stdout => print(text),
        }
    }
}
