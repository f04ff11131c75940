//! `gastown agent start`, `stop` and `remove`.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::Context as _;
use clap::{Args, Subcommand, ValueEnum};
use futures_util::StreamExt as _;
use protocol::{
    AgentId, ErrorCode, Event, LogId,
    agent::{Failed, Started},
    frame::StartAt,
};
use relay::{
    Delivery,
    client::{Client, FollowError, Verb},
};
use serde_json::{Value, json};
use town::{Change, TownEvent};

use super::{
    Exit,
    exit::{Refusal, exit_of},
    print, progress,
    server::{Server, ServerArgs, agent_id, explain_relay, log_of},
};

/// Start, stop and remove agents
#[derive(Debug, Args)]
pub(super) struct Agent {
    #[command(subcommand)]
    subcommand: Sub,
}

#[derive(Debug, Subcommand)]
enum Sub {
    Start(Box<Start>),
    Stop(Stop),
    Remove(Remove),
}

/// Start an agent; one that does not exist yet is made first
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  gastown agent start toast --runtime opencode               in this folder; `opencode` is on PATH
  gastown agent start nux --runtime kilo --dir ~/src/app --agent-bin ~/tools/node_modules
  gastown agent start furiosa --git https://github.com/acme/app.git --git-token-file ~/.github-token
                                                             on the branch gt/furiosa/work, committed and pushed after each turn
  gastown agent start gem --runtime acp -- gemini --experimental-acp
  gastown agent start film --runtime replay --recording trace.jsonl --speed 4
  gastown agent start toast                                  again, as it was made")]
struct Start {
    /// Its name: letters, digits, `_` and `-`
    #[arg(value_name = "NAME")]
    name: String,
    /// What runs it [default: opencode]
    #[arg(long, value_enum, value_name = "RUNTIME")]
    runtime: Option<Runtime>,
    /// The folder it works in [default: this one, or with --git one below the server's data folder]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// The repository it works on, on a branch of its own: a URL, user@host:path, or a folder of this machine
    #[arg(long, value_name = "URL")]
    git: Option<String>,
    /// The branch to begin from [default: the repository's default branch]
    #[arg(long, value_name = "BRANCH", requires = "git")]
    branch: Option<String>,
    /// A file with the token for the repository's server, for http(s) URLs
    #[arg(long, value_name = "FILE", requires = "git")]
    git_token_file: Option<PathBuf>,
    /// What it is for
    #[arg(long, value_enum, default_value_t = Role::Crew)]
    role: Role,
    /// The agent server's binary, or a folder with node_modules in it [default: from PATH]
    #[arg(long, value_name = "PATH")]
    agent_bin: Option<PathBuf>,
    /// The MCP servers that an ACP agent is to use: a JSON array, as its protocol has it
    #[arg(long, value_name = "FILE")]
    mcp_servers: Option<PathBuf>,
    /// The scenario that a scripted agent plays
    #[arg(long, value_name = "FILE", required_if_eq("runtime", "scripted"))]
    scenario: Option<PathBuf>,
    /// The recording that a replay plays
    #[arg(long, value_name = "FILE", required_if_eq("runtime", "replay"))]
    recording: Option<PathBuf>,
    /// How fast a recording is played: a factor, `max`, or `step` (one event per prompt)
    #[arg(long, value_name = "X")]
    speed: Option<String>,
    /// Begin a recording again when it is through
    #[arg(long, requires = "recording")]
    repeat: bool,
    /// Do not wait until it is up
    #[arg(long)]
    no_wait: bool,
    /// The command of an ACP agent, after `--`
    #[arg(last = true, value_name = "COMMAND", required_if_eq("runtime", "acp"))]
    command: Vec<String>,
    #[command(flatten)]
    server: ServerArgs,
}

/// Stop an agent; its log and its session stay
#[derive(Debug, Args)]
struct Stop {
    /// The agent
    #[arg(value_parser = agent_id, value_name = "AGENT")]
    agent: AgentId,
    /// Let the turn that runs end first
    #[arg(long)]
    drain: bool,
    #[command(flatten)]
    server: ServerArgs,
}

/// Stop an agent and forget it, with its log
#[derive(Debug, Args)]
struct Remove {
    /// The agent
    #[arg(value_parser = agent_id, value_name = "AGENT")]
    agent: AgentId,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Runtime {
    /// `opencode serve`
    Opencode,
    /// `kilo serve`
    Kilo,
    /// Any agent of the Agent Client Protocol
    Acp,
    /// A scenario file, no model
    Scripted,
    /// A recording of a real agent
    Replay,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Role {
    /// Plans and hands out work
    Mayor,
    /// Does one piece of work after the other
    Polecat,
    /// Reviews and merges
    Refinery,
    /// Watches the others
    Witness,
    /// Works with a person
    Crew,
}

impl Agent {
    pub(super) async fn run(self) -> anyhow::Result<Exit> {
        match self.subcommand {
            Sub::Start(command) => command.run().await,
            Sub::Stop(command) => command.run().await,
            Sub::Remove(command) => command.run().await,
        }
    }
}

impl Start {
    async fn run(self) -> anyhow::Result<Exit> {
        let agent = agent_id(&self.name)?;
        let server = Server::find(&self.server)?;
        let before = position(&server, &log_of(&agent)).await?;
        let journal = LogId::Town(server.town.clone());
        let journal_before = position(&server, &journal).await?;
        match server.api(Verb::Get, &format!("agents/{agent}"), None).await {
            Ok(_) => server.api(Verb::Post, &format!("agents/{agent}/start"), Some(&json!({}))).await?,
            Err(error) if exit_of(&error) == Exit::NotFound => {
                server.api(Verb::Post, "agents", Some(&self.registration()?)).await?
            }
            Err(error) => return Err(error),
        };
        if self.no_wait {
            return Ok(Exit::Done);
        }
        let up = until_up(server.relay().await?, &agent, before, (journal, journal_before));
        let what = format!("waiting for the agent server of {}", self.name);
        let up = tokio::select! {
            biased;
            interrupted = tokio::signal::ctrl_c() => {
                interrupted?;
                return Ok(Exit::Interrupted);
            }
            up = progress::shown(&what, up) => up?,
        };
        print(&format!("{} is up: {up}\n", self.name))?;
        Ok(Exit::Done)
    }

    /// The body of `POST …/agents`.
    fn registration(&self) -> anyhow::Result<Value> {
        let runtime = self.runtime.unwrap_or(Runtime::Opencode);
        Ok(json!({
            "name": self.name,
            "role": word(&self.role),
            "runtime": {
                "kind": word(&runtime),
                "agent_bin": optional(self.agent_bin.as_deref())?,
                "command": self.command,
                "mcp_servers": optional(self.mcp_servers.as_deref())?,
                "scenario": optional(self.scenario.as_deref())?,
                "recording": optional(self.recording.as_deref())?,
                "speed": self.speed,
                "repeat": self.repeat,
            },
            "directory": self.directory()?,
            "repository": self.repository()?,
            "start": true,
        }))
    }

    /// Nothing where the server chooses: for a work tree that is made there.
    fn directory(&self) -> anyhow::Result<Option<String>> {
        match (&self.dir, &self.git) {
            (Some(dir), None) => absolute(dir).map(Some),
            (None, None) => absolute(Path::new(".")).map(Some),
            (Some(dir), Some(_)) => {
                let made = std::path::absolute(dir).with_context(|| dir.display().to_string())?;
                text(made.into_os_string()).map(Some)
            }
            (None, Some(_)) => Ok(None),
        }
    }

    fn repository(&self) -> anyhow::Result<Option<Value>> {
        let Some(git) = &self.git else { return Ok(None) };
        // A folder of this machine is called by its whole name: the server may run in another one.
        let url = if Path::new(git).is_dir() { absolute(Path::new(git))? } else { git.clone() };
        let token_file = optional(self.git_token_file.as_deref())?;
        Ok(Some(json!({ "url": url, "branch": self.branch, "token_file": token_file })))
    }
}

impl Stop {
    async fn run(self) -> anyhow::Result<Exit> {
        let server = Server::find(&self.server)?;
        let body = json!({ "drain": self.drain });
        server.api(Verb::Post, &format!("agents/{}/stop", self.agent), Some(&body)).await?;
        Ok(Exit::Done)
    }
}

impl Remove {
    async fn run(self) -> anyhow::Result<Exit> {
        let server = Server::find(&self.server)?;
        server.api(Verb::Delete, &format!("agents/{}", self.agent), None).await?;
        Ok(Exit::Done)
    }
}

/// Where a log ends by now; nothing, if there is none yet.
async fn position(server: &Server, log: &LogId) -> anyhow::Result<Option<StartAt>> {
    let relay = server.relay().await?;
    let page = relay.page(log, None, 1, std::time::Duration::ZERO).await;
    match page {
        Ok(page) => Ok(Some(StartAt::After(protocol::Cursor { epoch: page.epoch, seq: page.head }))),
        Err(error) if matches!(error.code(), Some(ErrorCode::UnknownLog | ErrorCode::NotFound)) => Ok(None),
        Err(error) => Err(explain_relay(relay, error)),
    }
}

/// Waits until the agent says that it is up; what it says if it fails is the error. A wrapper that does not even come
/// up says nothing in the agent's log; the town says it in its journal.
async fn until_up(
    relay: &Client,
    agent: &AgentId,
    from: Option<StartAt>,
    journal: (LogId, Option<StartAt>),
) -> anyhow::Result<String> {
    let mut events = relay.follow_when_there(log_of(agent), from);
    let mut journal = relay.follow_when_there(journal.0, journal.1);
    loop {
        let said = tokio::select! {
            delivery = events.next() => {
                event_of(delivery)?.map(|event| of_agent(&event)).transpose()?
            }
            delivery = journal.next() => {
                event_of(delivery)?.map(|event| of_town(agent, &event)).transpose()?
            }
        };
        if let Some(up) = said.flatten() {
            return Ok(up);
        }
    }
}

fn event_of(delivery: Option<Result<Delivery, FollowError>>) -> anyhow::Result<Option<Arc<Event>>> {
    let delivery = delivery.context("the relay ended the subscription")??;
    Ok(if let Delivery::Event(event) = delivery { Some(event) } else { None })
}

/// What an event of the agent's log says of its start.
fn of_agent(event: &Event) -> anyhow::Result<Option<String>> {
    match &*event.kind {
        "agent.started" => {
            let started: Started = event.data.parse()?;
            Ok(Some(format!("{} {}", started.runtime, started.version)))
        }
        "agent.failed" => {
            let failed: Failed = event.data.parse()?;
            let mut message = failed.message;
            for line in &failed.stderr {
                message.push_str("\n    ");
                message.push_str(&super::paint::clean(line));
            }
            Err(Refusal::because(Exit::Failed, message))
        }
        _ => Ok(None),
    }
}

/// What an event of the town's journal says of the agent's start.
fn of_town(agent: &AgentId, event: &Event) -> anyhow::Result<Option<String>> {
    let Some(event) = TownEvent::from_journal(event)? else { return Ok(None) };
    if let Change::AgentFailed { agent: failed, reason, .. } = event.change
        && failed == *agent
    {
        return Err(Refusal::because(Exit::Failed, format!("{agent} did not start: {reason}")));
    }
    Ok(None)
}

fn word(value: &impl ValueEnum) -> String {
    value.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}

fn optional(path: Option<&Path>) -> anyhow::Result<Option<String>> {
    path.map(absolute).transpose()
}

/// The server may run in another folder: it is told absolute paths.
fn absolute(path: &Path) -> anyhow::Result<String> {
    let found = std::fs::canonicalize(path)
        .map_err(|error| Refusal::because(Exit::Usage, format!("{}: {error}", path.display())))?;
    text(found.into_os_string())
}

fn text(path: OsString) -> anyhow::Result<String> {
    path.into_string().map_err(|path| {
        Refusal::because(Exit::Usage, format!("{} is no text: rename it", Path::new(&path).display()))
    })
}

#[cfg(test)]
mod tests {
    use protocol::{NewEvent, Seq, Timestamp};

    use super::*;

    #[test]
    fn an_agent_that_fails_ends_the_wait_with_what_its_server_wrote() {
        let data = json!({ "message": "opencode is not on PATH", "stderr": ["line \u{1b}[31mone"] });
        let event = NewEvent::of(Timestamp::default(), "agent.failed", &data).unwrap().at(Seq::new(1));
        let error = of_agent(&event).unwrap_err();
        assert_eq!(error.to_string(), "opencode is not on PATH\n    line one");
        assert_eq!(exit_of(&error), Exit::Failed);
    }

    #[test]
    fn a_wrapper_that_does_not_come_up_is_told_by_the_town_and_only_for_its_own_agent() {
        let change = Change::AgentFailed {
            agent: "nux".parse().unwrap(),
            generation: 1,
            reason: "no such folder".to_owned(),
        };
        let by = town::By { actor: "worker".to_owned(), command: "wrapper_exited".to_owned(), key: None };
        let event = TownEvent { time: Timestamp::default(), by, change }.to_journal().at(Seq::new(1));
        assert!(of_town(&"toast".parse().unwrap(), &event).unwrap().is_none());
        let error = of_town(&"nux".parse().unwrap(), &event).unwrap_err();
        assert_eq!(error.to_string(), "nux did not start: no such folder");
    }

    #[test]
    fn paths_are_made_absolute_and_must_be_there() {
        assert!(absolute(Path::new(".")).unwrap().starts_with('/'));
        assert_eq!(exit_of(&absolute(Path::new("no/such/folder")).unwrap_err()), Exit::Usage);
    }
}
