//! Drives a [`Viewer`] over a WebSocket.

use axum::{
    Extension,
    extract::{
        Query, State,
        rejection::QueryRejection,
        ws::{Message, WebSocket, WebSocketUpgrade, rejection::WebSocketUpgradeRejection},
    },
    response::{IntoResponse, Response},
};
use futures_util::{SinkExt as _, future};
use protocol::{
    AgentId, CloseCode, Command, CommandId, CommandResult, Cursor, Epoch, ErrorCode, ErrorDetail, LogId, Seq,
    frame::StartAt, limits,
};
use serde::Deserialize;
use tokio::task::JoinSet;

use super::{
    Relay,
    accept::Progress,
    clock,
    feed::{Next, Reader},
    metrics::Metrics,
    problem::Problem,
    wire,
};
use crate::{
    RelayApi as _,
    auth::{AuthError, Capability, Grant},
    filter::TypeFilter,
    viewer::{Action, Viewer},
};

type Upgrade = Result<WebSocketUpgrade, WebSocketUpgradeRejection>;

/// Where a reader of one log starts, as the query says it.
#[derive(Debug, Default, Deserialize)]
pub(super) struct StartQuery {
    after: Option<String>,
    epoch: Option<String>,
    types: Option<String>,
    view: Option<String>,
}

impl StartQuery {
    /// The cursor and the filter. A position without an epoch is taken to be of the log's own, which `current` is.
    pub(super) fn parse(self, current: Option<&Epoch>) -> Result<(Option<StartAt>, TypeFilter), ErrorDetail> {
        let bad = |message: String| ErrorDetail::new(ErrorCode::BadRequest, message);
        if self.view.is_some_and(|view| view != "events") {
            let message = "this relay sends events: other views are the worker's";
            return Err(ErrorDetail::new(ErrorCode::Unsupported, message));
        }
        let filter =
            TypeFilter::parse(self.types.as_deref().unwrap_or_default()).map_err(|e| bad(e.to_string()))?;
        let from = match (self.after.as_deref(), self.epoch, current) {
            (None, _, _) => None,
            (Some("head"), _, _) => Some(StartAt::Head),
            (Some(after), epoch, current) => {
                let seq = after.parse::<u64>().ok().and_then(|seq| Seq::try_from(seq).ok());
                let seq = seq.ok_or_else(|| bad("`after` is a position or `head`".to_owned()))?;
                let epoch = epoch.map(|epoch| Epoch::new(&epoch)).or_else(|| current.cloned());
                epoch.map(|epoch| StartAt::After(Cursor { epoch, seq }))
            }
        };
        Ok((from, filter))
    }
}

/// `GET /v1/agents/{agent}/stream`, `GET /v1/towns/{town}/stream`.
pub(super) async fn one_log(
    State(relay): State<Relay>,
    Extension(grant): Extension<Grant>,
    Extension(log): Extension<LogId>,
    progress: Option<Extension<Progress>>,
    query: Result<Query<StartQuery>, QueryRejection>,
    upgrade: Upgrade,
) -> Response {
    let Ok(upgrade) = upgrade else { return not_a_websocket() };
    let query = match query {
        Ok(Query(query)) => query,
        Err(error) => {
            return wire::refuse(&relay, upgrade, ErrorDetail::new(ErrorCode::BadRequest, error.body_text()));
        }
    };
    let current = relay.store().bounds(&log).await.ok().map(|bounds| bounds.epoch);
    match query.parse(current.as_ref()) {
        Ok((from, filter)) => {
            let viewer = Viewer::of_one_log(clock::instant(), log, from, filter);
            accept(relay, grant, progress, upgrade, viewer)
        }
        Err(why) => wire::refuse(&relay, upgrade, why),
    }
}

/// `GET /v1/stream`.
pub(super) async fn many_logs(
    State(relay): State<Relay>,
    Extension(grant): Extension<Grant>,
    progress: Option<Extension<Progress>>,
    upgrade: Upgrade,
) -> Response {
    match upgrade {
        Ok(upgrade) => accept(relay, grant, progress, upgrade, Viewer::new(clock::instant())),
        Err(_) => not_a_websocket(),
    }
}

pub(super) fn not_a_websocket() -> Response {
    Problem::new(ErrorCode::BadRequest, "this route is a WebSocket: ask for an upgrade").into_response()
}

fn accept(
    relay: Relay,
    grant: Grant,
    progress: Option<Extension<Progress>>,
    upgrade: WebSocketUpgrade,
    viewer: Viewer,
) -> Response {
    let token = relay.tracker().token();
    let progress = progress.map(|Extension(progress)| progress);
    wire::limited(upgrade, limits::VIEWER_FRAME_BYTES).on_upgrade(move |socket| async move {
        let _token = token;
        let metrics = relay.clone();
        let _held = Metrics::hold(&metrics.metrics().viewers);
        let reader = Reader::new(relay.feeds().clone());
        let driver = Driver { relay, grant, progress, socket, viewer, reader, results: JoinSet::new() };
        driver.run().await;
    })
}

struct Driver {
    relay: Relay,
    grant: Grant,
    progress: Option<Progress>,
    socket: WebSocket,
    viewer: Viewer,
    reader: Reader,
    results: JoinSet<CommandResult>,
}

/// The socket is closed, or of no more use.
struct Over;

impl Driver {
    async fn run(mut self) {
        let draining = self.relay.draining().clone();
        let wake = self.reader.wake();
        let lease = self.grant.lease.clone();
        let mut told = false;
        loop {
            if self.act().await.is_err() {
                return;
            }
            tokio::select! {
                message = self.socket.recv() => match message {
                    Some(Ok(message)) => self.take(&message),
                    Some(Err(error)) => match wire::fault_of(&error) {
                        Some(why) => self.viewer.fail(why),
                        None => return,
                    },
                    None => return,
                },
                dirty = wake.wait() => dirty.iter().for_each(|log| self.look(log)),
                Some(result) = self.results.join_next() => if let Ok(result) = result {
                    self.viewer.handle_result(result);
                },
                () = clock::sleep_until(self.viewer.deadline()) => {
                    self.viewer.handle_time(clock::instant(), clock::now());
                }
                () = draining.cancelled(), if !told => {
                    told = true;
                    self.viewer.handle_drain(self.relay.retry_after_ms());
                }
                // `act` closes then.
                () = lease.ended() => {}
            }
        }
    }

    /// Does what the machine says until it has nothing more to say, then sends all of it.
    async fn act(&mut self) -> Result<(), Over> {
        loop {
            if self.grant.lease.is_over() {
                let (code, reason) = (ErrorCode::Unauthenticated.close(), AuthError::Revoked.to_string());
                wire::close(&mut self.socket, code, &reason).await;
                return Err(Over);
            }
            let Some(action) = self.viewer.poll(clock::instant()) else { break };
            match action {
                Action::Send(frame) => {
                    Metrics::add(&self.relay.metrics().bytes_out, frame.len());
                    self.send(Some(wire::text(frame))).await?;
                }
                Action::Open(log) => self.open(&log).await,
                Action::Read { log, epoch, after } => self.read(&log, &epoch, after).await,
                Action::Leave(log) => self.reader.leave(&log),
                Action::Command { id, agent, command } => self.command(id, agent, command),
                Action::Close { code, reason } => {
                    wire::close(&mut self.socket, code, &reason).await;
                    return Err(Over);
                }
            }
        }
        self.send(None).await?;
        self.viewer.handle_sent();
        Ok(())
    }

    /// Hands a message to the socket, or (`None`) waits until all of them have left. A viewer that takes none is left
    /// alone until the machine says that it is stalled.
    async fn send(&mut self, message: Option<Message>) -> Result<(), Over> {
        let draining = self.relay.draining().clone();
        let mut sent = self.progress.as_ref().map(Progress::bytes);
        let (code, reason) = {
            let mut sending = std::pin::pin!(match message {
                Some(message) => future::Either::Left(self.socket.feed(message)),
                None => future::Either::Right(self.socket.flush()),
            });
            loop {
                tokio::select! {
                    biased;
                    done = &mut sending => return done.map_err(|_| Over),
                    () = draining.cancelled() => break (CloseCode::DRAINING, "the relay goes down".to_owned()),
                    () = clock::sleep_until(self.viewer.deadline()) => {}
                }
                let by_now = self.progress.as_ref().map(Progress::bytes);
                if std::mem::replace(&mut sent, by_now) != by_now {
                    self.viewer.handle_progress(clock::instant());
                    continue;
                }
                self.viewer.handle_time(clock::instant(), clock::now());
                if let Some(Action::Close { code, reason }) = self.viewer.poll(clock::instant()) {
                    break (code, reason);
                }
            }
        };
        wire::close(&mut self.socket, code, &reason).await;
        Err(Over)
    }

    async fn open(&mut self, log: &LogId) {
        if !self.grant.allows(Capability::Read, log) {
            let why = ErrorDetail::new(ErrorCode::Forbidden, format!("the credentials do not reach {log}"));
            return self.viewer.handle_refused(log, why);
        }
        match self.reader.open(log).await {
            Ok(bounds) => {
                self.viewer.handle_opened(log, bounds);
                self.look(log);
            }
            Err(why) => self.viewer.handle_refused(log, why),
        }
    }

    async fn read(&mut self, log: &LogId, epoch: &Epoch, after: Seq) {
        match self.reader.next(log, epoch, after).await {
            Ok(Next::Segment(segment)) => {
                Metrics::add(&self.relay.metrics().events_out, segment.records().len());
                self.viewer.handle_segment(log, &segment);
            }
            Ok(Next::Page(page)) => {
                Metrics::add(&self.relay.metrics().behind, 1);
                Metrics::add(&self.relay.metrics().events_out, page.records.len());
                if page.bounds.floor > after {
                    Metrics::add(&self.relay.metrics().gaps, 1);
                }
                let is_all = !page.more && page.bounds.epoch == *epoch;
                self.viewer.handle_page(log, page);
                if is_all {
                    // What is committed after this read wakes the reader, which watches since before it.
                    self.viewer.handle_nothing(log);
                }
            }
            Ok(Next::Nothing) => self.viewer.handle_nothing(log),
            Err(why) => self.viewer.handle_refused(log, why),
        }
    }

    /// Something about a log has changed.
    fn look(&mut self, log: &LogId) {
        if let Some(agent) = log.agent() {
            let presence = self.relay.links().presence(agent);
            self.viewer.handle_presence(log, presence.wrapper, presence.since);
        }
        self.viewer.handle_head(log);
    }

    fn take(&mut self, message: &Message) {
        match message {
            Message::Text(text) => self.viewer.handle_text(clock::instant(), text.as_bytes()),
            Message::Binary(_) => {
                self.viewer.fail(ErrorDetail::new(ErrorCode::BadRequest, "frames are text"))
            }
            Message::Ping(_) | Message::Pong(_) | Message::Close(_) => self.viewer.handle_sign_of_life(),
        }
    }

    fn command(&mut self, id: CommandId, agent: AgentId, command: Command) {
        if !self.grant.allows(Capability::Steer, &LogId::Agent(agent.clone())) {
            let message = "the credentials do not let you steer this agent";
            return self.viewer.handle_result(CommandResult::refused(id, ErrorCode::Forbidden, message));
        }
        let relay = self.relay.clone();
        self.results.spawn(async move {
            relay.command(&agent, id.clone(), command).await.unwrap_or_else(|error| {
                CommandResult::refused(id, error.code().unwrap_or(ErrorCode::Internal), error.to_string())
            })
        });
    }
}
