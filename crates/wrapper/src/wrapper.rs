//! The whole wrapper: what is set up before the agent's life begins, and what is put away after it.

mod after_turn;
mod agent;
mod book;
mod carried_out;
mod commands;
mod history;
mod life;
mod parting;
mod state_dir;
mod turn_end;
mod workspace;

use std::{net::Ipv4Addr, path::PathBuf, sync::Arc, time::Duration};

use protocol::{agent::Resumed, frame::RuntimeInfo, view::SessionView};
use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
};

use self::{book::Book, life::Life, state_dir::StateDir};
use crate::{
    Clock, Exit, Options, OptionsError, Shutdown,
    api::{Api, JobStatus},
    link::{self, Dial, LinkConfig, LinkError},
    outbox::{Outbox, OutboxError, OutboxLimits},
    recovery,
    runtime::AgentRuntime,
    workspace::Workspace,
};

/// How long the end waits for the relay to have everything.
const FLUSH_FOR: Duration = Duration::from_secs(5);
/// Requests of the local API that may wait.
const API_REQUESTS: usize = 16;

/// Why a wrapper could not run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// Its options do not work.
    #[error(transparent)]
    Options(#[from] OptionsError),
    /// Its state dir cannot be used.
    #[error("the state dir cannot be used: it was about to {doing}")]
    StateDir {
        /// What it was about to do.
        doing: &'static str,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
    /// The folder that the agent is to work in cannot be used.
    #[error("the folder {path} cannot be worked in")]
    Directory {
        /// The folder.
        path: std::path::PathBuf,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
    /// The outbox cannot be used.
    #[error(transparent)]
    Outbox(#[from] OutboxError),
    /// The link cannot begin.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// The local API cannot listen.
    #[error("the local API cannot listen")]
    Api {
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
}

/// Runs one agent until it ends, is superseded, or is told to stop. It needs a tokio runtime with time and I/O.
///
/// # Errors
/// When it cannot begin at all: wrong options, or a state dir that cannot be used. Whatever fails later is an event or
/// an [`Exit`].
pub async fn run(options: Options, shutdown: Shutdown) -> Result<Exit, RunError> {
    let surroundings = Surroundings::of_this_machine(&options).await?;
    run_in(surroundings, options, shutdown).await
}

/// What a wrapper has around it: this machine, or what a simulation has in its place.
#[derive(Debug)]
pub struct Surroundings {
    /// What the agent is run with.
    pub runtime: Arc<dyn AgentRuntime>,
    /// Where events wait until the relay has them: in the state dir.
    pub outbox: Outbox,
    /// How the relay is reached.
    pub dial: Arc<dyn Dial>,
    /// Where the local API listens, if there is to be one.
    pub api: Option<TcpListener>,
}

impl Surroundings {
    /// What a wrapper with these options has on this machine.
    ///
    /// # Errors
    /// When the state dir cannot be used, the agent lacks an option, or the local API cannot listen.
    pub async fn of_this_machine(options: &Options) -> Result<Self, RunError> {
        let runtime = options.runtime.build(options)?;
        let dir = StateDir::open(&options.state_dir)?.path().join("outbox");
        let opened = tokio::task::spawn_blocking(move || Outbox::open(dir, OutboxLimits::default())).await;
        let outbox = opened.expect("opening an outbox does not panic")?;
        let api = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
        let api = Some(api.map_err(|source| RunError::Api { source })?);
        Ok(Self { runtime, outbox, dial: link::tcp(), api })
    }
}

/// As [`run`], but in these surroundings, whatever the options say of the agent.
///
/// # Errors
/// As [`run`].
pub async fn run_in(
    surroundings: Surroundings,
    options: Options,
    shutdown: Shutdown,
) -> Result<Exit, RunError> {
    let Surroundings { runtime, outbox, dial, api } = surroundings;
    let token = options.token()?;
    options.log.secrets().hide(token.reveal());
    options.log.secrets().hide_variables(variables());
    let clock = Clock::start();
    let state = StateDir::open(&options.state_dir)?;
    options.log.turn_in(state.path());
    let (directory, workspace) = work_folder(&options, &state)?;
    let generation = state.next_generation(options.generation)?;
    let config = LinkConfig {
        relay: options.relay.clone(),
        token,
        agent: options.agent.clone(),
        town: options.town.clone(),
        generation,
        runtime: RuntimeInfo { name: runtime.name().to_owned(), version: String::new() },
        seed: rand::random(),
    };
    let log = link::Log::of(&config, Arc::clone(&dial))?;
    let link = link::spawn_over(dial, config, outbox.clone(), clock)?;
    let (status, watched) = watch::channel(JobStatus::default());
    let (asks, requests) = mpsc::channel(API_REQUESTS);
    let api = match api {
        Some(listener) => Some(
            Api::start(listener, state.path(), watched, link.handle(), asks, &options.log)
                .map_err(|source| RunError::Api { source })?,
        ),
        None => None,
    };

    let history::Recalled { said, unread } =
        history::recall(&outbox, &link.handle(), log, generation).await?;
    let is_resumed = said.is_some();
    let mut book = Book::new(said.unwrap_or_default(), outbox.clone(), clock, options.log.secrets().clone());
    if let Some(folder) = &options.keep_output
        && workspace.is_none()
    {
        book.keep_output(&directory, folder)?;
    }
    if is_resumed {
        set_right(&mut book, generation, clock).await;
    }
    let life = Life::new(
        life::Setup { options, runtime, directory, workspace, state, generation, clock, status },
        book,
        unread,
        link.handle(),
        shutdown,
    )?;
    let (exit, link) = life.live(link, requests).await;
    if let Some(api) = api {
        api.close().await;
    }
    if !matches!(exit, Exit::Superseded | Exit::Refused) && !link.handle().flush(FLUSH_FOR).await {
        tracing::warn!("the relay does not have everything yet: the next run sends it");
    }
    link.close(bye(exit)).await;
    outbox.close().await;
    Ok(exit)
}

/// The folder that the agent works in, and the work tree that is to be made in it.
fn work_folder(options: &Options, state: &StateDir) -> Result<(PathBuf, Option<Workspace>), RunError> {
    let failed = |source| RunError::Directory { path: options.dir.clone(), source };
    if options.workspace.git.is_some() {
        std::fs::create_dir_all(&options.dir).map_err(failed)?;
    }
    let directory = options.dir.canonicalize().map_err(failed)?;
    let workspace = Workspace::from_options(options, &directory, state.path())?;
    Ok((directory, workspace))
}

/// What this process was given that is text.
fn variables() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
}

/// Closes what an earlier run left open, and says that the agent is taken up again.
async fn set_right(book: &mut Book, generation: u64, clock: Clock) {
    let broken = recovery::broken_off(book.view(), clock.timestamp());
    let detail = (!broken.is_empty()).then(|| "the run before broke off".to_owned());
    book.emit(broken).await;
    book.say("wrapper.resumed", &Resumed { generation, detail }).await;
}

/// User messages that a fold knows.
fn user_messages(view: &SessionView) -> Vec<String> {
    let mut found = Vec::new();
    for session in view.sessions() {
        let of_users = |message: &&protocol::view::MessageView| {
            message.info().is_some_and(|info| info.role == protocol::model::Role::User)
        };
        found.extend(
            session.messages().iter().filter(|m| of_users(m)).map(|message| message.id().to_string()),
        );
    }
    found
}

fn bye(exit: Exit) -> &'static str {
    match exit {
        Exit::Done => "done",
        Exit::AgentFailed => "the agent failed",
        Exit::Superseded => "superseded",
        Exit::Refused => "refused",
        Exit::GaveUp => "the link was down for too long",
    }
}
