//! What a wrapper is told at its start (§10).

use std::{ffi::OsString, path::PathBuf, time::Duration};

use protocol::{
    AgentId, TownId,
    config::{ConfigError, TownConfig},
};

use crate::{
    after_turn::AfterTurnArgs, link::Token, log_tail::LogTail, runtime::RuntimeKind, turn::TurnLimitArgs,
    workspace::WorkspaceArgs,
};

/// The arguments of a wrapper. The token comes from `GASTOWN_WRAPPER_TOKEN` or a file, never from an argument.
#[derive(Debug, Clone, clap::Args)]
#[non_exhaustive]
pub struct Options {
    /// The relay, as an http(s) or ws(s) URL without a path
    #[arg(long, value_name = "URL")]
    pub relay: String,
    /// The agent that this wrapper owns
    #[arg(long, alias = "agent-session", value_name = "ID")]
    pub agent: AgentId,
    /// The agent's town
    #[arg(long, alias = "user-id", value_name = "ID", default_value = "main")]
    pub town: TownId,
    /// This run's generation; without it, one more than the last run's (a higher one supersedes)
    #[arg(long, value_name = "N")]
    pub generation: Option<u64>,
    /// What the agent is run with
    #[arg(long, value_enum, default_value_t = RuntimeKind::Opencode)]
    pub runtime: RuntimeKind,
    /// The folder the agent works in
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub dir: PathBuf,
    /// Where the wrapper keeps its outbox and its session id; two agents never share one
    #[arg(long, value_name = "DIR")]
    pub state_dir: PathBuf,
    /// A file that holds the wrapper token; without it, GASTOWN_WRAPPER_TOKEN is read
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// The agent server's binary, or a folder with node_modules in it; without it, PATH is searched
    #[arg(long, value_name = "PATH")]
    pub agent_bin: Option<PathBuf>,
    /// The command of the agent that `--runtime acp` runs, as its words; `;` ends it
    #[arg(long, value_name = "WORD", num_args = 1.., value_terminator = ";", allow_hyphen_values = true)]
    pub agent_command: Vec<String>,
    /// A file with the MCP servers the agent is to use: the `mcpServers` of the Agent Client Protocol, a JSON array
    #[arg(long, value_name = "FILE")]
    pub mcp_servers: Option<PathBuf>,
    /// The session to go on with; without it, the one of the last run, else a new one
    #[arg(long, value_name = "ID")]
    pub session_id: Option<String>,
    /// The scenario that `--runtime scripted` plays
    #[arg(long, value_name = "FILE")]
    pub scenario: Option<PathBuf>,
    /// The recording that `--runtime replay` plays
    #[arg(long, value_name = "FILE")]
    pub recording: Option<PathBuf>,
    /// How fast a recording is played: a factor such as 4, `max`, or `step` (one event per prompt)
    #[arg(long, value_name = "X", default_value = "1")]
    pub speed: String,
    /// Keep the whole of what is too long for an event (a tool's output, a picture) in this folder of the work folder
    #[arg(long, value_name = "FOLDER")]
    pub keep_output: Option<PathBuf>,
    /// Begin a recording again when it is through
    #[arg(long)]
    pub repeat: bool,
    /// Exit when the link has been down for so many seconds; without it, never
    #[arg(long, value_name = "SECONDS")]
    pub give_up_after: Option<u64>,
    /// When a turn is ended
    #[command(flatten)]
    pub turn_limits: TurnLimitArgs,
    /// What is done after a turn
    #[command(flatten)]
    pub after_turn: AfterTurnArgs,
    /// The repository that the agent works on
    #[command(flatten)]
    pub workspace: WorkspaceArgs,
    /// The command that runs the guard, as its words; without it, this program's own `guard` subcommand
    #[arg(long, value_name = "WORD", num_args = 1.., value_terminator = ";", hide = true)]
    pub guard_command: Vec<String>,
    /// Its log, where this process writes one: its last lines are shown over the link
    #[arg(skip)]
    pub log: LogTail,
}

/// Why a wrapper cannot run with its options.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OptionsError {
    /// No token was given.
    #[error("no wrapper token: set GASTOWN_WRAPPER_TOKEN or give --token-file")]
    NoToken,
    /// The token file cannot be read.
    #[error("the token file {path} cannot be read")]
    TokenFile {
        /// The file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
    /// The town's config is not understood.
    #[error("GASTOWN_TOWN_CONFIG: {0}")]
    Config(#[source] ConfigError),
    /// The relay's URL is not understood.
    #[error("{url:?} is not the URL of a relay: give http://host:port, https://, ws:// or wss://")]
    Relay {
        /// What was given.
        url: String,
    },
    /// A runtime lacks an option that it needs.
    #[error("--runtime {runtime} needs {option}")]
    Missing {
        /// The runtime.
        runtime: &'static str,
        /// The option.
        option: &'static str,
    },
    /// An option has a value that is not understood.
    #[error("{option} is {value:?}: {expected}")]
    Invalid {
        /// The option.
        option: &'static str,
        /// What was given.
        value: String,
        /// What was expected.
        expected: &'static str,
    },
}

impl Options {
    /// Options with what has no default; everything else as the command line has it by default.
    #[must_use]
    pub fn new(
        relay: impl Into<String>,
        agent: AgentId,
        town: TownId,
        state_dir: impl Into<PathBuf>,
    ) -> Self {
        Self {
            relay: relay.into(),
            agent,
            town,
            generation: None,
            runtime: RuntimeKind::Opencode,
            dir: PathBuf::from("."),
            state_dir: state_dir.into(),
            token_file: None,
            agent_bin: None,
            agent_command: Vec::new(),
            mcp_servers: None,
            session_id: None,
            scenario: None,
            recording: None,
            keep_output: None,
            speed: "1".to_owned(),
            repeat: false,
            give_up_after: None,
            turn_limits: TurnLimitArgs::default(),
            after_turn: AfterTurnArgs::default(),
            workspace: WorkspaceArgs::default(),
            guard_command: Vec::new(),
            log: LogTail::new(),
        }
    }

    /// The words of the guard's command: those given, else this program's own subcommand.
    ///
    /// # Errors
    /// When this program's own path cannot be found out.
    pub(crate) fn guard_command(&self, runtime: &'static str) -> Result<Vec<OsString>, OptionsError> {
        if self.guard_command.is_empty() {
            let missing = |_| OptionsError::Missing { runtime, option: "--guard-command" };
            return Ok(vec![std::env::current_exe().map_err(missing)?.into_os_string(), "guard".into()]);
        }
        Ok(self.guard_command.iter().map(OsString::from).collect())
    }

    /// The wrapper token, from `--token-file` or `GASTOWN_WRAPPER_TOKEN`.
    ///
    /// # Errors
    /// When there is none, or the file cannot be read.
    pub(crate) fn token(&self) -> Result<Token, OptionsError> {
        let text = match &self.token_file {
            Some(path) => std::fs::read_to_string(path)
                .map_err(|source| OptionsError::TokenFile { path: path.clone(), source })?,
            None => std::env::var("GASTOWN_WRAPPER_TOKEN").unwrap_or_default(),
        };
        match text.trim() {
            "" => Err(OptionsError::NoToken),
            token => Ok(Token::new(token)),
        }
    }

    /// The town's config at the start, from `GASTOWN_TOWN_CONFIG`; the relay and the local API may give another one later.
    ///
    /// # Errors
    /// When it is not understood.
    pub(crate) fn town_config() -> Result<TownConfig, OptionsError> {
        match std::env::var("GASTOWN_TOWN_CONFIG") {
            Ok(text) => TownConfig::parse(&text).map_err(OptionsError::Config),
            Err(_) => Ok(TownConfig::default()),
        }
    }

    /// How long the link may be down before the wrapper ends.
    #[must_use]
    pub fn give_up_after(&self) -> Option<Duration> {
        self.give_up_after.map(Duration::from_secs)
    }
}
