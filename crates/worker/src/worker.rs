//! The handle of a worker.

use std::{collections::BTreeSet, fmt, io, net::IpAddr, path::PathBuf, sync::Arc, time::Duration};

use http::{HeaderMap, Uri, header};
use protocol::{AgentId, Command, CommandId, CommandResult, LogId, Timestamp, TownId};
use relay::{
    ApiError, RelayApi,
    auth::{
        AuthError, Authority as _, Capability, Claims, ClientClaims, CredentialBook, Credentials, Grant,
        Keys, LogScope, Secret, ShareClaims, TicketBook,
    },
};
use tokio::{sync::watch, time::timeout};
use tokio_util::task::TaskTracker;
use town::{Request, Share, Town};

use crate::{
    AskError, Clock, WorkerAuthority,
    agent_config::AgentConfigs,
    auth::{Holder, LoginLimiter, LoginLinks, Sessions},
    engine::EngineHandle,
    limits::{CLIENT_TOKEN_LIFE, SETTLE_WITHIN},
    publish::Copied,
};

/// A worker that runs: what the dashboard, the API and a program that embeds it go through. Cheap to clone; all clones
/// are one worker.
#[derive(Clone)]
pub struct Worker(Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) town: TownId,
    pub(crate) engine: EngineHandle,
    pub(crate) relay: Arc<dyn RelayApi>,
    pub(crate) authority: Arc<WorkerAuthority>,
    pub(crate) keys: Keys,
    pub(crate) configs: Arc<AgentConfigs>,
    pub(crate) tickets: Arc<TicketBook>,
    pub(crate) book: Arc<CredentialBook>,
    /// The relay's copy of the journal, if that is another process.
    pub(crate) copy: Option<Copied>,
    pub(crate) sessions: Arc<Sessions>,
    pub(crate) login_links: LoginLinks,
    pub(crate) login_limiter: LoginLimiter,
    pub(crate) clock: Clock,
    /// Where the work trees of its agents are.
    pub(crate) work: PathBuf,
    /// Base URL of the pages, without a slash at its end.
    pub(crate) url: String,
    /// Base URL of streams (`ws://…`), without a slash at its end.
    pub(crate) stream_url: String,
    /// Base URL of the relay, if that is another process.
    pub(crate) relay_url: Option<String>,
    pub(crate) tasks: TaskTracker,
}

/// What a share link shows.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Shared {
    /// The agent.
    pub agent: AgentId,
    /// It reads that agent's log, and nothing else; [`Grant::lease`] ends when the link is revoked or has expired.
    pub grant: Grant,
}

impl Worker {
    pub(crate) fn new(inner: Inner) -> Self {
        Self(Arc::new(inner))
    }

    /// Its town's id.
    #[must_use]
    pub fn town_id(&self) -> &TownId {
        &self.0.town
    }

    /// Its town, as far as the journal is committed and read; changes with every event.
    #[must_use]
    pub fn town(&self) -> watch::Receiver<Arc<Town>> {
        self.0.engine.town()
    }

    /// The folder for the work tree of an agent of this name.
    pub(crate) fn work_folder(&self, name: &str) -> String {
        self.0.work.join(name.to_ascii_lowercase()).to_string_lossy().into_owned()
    }

    /// The relay that has the agents' logs and links.
    #[must_use]
    pub fn relay(&self) -> &Arc<dyn RelayApi> {
        &self.0.relay
    }

    /// The base URL of its pages, without a slash at its end: `http://127.0.0.1:4280`.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.0.url
    }

    /// Asks the town, and waits until what comes of it is committed. Returns the town after it.
    ///
    /// # Errors
    /// When the town refuses, the journal fails, or the worker is going down.
    pub async fn ask(&self, request: Request) -> Result<Arc<Town>, AskError> {
        self.0.engine.ask(request).await
    }

    /// Steers an agent, under a fresh command id.
    ///
    /// # Errors
    /// When the relay could not be asked. What the agent refuses is a result that is not `ok`.
    pub async fn send(&self, agent: &AgentId, command: Command) -> Result<CommandResult, ApiError> {
        self.0.relay.command(agent, fresh_command_id(), command).await
    }

    /// What the credentials of a request are good for: its `Authorization`, its cookie, and, if a URI is given, the
    /// ticket in its query. A ticket that is accepted is used up.
    ///
    /// # Errors
    /// When they are good for nothing.
    pub fn authenticate(&self, headers: &HeaderMap, uri: Option<&Uri>) -> Result<Grant, AuthError> {
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
        let bearer = match headers.get(header::AUTHORIZATION) {
            Some(value) => Some(bearer(value).ok_or(AuthError::Invalid)?),
            None => None,
        };
        let credentials = Credentials {
            bearer,
            ticket: uri.and_then(Uri::query).and_then(ticket),
            cookie: text(header::COOKIE),
            origin: text(header::ORIGIN),
        };
        self.0.authority.authenticate(&credentials, self.now())
    }

    /// What the token of a share link is good for by now.
    ///
    /// # Errors
    /// When it is none of this town, was revoked, or has expired.
    pub fn shared(&self, token: &str) -> Result<Shared, AuthError> {
        let credentials = Credentials { ticket: Some(token), ..Credentials::default() };
        // Not every token that may stand in a query: a ticket would be used up.
        if !matches!(self.0.keys.verify(token)?, Claims::Share(_)) {
            return Err(AuthError::Invalid);
        }
        let grant = self.0.authority.authenticate(&credentials, self.now())?;
        let LogScope::Only(logs) = &grant.logs else { return Err(AuthError::Invalid) };
        let agent = logs.iter().find_map(LogId::agent).cloned().ok_or(AuthError::Invalid)?;
        Ok(Shared { agent, grant })
    }

    /// A link that logs one browser in, once, within an hour.
    #[must_use]
    pub fn one_use_login_url(&self) -> String {
        let key = self.0.login_links.issue(self.now());
        format!("{}/login?key={}", self.0.url, key.expose())
    }

    /// What time it is.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.0.clock.now()
    }

    pub(crate) fn clock(&self) -> &Clock {
        &self.0.clock
    }

    pub(crate) fn configs(&self) -> &Arc<AgentConfigs> {
        &self.0.configs
    }

    /// Where tasks of this worker are spawned, so that somebody waits for them.
    pub(crate) fn tasks(&self) -> &TaskTracker {
        &self.0.tasks
    }

    pub(crate) fn stream_url(&self) -> &str {
        &self.0.stream_url
    }

    pub(crate) fn issue_ticket(
        &self,
        issuer: &Grant,
        logs: BTreeSet<LogId>,
        capabilities: &BTreeSet<Capability>,
        origin: Option<String>,
        now: Timestamp,
    ) -> Result<Secret, AuthError> {
        self.0.tickets.issue(&self.0.keys, issuer, logs, capabilities, origin, now)
    }

    /// The base URL of the relay, if that is another process than this one.
    pub(crate) fn relay_url(&self) -> Option<&str> {
        self.0.relay_url.as_deref()
    }

    /// A token for the town's relay with which `holder` can do there what it can do here, and when it ends.
    pub(crate) fn client_token(&self, holder: &Grant) -> (Secret, Timestamp) {
        let expires = self.now().after(CLIENT_TOKEN_LIFE);
        let claims = ClientClaims {
            town: self.0.town.clone(),
            subject: holder.subject.clone(),
            capabilities: holder.capabilities.clone(),
            user: holder.user.clone(),
            expires,
        };
        (self.0.keys.sign(&Claims::Client(claims)), expires)
    }

    /// The address of a share link. Whoever asks gets it once the link is good.
    pub(crate) async fn share_url(&self, share: &Share) -> String {
        self.settled(self.0.book.known(&self.0.town, &share.share)).await;
        let claims = ShareClaims {
            jti: share.share.clone(),
            town: self.0.town.clone(),
            log: LogId::Agent(share.agent.clone()),
            expires: share.expires,
        };
        format!("{}/shared/{}", self.0.url, self.0.keys.sign(&Claims::Share(claims)).expose())
    }

    /// Waits until a user token that was just issued is good.
    pub(crate) async fn until_known(&self, token: &str) {
        self.settled(self.0.book.known(&self.0.town, token)).await;
    }

    /// Waits until nothing is open any more that a user token opened which was just revoked.
    pub(crate) async fn until_gone(&self, token: &str) {
        self.settled(self.0.book.gone(&self.0.town, token)).await;
    }

    /// Waits until those who go by the journal have read of it; not for ever, if one of them cannot read.
    async fn settled(&self, read: impl Future<Output = ()>) {
        let all = async {
            read.await;
            if let Some(copy) = &self.0.copy {
                copy.up_to_now().await;
            }
        };
        if timeout(SETTLE_WITHIN, all).await.is_err() {
            tracing::warn!("what the journal says of credentials was not taken in yet");
        }
    }

    /// Whose token this is.
    pub(crate) fn holder(&self, token: &str) -> Result<Holder, AuthError> {
        self.0.authority.holder(token, self.now())
    }

    /// Whether browsers reach it over HTTPS.
    pub(crate) fn is_https(&self) -> bool {
        self.0.url.starts_with("https://")
    }

    pub(crate) fn redeem_login(&self, key: &str) -> bool {
        self.0.login_links.redeem(key, self.now())
    }

    pub(crate) fn login_wait(&self, address: Option<IpAddr>) -> Option<Duration> {
        self.0.login_limiter.wait(address, self.now())
    }

    pub(crate) fn login_failed(&self, address: Option<IpAddr>) {
        self.0.login_limiter.failed(address, self.now());
    }

    pub(crate) async fn begin_session(&self, holder: Holder) -> io::Result<Secret> {
        let (sessions, now) = (self.0.sessions.clone(), self.now());
        tokio::task::spawn_blocking(move || sessions.begin(holder, now)).await.map_err(io::Error::other)?
    }

    pub(crate) async fn end_session(&self, session: String) -> io::Result<()> {
        let sessions = self.0.sessions.clone();
        tokio::task::spawn_blocking(move || sessions.end(&session)).await.map_err(io::Error::other)?
    }
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker").field("town", &self.0.town).field("url", &self.0.url).finish_non_exhaustive()
    }
}

/// An id that no other command has.
pub(crate) fn fresh_command_id() -> CommandId {
    let id = format!("cmd_{}", uuid::Uuid::now_v7().simple());
    id.parse().expect("letters, digits and `_`, far fewer than 64")
}

fn bearer(value: &http::HeaderValue) -> Option<&str> {
    let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// The ticket in a query. Tickets are base64url with dots: nothing in them is escaped.
fn ticket(query: &str) -> Option<&str> {
    query.split('&').find_map(|pair| pair.strip_prefix("ticket="))
}
