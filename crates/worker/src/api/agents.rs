//! Towns and agents: looking at them, making, starting, stopping and removing them.

use axum::{
    Extension,
    extract::{Path, State},
    response::Response,
};
use http::{HeaderMap, StatusCode};
use protocol::{AgentId, ErrorCode};
use relay::auth::Grant;
use serde::Deserialize;
use town::{Agent, Command, Registration, Repository, Request, Role, Runtime, RuntimeKind, Town};

use super::{
    Failure,
    answer::success,
    body::{JsonBody, idempotency_key},
};
use crate::Worker;

pub(super) async fn towns(State(worker): State<Worker>) -> Response {
    success(StatusCode::OK, &[summary(&worker.town().borrow())])
}

pub(super) async fn town(State(worker): State<Worker>) -> Response {
    success(StatusCode::OK, &summary(&worker.town().borrow()))
}

pub(super) async fn list(State(worker): State<Worker>) -> Response {
    let town = worker.town().borrow().clone();
    let agents: Vec<&Agent> = town.agents().values().collect();
    success(StatusCode::OK, &agents)
}

pub(super) async fn show(State(worker): State<Worker>, Path((_, agent)): Path<(String, String)>) -> Reply {
    let agent = find(&worker.town().borrow(), &agent)?;
    // Without an answer of the relay the rest is still worth having.
    let presence = worker.relay().presence(&agent.id).await.ok();
    Ok(success(StatusCode::OK, &serde_json::json!({ "agent": agent, "presence": presence })))
}

/// What a new agent shall be.
#[derive(Debug, Deserialize)]
pub(super) struct Registering {
    name: String,
    #[serde(default)]
    role: Option<String>,
    runtime: Running,
    /// Of an agent with a repository it may be left to the worker.
    directory: Option<String>,
    repository: Option<Cloning>,
    #[serde(default)]
    start: bool,
}

/// The repository it works on.
#[derive(Debug, Deserialize)]
struct Cloning {
    url: String,
    branch: Option<String>,
    token_file: Option<String>,
}

/// Its runtime. The kind is read as text, for an error that names the known ones.
#[derive(Debug, Deserialize)]
struct Running {
    kind: String,
    agent_bin: Option<String>,
    #[serde(default)]
    command: Vec<String>,
    mcp_servers: Option<String>,
    scenario: Option<String>,
    recording: Option<String>,
    speed: Option<String>,
    #[serde(default)]
    repeat: bool,
}

pub(super) async fn register(
    State(worker): State<Worker>,
    Extension(grant): Extension<Grant>,
    headers: HeaderMap,
    JsonBody(body): JsonBody<Registering>,
) -> Reply {
    let start = body.start;
    let registration = registration(&worker, body)?;
    check_files(&registration).await?;
    let name = registration.name.to_ascii_lowercase();
    let town = ask(&worker, &grant, &headers, Command::Register { registration, start }).await?;
    Ok(success(StatusCode::CREATED, &find(&town, &name)?))
}

pub(super) async fn start(
    State(worker): State<Worker>,
    Path((_, agent)): Path<(String, String)>,
    Extension(grant): Extension<Grant>,
    headers: HeaderMap,
) -> Reply {
    let agent = find(&worker.town().borrow(), &agent)?.id;
    let town = ask(&worker, &grant, &headers, Command::Start { agent: agent.clone() }).await?;
    Ok(success(StatusCode::OK, &find(&town, agent.as_str())?))
}

/// How to stop.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Stopping {
    #[serde(default)]
    drain: bool,
}

pub(super) async fn stop(
    State(worker): State<Worker>,
    Path((_, agent)): Path<(String, String)>,
    Extension(grant): Extension<Grant>,
    headers: HeaderMap,
    JsonBody(body): JsonBody<Stopping>,
) -> Reply {
    let agent = find(&worker.town().borrow(), &agent)?.id;
    let command = Command::Stop { agent: agent.clone(), drain: body.drain };
    let town = ask(&worker, &grant, &headers, command).await?;
    Ok(success(StatusCode::OK, &find(&town, agent.as_str())?))
}

pub(super) async fn remove(
    State(worker): State<Worker>,
    Path((_, agent)): Path<(String, String)>,
    Extension(grant): Extension<Grant>,
    headers: HeaderMap,
) -> Reply {
    let agent = find(&worker.town().borrow(), &agent)?.id;
    let town = ask(&worker, &grant, &headers, Command::Remove { agent: agent.clone() }).await?;
    // It goes once its wrapper has ended; until then it can still be looked at.
    let removed = town.agent(&agent).is_none();
    let status = if removed { StatusCode::OK } else { StatusCode::ACCEPTED };
    Ok(success(status, &serde_json::json!({ "id": agent, "removed": removed })))
}

type Reply = Result<Response, Failure>;

/// An agent of the town by its id.
pub(super) fn find(town: &Town, agent: &str) -> Result<Agent, Failure> {
    let unknown = || Failure::new(ErrorCode::NotFound, format!("there is no agent {agent:?} in this town"));
    let id: AgentId = agent.parse().map_err(|_| unknown())?;
    town.agent(&id).cloned().ok_or_else(unknown)
}

fn summary(town: &Town) -> serde_json::Value {
    serde_json::json!({ "id": town.id(), "agents": town.agents().len() })
}

async fn ask(
    worker: &Worker,
    grant: &Grant,
    headers: &HeaderMap,
    command: Command,
) -> Result<std::sync::Arc<Town>, Failure> {
    let mut request = Request::by(&grant.subject, command);
    request.key = idempotency_key(headers)?;
    Ok(worker.ask(request).await?)
}

fn registration(worker: &Worker, body: Registering) -> Result<Registration, Failure> {
    let unknown = |error: town::UnknownName| Failure::new(ErrorCode::BadRequest, error.to_string());
    let role = match &body.role {
        Some(role) => role.parse().map_err(unknown)?,
        None => Role::Polecat,
    };
    let mut runtime = Runtime::of(body.runtime.kind.parse::<RuntimeKind>().map_err(unknown)?);
    runtime.agent_bin = body.runtime.agent_bin;
    runtime.command = body.runtime.command;
    runtime.mcp_servers = body.runtime.mcp_servers;
    runtime.scenario = body.runtime.scenario;
    runtime.recording = body.runtime.recording;
    runtime.speed = body.runtime.speed;
    runtime.repeat = body.runtime.repeat;
    let repository = body.repository.map(|Cloning { url, branch, token_file }| {
        let mut repository = Repository::at(url);
        repository.branch = branch;
        repository.token_file = token_file;
        repository
    });
    let directory = match body.directory {
        Some(directory) => directory,
        None if repository.is_some() => worker.work_folder(&body.name),
        None => return Err(Failure::new(ErrorCode::BadRequest, "say the directory that the agent works in")),
    };
    Ok(Registration { name: body.name, role, runtime, directory, repository })
}

/// Whether the folder and files that a registration names are there. The town cannot look; whether they still are when
/// the agent starts is the wrapper's to say.
async fn check_files(registration: &Registration) -> Result<(), Failure> {
    let directory = &registration.directory;
    let is_folder = tokio::fs::metadata(directory).await.is_ok_and(|found| found.is_dir());
    // That of a work tree is made with it.
    if directory.starts_with('/') && !is_folder && registration.repository.is_none() {
        return Err(missing("directory", directory));
    }
    let runtime = &registration.runtime;
    for (what, path) in [
        ("scenario", &runtime.scenario),
        ("recording", &runtime.recording),
        ("list of MCP servers", &runtime.mcp_servers),
        (
            "token file",
            &registration.repository.as_ref().and_then(|repository| repository.token_file.clone()),
        ),
    ] {
        if let Some(path) = path
            && path.starts_with('/')
            && !tokio::fs::metadata(path).await.is_ok_and(|found| found.is_file())
        {
            return Err(missing(what, path));
        }
    }
    Ok(())
}

fn missing(what: &str, path: &str) -> Failure {
    let path: String = path.chars().take(200).collect();
    Failure::new(ErrorCode::BadRequest, format!("there is no {what} {path:?} on the worker's machine"))
}
