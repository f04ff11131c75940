//! How a command finds the running server, and what it asks of it.

mod tokens;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::Context as _;
use clap::Args;
use protocol::{AgentId, Command, CommandId, CommandResult, ErrorBody, ErrorCode, LogId, TownId};
use relay::{
    ApiError, DataDirArgs, RelayApi as _,
    client::{Client, Credentials, Token, Verb},
};
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::OnceCell;
use worker::URL_FILE;

use self::tokens::RelayTokens;
use super::exit::{Exit, Refusal, exit_of};

/// Where a server listens if nobody says otherwise.
pub(super) const DEFAULT_LISTEN: &str = "127.0.0.1:4280";
/// The file of the data directory that holds the operator's token.
pub(super) const TOKEN_FILE: &str = "operator-token";

/// Which server to talk to, and as whom.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Server")]
pub(super) struct ServerArgs {
    /// URL of the server [default: that of the server that runs on the data directory]
    #[arg(long, env = "GASTOWN_URL", hide_env_values = true, value_name = "URL", global = true)]
    url: Option<String>,
    /// File with the token to show [default: GASTOWN_TOKEN, else operator-token in the data directory]
    #[arg(long, env = "GASTOWN_TOKEN_FILE", hide_env_values = true, value_name = "FILE", global = true)]
    token_file: Option<PathBuf>,
    #[command(flatten)]
    pub(super) data_dir: DataDirArgs,
    /// The town
    #[arg(
        long,
        env = "GASTOWN_TOWN",
        hide_env_values = true,
        value_name = "ID",
        default_value = "main",
        global = true
    )]
    town: TownId,
}

/// A server that runs: its worker, and the relay that the worker names, be it the same process or another one.
#[derive(Debug)]
pub(super) struct Server {
    worker: Client,
    pub(super) town: TownId,
    relay: OnceCell<Client>,
}

impl Server {
    /// The one that the arguments name. Nothing is sent yet.
    pub(super) fn find(args: &ServerArgs) -> anyhow::Result<Self> {
        let data_dir = args.data_dir.path()?;
        let url = match &args.url {
            Some(url) => url.clone(),
            None => {
                read_line(&data_dir.join(URL_FILE))?.unwrap_or_else(|| format!("http://{DEFAULT_LISTEN}"))
            }
        };
        let credentials = token(args, &data_dir)?.map_or_else(Credentials::none, Credentials::bearer);
        let worker = Client::new(&url, credentials)?;
        Ok(Self { worker, town: args.town.clone(), relay: OnceCell::new() })
    }

    /// The town's relay, where its logs are.
    pub(super) async fn relay(&self) -> anyhow::Result<&Client> {
        let find = async || {
            let tokens = RelayTokens::new(self.worker.clone(), self.town.clone());
            let url = tokens.renew().await?.unwrap_or_else(|| self.worker.base_url().to_owned());
            let tokens = Arc::new(tokens);
            let source = move || {
                let tokens = tokens.clone();
                async move { tokens.token().await }
            };
            Ok(Client::new(&url, Credentials::renewed(source))?)
        };
        self.relay.get_or_try_init(find).await
    }

    /// Complains about an agent that is not there. A follower would wait for its log; whoever types a name wants to know at once.
    pub(super) async fn find_agent(&self, agent: &AgentId) -> anyhow::Result<()> {
        let relay = self.relay().await?;
        match relay.page(&log_of(agent), None, 1, std::time::Duration::ZERO).await {
            Ok(_) => Ok(()),
            Err(error) if matches!(error.code(), Some(ErrorCode::UnknownLog | ErrorCode::NotFound)) => {
                self.api(Verb::Get, &format!("agents/{agent}"), None).await.map(drop)
            }
            Err(error) => Err(explain_relay(relay, error)),
        }
    }

    /// Steers an agent; what it refuses is an error.
    pub(super) async fn command(&self, agent: &AgentId, command: Command) -> anyhow::Result<CommandResult> {
        let id: CommandId = uuid::Uuid::new_v4()
            .simple()
            .to_string()
            .parse()
            .context("a command id is made of hex digits")?;
        let relay = self.relay().await?;
        match relay.command(agent, id, command).await {
            Ok(CommandResult { ok: false, error: Some(detail), .. })
                if detail.code == ErrorCode::AgentOffline =>
            {
                Err(self.why_offline(agent).await)
            }
            Ok(CommandResult { ok: false, error: Some(detail), .. }) => {
                Err(Refusal::because(Exit::of(detail.code), detail.message))
            }
            Ok(CommandResult { ok: false, error: None, .. }) => {
                Err(Refusal::because(Exit::Conflict, format!("{agent} did not take it")))
            }
            Ok(result) => Ok(result),
            Err(error) => Err(explain_relay(relay, error)),
        }
    }

    /// Why an agent has no wrapper, or no log: nobody knows it, or it does not run.
    pub(super) async fn why_offline(&self, agent: &AgentId) -> anyhow::Error {
        match self.api(Verb::Get, &format!("agents/{agent}"), None).await {
            Ok(_) => Refusal::because(
                Exit::Conflict,
                format!(
                    "{agent} does not run, or its wrapper is not connected: `gastown agent start {agent}`"
                ),
            ),
            Err(error) => error,
        }
    }

    /// The agents of the town, as the worker describes them.
    pub(super) async fn agents(&self) -> anyhow::Result<Vec<Value>> {
        let agents = self.api(Verb::Get, "agents", None).await?;
        serde_json::from_value(agents).context("the server's list of agents is not understood")
    }

    /// Asks the worker's HTTP API about this town; gives the `data` of its answer.
    pub(super) async fn api(&self, verb: Verb, route: &str, body: Option<&Value>) -> anyhow::Result<Value> {
        api(&self.worker, &self.town, verb, route, body).await
    }
}

/// See [`Server::api`].
async fn api(
    worker: &Client,
    town: &TownId,
    verb: Verb,
    route: &str,
    body: Option<&Value>,
) -> anyhow::Result<Value> {
    let body = body.map(|body| body.to_string().into());
    let answered = worker.call(verb, &format!("api/towns/{town}/{route}"), body).await;
    let (status, body) = answered.map_err(|error| explain(worker, error))?;
    read_answer(status, &body)
}

/// Says what to do when there is no server.
fn explain(worker: &Client, error: ApiError) -> anyhow::Error {
    let url = worker.base_url();
    with_hint(
        error,
        format!("no server answers at {url}: start one with `gastown up`, or name one with --url"),
    )
}

/// Says what to do when the relay is not there, or takes the worker's tokens for a stranger's.
pub(super) fn explain_relay(relay: &Client, error: ApiError) -> anyhow::Error {
    let url = relay.base_url();
    if error.code() == Some(ErrorCode::Unauthenticated) {
        let hint = format!(
            "the relay at {url} does not know the worker's tokens: start both with the same --signing-key"
        );
        return anyhow::Error::from(error).context(hint);
    }
    with_hint(error, format!("no relay answers at {url}, where the worker says it is: start it"))
}

fn with_hint(error: ApiError, hint: String) -> anyhow::Error {
    let away = error.code().is_none() && is_connect_failure(&error);
    let error = anyhow::Error::from(error);
    if away { error.context(hint) } else { error }
}

/// The id of an agent: its name in lower case.
pub(super) fn agent_id(name: &str) -> Result<AgentId, protocol::IdError> {
    name.to_ascii_lowercase().parse()
}

/// The log of an agent.
pub(super) fn log_of(agent: &AgentId) -> LogId {
    LogId::Agent(agent.clone())
}

/// The worker's answer: `{success: true, data}` or `{success: false, error, code}`.
#[derive(Debug, Deserialize)]
struct Answer {
    success: bool,
    #[serde(default)]
    data: Value,
    #[serde(default)]
    error: Option<String>,
    #[serde(default)]
    code: Option<Value>,
}

fn read_answer(status: u16, body: &[u8]) -> anyhow::Result<Value> {
    if let Ok(Answer { success: true, data, .. }) = serde_json::from_slice(body) {
        return Ok(data);
    }
    let by_status = match status {
        401 | 403 => Exit::NotAllowed,
        404 => Exit::NotFound,
        409 | 502 | 503 => Exit::Conflict,
        _ => Exit::Failed,
    };
    if let Ok(Answer { error: Some(message), code, .. }) = serde_json::from_slice(body) {
        let code = code.and_then(|code| serde_json::from_value(code).ok());
        let exit = code.map_or(by_status, Exit::of);
        // One that does not reach this far is the right one.
        let hint = if code == Some(ErrorCode::Forbidden) { "" } else { what_to_do(exit) };
        return Err(Refusal::because(exit, format!("{message}{hint}")));
    }
    if let Ok(ErrorBody { error }) = serde_json::from_slice(body) {
        return Err(Refusal::because(Exit::of(error.code), error.message));
    }
    let hint = what_to_do(by_status);
    Err(Refusal::because(by_status, format!("the server answered with status {status}{hint}")))
}

/// What to do about a refusal.
fn what_to_do(exit: Exit) -> &'static str {
    match exit {
        Exit::NotAllowed => "; is the token the one of this server? (--token-file, --data-dir)",
        Exit::NotFound => "; `gastown agents` lists those that are there",
        Exit::Done | Exit::Failed | Exit::Usage | Exit::NoServer | Exit::Conflict | Exit::Interrupted => "",
    }
}

/// The token to show: the file that was named, else the environment's, else the operator's of the data directory.
fn token(args: &ServerArgs, data_dir: &Path) -> anyhow::Result<Option<Token>> {
    if let Some(path) = &args.token_file {
        let token = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read the token in {}", path.display()))?;
        return Ok(Some(Token::new(&token)));
    }
    if let Some(token) = std::env::var_os("GASTOWN_TOKEN") {
        let token =
            token.into_string().map_err(|_| Refusal::because(Exit::Usage, "GASTOWN_TOKEN is no text"))?;
        return Ok(Some(Token::new(&token)));
    }
    Ok(read_line(&data_dir.join(TOKEN_FILE))?.map(|token| Token::new(&token)))
}

/// A small file, or nothing if it is not there.
fn read_line(path: &Path) -> anyhow::Result<Option<String>> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text.trim().to_owned())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

fn is_connect_failure(error: &ApiError) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(io) = error.downcast_ref::<std::io::Error>() {
            return io.kind() == std::io::ErrorKind::ConnectionRefused;
        }
        cause = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::{super::exit::exit_of, *};

    #[test]
    fn an_answer_is_unwrapped_and_a_refusal_keeps_its_code() {
        let data = read_answer(200, br#"{"success":true,"data":[1]}"#).unwrap();
        assert_eq!(data, serde_json::json!([1]));
        let error =
            read_answer(400, br#"{"success":false,"error":"no agent nux","code":"not_found"}"#).unwrap_err();
        let said = "no agent nux; `gastown agents` lists those that are there";
        assert_eq!((error.to_string().as_str(), exit_of(&error)), (said, Exit::NotFound));
    }

    #[test]
    fn a_token_that_does_not_reach_this_far_is_not_taken_for_another_servers() {
        let said = |status, code: &str| {
            let body = format!(r#"{{"success":false,"error":"no","code":"{code}"}}"#);
            read_answer(status, body.as_bytes()).unwrap_err().to_string()
        };
        assert_eq!(said(403, "forbidden"), "no");
        assert!(said(401, "unauthenticated").contains("--token-file"));
    }

    #[test]
    fn an_answer_of_something_in_between_is_told_by_its_status() {
        let error = read_answer(401, b"<html>").unwrap_err();
        assert_eq!(exit_of(&error), Exit::NotAllowed);
        assert!(error.to_string().contains("--token-file"), "{error}");
    }

    #[test]
    fn agents_are_found_by_their_name_in_any_case() {
        assert_eq!(agent_id("Toast").unwrap().as_str(), "toast");
        assert!(agent_id("two words").is_err());
    }

    #[test]
    fn a_named_token_file_that_is_missing_is_an_error_and_the_default_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let mut args = ServerArgs {
            url: None,
            token_file: None,
            data_dir: DataDirArgs { data_dir: Some(dir.path().to_owned()) },
            town: "main".parse().unwrap(),
        };
        assert!(Server::find(&args).is_ok());
        args.token_file = Some(dir.path().join("nowhere"));
        assert!(Server::find(&args).unwrap_err().to_string().contains("nowhere"));
    }

    #[test]
    fn the_server_of_a_data_directory_is_found_by_the_url_it_left_there() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(URL_FILE), "http://127.0.0.1:5555\n").unwrap();
        let args = ServerArgs {
            url: None,
            token_file: None,
            data_dir: DataDirArgs { data_dir: Some(dir.path().to_owned()) },
            town: "main".parse().unwrap(),
        };
        assert_eq!(Server::find(&args).unwrap().worker.base_url(), "http://127.0.0.1:5555/");
    }

    #[tokio::test]
    async fn without_a_server_it_is_told_how_to_start_one() {
        let dir = tempfile::tempdir().unwrap();
        // A port that was free a moment ago.
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let args = ServerArgs {
            url: Some(format!("http://127.0.0.1:{port}")),
            token_file: None,
            data_dir: DataDirArgs { data_dir: Some(dir.path().to_owned()) },
            town: "main".parse().unwrap(),
        };
        let server = Server::find(&args).unwrap();
        let error = server.agents().await.unwrap_err();
        assert_eq!(exit_of(&error), Exit::NoServer);
        assert!(error.to_string().contains("`gastown up`"), "{error}");
        let error = server.command(&"toast".parse().unwrap(), Command::Ping).await.unwrap_err();
        assert_eq!(exit_of(&error), Exit::NoServer);
    }
}
