//! Drives an [`Ingest`] over a WebSocket.

use std::{future::Future, pin::Pin};

use axum::{
    Extension,
    extract::{
        State,
        ws::{Message, WebSocket, WebSocketUpgrade, rejection::WebSocketUpgradeRejection},
    },
    response::Response,
};
use futures_util::{SinkExt as _, future};
use protocol::{ErrorCode, ErrorDetail, LogId, limits};
use store::{Append, AppendError, Appended, ProducerBatch};

use super::{
    Relay, clock,
    links::{End, Registration},
    metrics::Metrics,
    problem, viewer_socket, wire,
};
use crate::{
    auth::{Capability, Grant},
    ingest::{Action, Hello, Ingest},
};

/// `GET /v1/ingest`.
pub(super) async fn ingest(
    State(relay): State<Relay>,
    Extension(grant): Extension<Grant>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Response {
    let Ok(upgrade) = upgrade else { return viewer_socket::not_a_websocket() };
    let token = relay.tracker().token();
    wire::limited(upgrade, limits::INGEST_FRAME_BYTES).on_upgrade(move |socket| async move {
        let _token = token;
        let metrics = relay.clone();
        let _held = Metrics::hold(&metrics.metrics().links);
        let link = Ingest::new(clock::instant());
        let mut driver = Driver { relay, grant, socket, link, registration: None, appending: None };
        driver.run().await;
        driver.end();
    })
}

type Appending = Pin<Box<dyn Future<Output = Result<Appended, AppendError>> + Send>>;

struct Driver {
    relay: Relay,
    grant: Grant,
    socket: WebSocket,
    link: Ingest,
    registration: Option<Registration>,
    appending: Option<Appending>,
}

/// The socket is closed, or of no more use.
struct Over;

impl Driver {
    async fn run(&mut self) {
        let draining = self.relay.draining().clone();
        let mut told = false;
        while self.act().await.is_ok() {
            let appended = async {
                match &mut self.appending {
                    Some(appending) => appending.await,
                    None => future::pending().await,
                }
            };
            let (commands, end) = match &mut self.registration {
                Some(Registration { commands, end, .. }) => (Some(commands), Some(end)),
                None => (None, None),
            };
            let command = async {
                match commands {
                    Some(commands) => commands.recv().await,
                    None => future::pending().await,
                }
            };
            let ended = async {
                match end {
                    Some(end) => end.await,
                    None => future::pending().await,
                }
            };
            tokio::select! {
                appended = appended => {
                    self.appending = None;
                    match appended {
                        Ok(appended) => self.link.handle_appended(&appended),
                        Err(error) => {
                            tracing::warn!(%error, "events were not committed");
                            self.link.handle_append_failed(&error);
                        }
                    }
                }
                end = ended => {
                    self.registration = None;
                    match end {
                        Ok(End::Superseded) => self.link.handle_superseded(),
                        Ok(End::Replaced) | Err(_) => self.link.handle_replaced(),
                    }
                }
                Some((id, command)) = command => {
                    self.link.handle_command(&id, command);
                }
                message = self.socket.recv(), if self.link.wants_input() => match message {
                    Some(Ok(message)) => self.take(&message),
                    Some(Err(error)) => match wire::fault_of(&error) {
                        Some(why) => self.link.fail(why.code, &why.message),
                        None => return,
                    },
                    None => return,
                },
                () = clock::sleep_until(self.link.deadline()) => self.link.handle_time(clock::instant()),
                () = draining.cancelled(), if !told => {
                    told = true;
                    self.link.handle_drain(self.relay.retry_after_ms());
                }
            }
        }
    }

    /// Does what the machine says until it has nothing more to say, then sends all of it.
    async fn act(&mut self) -> Result<(), Over> {
        while let Some(action) = self.link.poll(clock::instant()) {
            match action {
                Action::Send(frame) => self.send(Some(wire::text(frame))).await?,
                Action::Open(hello) => self.open(&hello).await,
                Action::Append(batch) => {
                    let Some(hello) = self.link.hello() else { continue };
                    let (relay, log) = (self.relay.clone(), LogId::Agent(hello.agent.clone()));
                    self.appending = Some(Box::pin(async move { relay.commit(&log, batch).await }));
                }
                Action::Presence { state, last_activity } => {
                    if let Some(hello) = self.link.hello() {
                        self.relay.links().said(&hello.agent, state, last_activity);
                    }
                }
                Action::Result(result) => {
                    if let Some(hello) = self.link.hello() {
                        self.relay.links().finish(&hello.agent, &result);
                    }
                }
                Action::Close { code, reason } => {
                    // Whoever waits for this link to end does not wait for the other side's answer.
                    self.end();
                    wire::close(&mut self.socket, code, &reason).await;
                    return Err(Over);
                }
            }
        }
        self.send(None).await
    }

    /// Hands a message to the socket, or (`None`) waits until all of them have left; a wrapper that takes none within
    /// the time after which it counts as dead is given up.
    async fn send(&mut self, message: Option<Message>) -> Result<(), Over> {
        let sending = match message {
            Some(message) => future::Either::Left(self.socket.feed(message)),
            None => future::Either::Right(self.socket.flush()),
        };
        match tokio::time::timeout(std::time::Duration::from_millis(limits::DEAD_MS), sending).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(Over),
        }
    }

    fn take(&mut self, message: &Message) {
        match message {
            Message::Text(text) => self.link.handle_text(clock::instant(), text.as_bytes()),
            Message::Binary(_) => self.link.fail(ErrorCode::BadRequest, "frames are text"),
            Message::Ping(_) | Message::Pong(_) | Message::Close(_) => {
                self.link.handle_sign_of_life(clock::instant());
            }
        }
    }

    async fn open(&mut self, hello: &Hello) {
        match self.let_in(hello).await {
            Ok(registered) => {
                tracing::info!(
                    agent = %hello.agent, generation = hello.generation, runtime = hello.runtime.name,
                    version = hello.wrapper_version, acked = registered.acked, "a wrapper is connected"
                );
                self.link.handle_opened(&registered);
                self.relay.feeds().wake(&LogId::Agent(hello.agent.clone()));
            }
            Err(why) => self.link.handle_refused(&why),
        }
    }

    /// Compares what the wrapper says with its token, fences older generations in the store, and takes their place in
    /// the table of links.
    async fn let_in(&mut self, hello: &Hello) -> Result<Appended, ErrorDetail> {
        let log = LogId::Agent(hello.agent.clone());
        let is_its_own = self.grant.allows(Capability::Ingest, &log)
            && self.grant.town == hello.town
            && self.grant.generation.is_none_or(|generation| generation == hello.generation);
        if !is_its_own {
            let message = "the token is for another town, agent or generation";
            return Err(ErrorDetail::new(ErrorCode::Forbidden, message));
        }
        let (producer, generation) = (hello.producer.clone(), hello.generation);
        let registers = ProducerBatch { producer, generation, first: hello.next.max(1) };
        let batch = Append::of(Vec::new()).from_producer(registers);
        let registered = self.relay.commit(&log, batch).await.map_err(|error| problem::of_append(&error))?;
        self.registration = Some(self.relay.links().register(hello, clock::now())?);
        Ok(registered)
    }

    /// Leaves the table of links, if this link is in it.
    fn end(&mut self) {
        let Some(registration) = self.registration.take() else { return };
        let Some(hello) = self.link.hello() else { return };
        let (agent, now) = (hello.agent.clone(), clock::now());
        if self.relay.links().unregister(&agent, &registration, now) {
            tracing::info!(%agent, "the wrapper's link has ended");
            self.relay.feeds().wake(&LogId::Agent(agent.clone()));
            if !self.link.said_bye() {
                self.relay.expect_back(agent, now);
            }
        }
    }
}
