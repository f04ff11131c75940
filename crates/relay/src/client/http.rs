//! The client itself, and its requests that are one HTTP exchange each (§4).

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{
    StreamExt as _,
    stream::{BoxStream, unfold},
};
use protocol::{
    AgentId, Command, CommandId, CommandResult, Cursor, Epoch, ErrorBody, ErrorCode, ErrorDetail, Event,
    LogId, NewEvent, ProducerId, Seq,
    config::SealedConfig,
    frame::{GapReason, StartAt},
    limits,
    search::{Found, Search},
};
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{ClientError, Credentials, Dial, Follow, endpoint::Endpoint, search, trust::BadCertificate};
use crate::{ApiError, AppendedAt, Delivery, Presence, RelayApi};

/// How long a connection for a request may take to come about.
const CONNECT: Duration = Duration::from_secs(15);
/// How long an answer may take, where the request does not ask to wait: a command waits for the agent's own answer.
const ANSWER: Duration = Duration::from_secs(60);

/// A client of one relay. Cheap to clone; clones share their HTTP connections.
#[derive(Debug, Clone)]
pub struct Client {
    endpoint: Endpoint,
    http: reqwest::Client,
}

/// What [`Client::call`] does with a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// Reads it.
    Get,
    /// Sends it something.
    Post,
    /// Changes it.
    Patch,
    /// Removes it.
    Delete,
}

/// Who numbers events (§6): an id, and a generation that rises with each of its incarnations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Producer {
    /// The id.
    pub id: ProducerId,
    /// The generation.
    pub generation: u64,
}

/// What is committed of a producer's events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[non_exhaustive]
pub struct Acked {
    /// The last number; 0 if none.
    pub acked: u64,
    /// The newest position of the log.
    pub head: Seq,
}

/// Part of a log, read at once (§4).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventPage {
    /// The log's incarnation.
    pub epoch: Epoch,
    /// What lies at or below this was pruned.
    pub floor: Seq,
    /// The newest position.
    pub head: Seq,
    /// The events, oldest first.
    pub events: Vec<Event>,
    /// There are events after the last one here.
    pub more: bool,
    /// What the cursor asked for and can no longer be had.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gap: Option<PageGap>,
}

/// What a page cannot hold any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PageGap {
    /// First position lost; absent for [`GapReason::Epoch`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Seq>,
    /// Last position lost; absent for [`GapReason::Epoch`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<Seq>,
    /// Why.
    pub reason: GapReason,
}

impl EventPage {
    /// Where to read on.
    #[must_use]
    pub fn cursor(&self) -> Cursor {
        let seq = self.events.last().map_or(self.head, |event| event.seq);
        Cursor { epoch: self.epoch.clone(), seq }
    }
}

impl Client {
    /// A client of the relay at `base_url` (`http://host[:port]` or `https://…`, with a path if a proxy adds one).
    ///
    /// Nothing is sent yet. `https` trusts the certificate authorities of the system; a proxy named in the environment
    /// is used for the requests to hosts other than this one.
    ///
    /// # Errors
    /// When the URL is none of a relay, or the system's certificates cannot be read.
    pub fn new(base_url: &str, credentials: Credentials) -> Result<Self, ClientError> {
        let endpoint = Endpoint::new(base_url, credentials)?;
        let mut http = reqwest::Client::builder()
            .tls_backend_preconfigured((*endpoint.tls()).clone())
            .connect_timeout(CONNECT)
            .redirect(reqwest::redirect::Policy::none());
        if endpoint.is_loopback() {
            http = http.no_proxy();
        }
        let http = http.build().map_err(|source| ClientError::Tls { source: source.into() })?;
        Ok(Self { endpoint, http })
    }

    /// The same, whose streams are connected in another way. Requests of one exchange are not.
    #[must_use]
    pub fn with_dialer(mut self, dialer: Arc<dyn Dial>) -> Self {
        self.endpoint = self.endpoint.with_dialer(dialer);
        self
    }

    /// The relay's URL, for people.
    #[must_use]
    pub fn base_url(&self) -> &str {
        self.endpoint.base().as_str()
    }

    /// Follows a log, over as many connections as it takes: what is kept after `from` (all of it, without one), then
    /// what comes. Nothing is connected before the stream is polled.
    #[must_use]
    pub fn follow(&self, log: LogId, from: Option<StartAt>) -> Follow {
        Follow::new(self.endpoint.clone(), log, from, false)
    }

    /// As [`Self::follow`], and a log that is not there yet is waited for: the relay is asked again about every second.
    #[must_use]
    pub fn follow_when_there(&self, log: LogId, from: Option<StartAt>) -> Follow {
        Follow::new(self.endpoint.clone(), log, from, true)
    }

    /// A page of a log: at most `limit` events (1 to 1,000) after a cursor, or from the beginning of what is kept. With
    /// `wait` (at most 30 s) an empty page is held back until there is an event, or the time is over.
    ///
    /// # Errors
    /// When the relay refused or could not be asked.
    pub async fn page(
        &self,
        log: &LogId,
        after: Option<&Cursor>,
        limit: usize,
        wait: Duration,
    ) -> Result<EventPage, ApiError> {
        let doing = "read events";
        let mut query = vec![("limit", limit.clamp(1, limits::PAGE_EVENTS_MAX).to_string())];
        if let Some(cursor) = after {
            query.push(("after", cursor.seq.to_string()));
            query.push(("epoch", cursor.epoch.to_string()));
        }
        let wait_s = wait.as_secs().min(limits::LONG_POLL_S);
        if wait_s > 0 {
            query.push(("wait", wait_s.to_string()));
        }
        let request = self.request(Method::GET, &format!("{}/events", path(log))).await?;
        let request = request.query(&query).timeout(ANSWER + Duration::from_secs(wait_s));
        read(request.header("accept", "application/json"), doing).await
    }

    /// The folded state of a log at its head (§4.3), as the type the caller reads it into: as a rule a
    /// `serde_json::Value`. Whoever wants the fold as a `SessionView` applies the events of [`Self::page`].
    ///
    /// # Errors
    /// When the relay refused, could not be asked, or the answer has another shape.
    pub async fn view<T: DeserializeOwned>(&self, log: &LogId) -> Result<T, ApiError> {
        read(self.request(Method::GET, &format!("{}/view", path(log))).await?, "fold a log").await
    }

    /// One exchange with a route of the same server that is not the relay's, such as a worker's `api/…`: JSON in, JSON
    /// out, with the same credentials. Gives the status and the body, whatever the status is.
    ///
    /// # Errors
    /// When the server could not be asked.
    pub async fn call(&self, verb: Verb, route: &str, body: Option<Bytes>) -> Result<(u16, Bytes), ApiError> {
        let doing = "call the server";
        let method = match verb {
            Verb::Get => Method::GET,
            Verb::Post => Method::POST,
            Verb::Patch => Method::PATCH,
            Verb::Delete => Method::DELETE,
        };
        let mut request = self.request(method, route).await?;
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body);
        }
        let response = send(request, doing).await?;
        let status = response.status().as_u16();
        let body = response.bytes().await.map_err(|source| unreachable(doing, source))?;
        Ok((status, body))
    }

    /// Appends events that a producer numbers (§6 rules 1 to 4), without a link: `first` (from 1) is the number of the
    /// first of them. Sending them again is harmless. No events ask for what is committed.
    ///
    /// # Errors
    /// When the relay refused (a hole in the numbers, another producer) or could not be asked.
    pub async fn append_numbered(
        &self,
        log: &LogId,
        producer: &Producer,
        first: u64,
        events: Vec<NewEvent>,
    ) -> Result<Acked, ApiError> {
        #[derive(Serialize)]
        struct Body<'a> {
            producer: &'a ProducerId,
            generation: u64,
            first: u64,
            events: Vec<NewEvent>,
        }
        let Producer { id, generation } = producer;
        let body = Body { producer: id, generation: *generation, first, events };
        let request = self.request(Method::POST, &format!("{}/events", path(log))).await?;
        read(request.json(&body), "append events").await
    }

    async fn request(&self, method: Method, route: &str) -> Result<RequestBuilder, ApiError> {
        let request = self.http.request(method, self.endpoint.route(route)).timeout(ANSWER);
        match self.endpoint.credentials().token().await {
            Ok(Some(token)) => Ok(request.bearer_auth(token.reveal())),
            Ok(None) => Ok(request),
            Err(error) => Err(unreachable("show credentials", error)),
        }
    }
}

#[async_trait]
impl RelayApi for Client {
    /// As [`Client::follow_when_there`]; why it ended, if that was an error, goes to the log of this process.
    fn follow(&self, log: LogId, from: Option<StartAt>) -> BoxStream<'static, Delivery> {
        let follow = self.follow_when_there(log, from);
        unfold(follow, |mut follow| async move {
            match follow.next().await? {
                Ok(delivery) => Some((delivery, follow)),
                Err(error) => {
                    tracing::error!(error = &error as &dyn std::error::Error, "a log is followed no longer");
                    None
                }
            }
        })
        .boxed()
    }

    async fn command(
        &self,
        agent: &AgentId,
        id: CommandId,
        command: Command,
    ) -> Result<CommandResult, ApiError> {
        let doing = "steer an agent";
        let request = self
            .request(Method::POST, &format!("v1/agents/{agent}/commands"))
            .await?
            .header("idempotency-key", id.as_str())
            .json(&command);
        let response = send(request, doing).await?;
        let status = response.status();
        let body = response.bytes().await.map_err(|source| unreachable(doing, source))?;
        match serde_json::from_slice::<CommandResult>(&body) {
            Ok(result) => Ok(result),
            Err(error) if status.is_success() => Err(unreachable(doing, error)),
            Err(_) => Err(refused(status, &body)),
        }
    }

    async fn configure(&self, agent: &AgentId, config: SealedConfig) -> Result<(), ApiError> {
        let request = self.request(Method::POST, &format!("v1/agents/{agent}/config")).await?;
        checked(request.json(&config), "configure an agent").await.map(drop)
    }

    async fn append(&self, log: &LogId, events: Vec<NewEvent>) -> Result<AppendedAt, ApiError> {
        #[derive(Serialize)]
        struct Body {
            events: Vec<NewEvent>,
        }
        let request = self.request(Method::POST, &format!("{}/events", path(log))).await?;
        read(request.json(&Body { events }), "append events").await
    }

    async fn presence(&self, agent: &AgentId) -> Result<Presence, ApiError> {
        read(
            self.request(Method::GET, &format!("v1/agents/{agent}/presence")).await?,
            "see whether a wrapper is connected",
        )
        .await
    }

    async fn remove_log(&self, log: &LogId) -> Result<(), ApiError> {
        checked(self.request(Method::DELETE, &path(log)).await?, "remove a log").await.map(drop)
    }

    async fn search(&self, search: &Search) -> Result<Found, ApiError> {
        if search.logs.as_ref().is_some_and(|logs| logs.is_empty()) {
            // The route has no word for it: there a search that names no log is one in every log.
            return Ok(Found::default());
        }
        let request = self.request(Method::GET, "v1/search").await?;
        read(request.query(&search::query(search)), "search").await
    }
}

/// The route of a log (§4).
fn path(log: &LogId) -> String {
    match log {
        LogId::Agent(id) => format!("v1/agents/{id}"),
        LogId::Town(id) => format!("v1/towns/{id}"),
    }
}

async fn send(request: RequestBuilder, doing: &'static str) -> Result<Response, ApiError> {
    // The URL may hold a ticket; the error is for people and logs.
    request.send().await.map_err(|source| match BadCertificate::behind(&source) {
        Some(certificate) => unreachable(doing, certificate),
        None => unreachable(doing, source.without_url()),
    })
}

/// An answer whose status says that it went well.
async fn checked(request: RequestBuilder, doing: &'static str) -> Result<Response, ApiError> {
    let response = send(request, doing).await?;
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let body = response.bytes().await.map_err(|source| unreachable(doing, source))?;
    Err(refused(status, &body))
}

async fn read<T: DeserializeOwned>(request: RequestBuilder, doing: &'static str) -> Result<T, ApiError> {
    let body = checked(request, doing).await?.bytes().await.map_err(|source| unreachable(doing, source))?;
    serde_json::from_slice(&body).map_err(|source| unreachable(doing, source))
}

fn unreachable(doing: &'static str, source: impl std::error::Error + Send + Sync + 'static) -> ApiError {
    ApiError::Unreachable { doing, source: source.into() }
}

/// What an answer that is an error says; a proxy's own answers have no body that is understood.
fn refused(status: StatusCode, body: &[u8]) -> ApiError {
    if let Ok(ErrorBody { error }) = serde_json::from_slice(body) {
        return ApiError::Refused(error);
    }
    let code = match status.as_u16() {
        400 => ErrorCode::BadRequest,
        401 => ErrorCode::Unauthenticated,
        403 => ErrorCode::Forbidden,
        404 => ErrorCode::NotFound,
        409 => ErrorCode::Conflict,
        413 => ErrorCode::TooLarge,
        429 => ErrorCode::RateLimited,
        502..=504 => ErrorCode::Draining,
        507 => ErrorCode::StoreFull,
        _ => ErrorCode::Internal,
    };
    ApiError::Refused(ErrorDetail::new(code, format!("the server answered {status}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_without_a_body_is_told_by_its_status() {
        let code = |status: u16| refused(StatusCode::from_u16(status).unwrap(), b"<html>").code();
        assert_eq!(code(401), Some(ErrorCode::Unauthenticated));
        assert_eq!(code(502), Some(ErrorCode::Draining));
        assert_eq!(code(500), Some(ErrorCode::Internal));
    }

    #[test]
    fn an_answer_with_a_body_is_told_by_its_word() {
        let body = br#"{"error":{"code":"agent_offline","message":"no wrapper"}}"#;
        let error = refused(StatusCode::SERVICE_UNAVAILABLE, body);
        assert_eq!(error.code(), Some(ErrorCode::AgentOffline));
        assert!(error.is_retryable());
    }

    #[test]
    fn an_empty_page_is_read_on_from_its_head() {
        let page = EventPage {
            epoch: Epoch::new("e"),
            floor: Seq::ZERO,
            head: Seq::new(9),
            events: Vec::new(),
            more: false,
            gap: None,
        };
        assert_eq!(page.cursor(), Cursor { epoch: Epoch::new("e"), seq: Seq::new(9) });
    }
}
