//! Drives an [`Ingest`] over a WebSocket.

use std::{
    future::{Future, pending, poll_fn},
    pin::Pin,
    time::Duration,
};

use axum::{Extension, extract::State, response::Response};
use protocol::{ErrorCode, ErrorDetail, LogId, Seq, limits};
use store::{Append, AppendError, Appended, ProducerBatch};
use tracing::{
    Instrument as _,
    field::{Empty, display},
};

use super::{
    Relay, clock,
    links::{End, Registration},
    metrics::Metrics,
    problem,
    socket::{Gone, Socket, Upgrade},
};
use crate::{
    auth::{Capability, Grant},
    ingest::{Action, Hello, Ingest},
    websocket::{self, Incoming},
};

/// Time for a wrapper to take what it is sent.
const SENT_WITHIN: Duration = Duration::from_millis(limits::DEAD_MS);

/// `GET /v1/ingest`.
pub(super) async fn ingest(
    State(relay): State<Relay>,
    Extension(grant): Extension<Grant>,
    upgrade: Upgrade,
) -> Response {
    let link = std::future::ready(Ingest::new(clock::instant())).await;
    let served = relay.clone();
    upgrade.accept(&relay, async move |io| {
        let metrics = served.clone();
        let _held = Metrics::hold(&metrics.metrics().links);
        let socket = Socket::new(io, limits::INGEST_FRAME_BYTES);
        let mut driver = Driver {
            relay: served,
            grant,
            socket,
            link,
            registration: None,
            appending: None,
            head: Seq::ZERO,
        };
        let span = tracing::info_span!("link", agent = Empty, generation = Empty);
        let link = async {
            driver.run().await;
            driver.end();
            driver.socket.finish().await;
        };
        link.instrument(span).await;
    })
}

type Appending = Pin<Box<dyn Future<Output = Result<Appended, AppendError>> + Send>>;

struct Driver {
    relay: Relay,
    grant: Grant,
    socket: Socket,
    link: Ingest,
    registration: Option<Registration>,
    appending: Option<Appending>,
    /// The head after the last append.
    head: Seq,
}

/// Reads once, and tells the machine. Cancel-safe.
async fn receive(socket: &mut Socket, link: &mut Ingest) -> Result<(), Gone> {
    poll_fn(|context| {
        socket.poll_receive(context, |incoming| match incoming {
            Incoming::Text(text) => link.handle_text(clock::instant(), text.as_bytes()),
            Incoming::Binary(_) => link.handle_binary(),
            Incoming::SignOfLife => link.handle_sign_of_life(clock::instant()),
            Incoming::Fault(fault) => link.handle_fault(&fault),
            Incoming::Closed => link.handle_closed(),
        })
    })
    .await
}

impl Driver {
    async fn run(&mut self) {
        let draining = self.relay.draining().clone();
        let mut told = false;
        // The deadline is only ever put off: the timer is set anew when it has come.
        let mut timer = std::pin::pin!(clock::sleep_until(self.link.deadline()));
        while self.act().await.is_ok() {
            let appended = async {
                match &mut self.appending {
                    Some(appending) => appending.await,
                    None => pending().await,
                }
            };
            let (commands, end) = match &mut self.registration {
                Some(Registration { commands, end, .. }) => (Some(commands), Some(end)),
                None => (None, None),
            };
            let command = async {
                match commands {
                    Some(commands) => commands.recv().await,
                    None => pending().await,
                }
            };
            let ended = async {
                match end {
                    Some(end) => end.await,
                    None => pending().await,
                }
            };
            tokio::select! {
                appended = appended => {
                    self.appending = None;
                    match appended {
                        Ok(appended) => {
                            self.head = appended.head;
                            self.link.handle_appended(&appended);
                        }
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
                Some((id, command, config)) = command => {
                    self.link.handle_command(&id, command, config);
                }
                received = receive(&mut self.socket, &mut self.link), if self.link.wants_input() => {
                    if received.is_err() {
                        return;
                    }
                }
                () = timer.as_mut() => {
                    self.link.handle_time(clock::instant());
                    timer.set(clock::sleep_until(self.link.deadline()));
                }
                () = draining.cancelled(), if !told => {
                    told = true;
                    self.link.handle_drain(self.relay.retry_after_ms());
                }
            }
        }
    }

    /// Does what the machine says until it has nothing more to say, then sends all of it.
    async fn act(&mut self) -> Result<(), Gone> {
        while let Some(action) = self.link.poll(clock::instant()) {
            match action {
                Action::Send(frame) => self.socket.frames.send(websocket::text(&frame)),
                Action::Open(hello) => self.open(&hello).await,
                Action::TurnAway(hello) => {
                    if self.is_its_own(&hello) {
                        self.relay.links().turned_away(&hello, clock::now());
                        self.relay.feeds().wake(&LogId::Agent(hello.agent.clone()));
                    }
                }
                Action::Append(batch) => {
                    let Some(hello) = self.link.hello() else { continue };
                    let (relay, log) = (self.relay.clone(), LogId::Agent(hello.agent.clone()));
                    let before = self.head;
                    self.appending = Some(Box::pin(async move {
                        let appended = relay.commit(&log, batch).await?;
                        // One append is on its way to the viewers while the next is committed, and no more.
                        relay.feeds().shown(&log, before).await;
                        Ok(appended)
                    }));
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
                    self.relay.metrics().closed(code.0);
                    self.socket.frames.close(code.0, &reason);
                    return Err(Gone);
                }
            }
        }
        // A wrapper that takes nothing for as long is dead.
        match tokio::time::timeout(SENT_WITHIN, self.socket.send_all()).await {
            Ok(sent) => sent,
            Err(_) => Err(Gone),
        }
    }

    async fn open(&mut self, hello: &Hello) {
        match self.let_in(hello).await {
            Ok(registered) => {
                let span = tracing::Span::current();
                span.record("agent", display(&hello.agent)).record("generation", hello.generation);
                tracing::info!(
                    runtime = hello.runtime.name,
                    version = hello.wrapper_version,
                    acked = registered.acked,
                    "a wrapper is connected"
                );
                let config = self.registration.as_mut().and_then(|registration| registration.config.take());
                self.link.handle_opened(&registered, config);
                self.relay.feeds().wake(&LogId::Agent(hello.agent.clone()));
            }
            Err(why) => self.link.handle_refused(&why),
        }
    }

    /// Compares what the wrapper says with its token, fences older generations in the store, and takes their place in
    /// the table of links.
    async fn let_in(&mut self, hello: &Hello) -> Result<Appended, ErrorDetail> {
        let log = LogId::Agent(hello.agent.clone());
        if !self.is_its_own(hello) {
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

    /// Whether the wrapper's token is for what it says of itself.
    fn is_its_own(&self, hello: &Hello) -> bool {
        self.grant.allows(Capability::Ingest, &LogId::Agent(hello.agent.clone()))
            && self.grant.town == hello.town
            && self.grant.generation.is_none_or(|generation| generation == hello.generation)
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
