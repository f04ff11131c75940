//! Moves the machine: the connection, the outbox, the clock and the wrapper's wishes, in one task.

use std::{future::Future, pin::Pin};

use protocol::{
    CommandResult, ErrorCode, Timestamp,
    codec::Frame as _,
    config::SealedConfig,
    frame::{ToWrapper, WrapperState},
};
use tokio::sync::{mpsc, watch};

use super::{
    Commanded, LinkState,
    connection::{Closed, Connection, Endpoint, Heard},
    machine::{Action, Machine},
};
use crate::{
    Clock,
    metrics::LagWatch,
    outbox::{Outbox, OutboxError, Progress},
};

/// What the wrapper wishes of its link.
#[derive(Debug)]
pub(super) enum Input {
    Result(CommandResult),
    Presence(WrapperState, Timestamp),
    Bye(String),
}

type Connecting = Pin<Box<dyn Future<Output = Result<Connection, Closed>> + Send>>;

enum Wire {
    None,
    Connecting(Connecting),
    Open(Box<Connection>),
}

enum Happened {
    Connected(Result<Connection, Closed>),
    Heard(Heard),
}

pub(super) struct Driver {
    pub(super) machine: Machine,
    pub(super) endpoint: Endpoint,
    pub(super) outbox: Outbox,
    pub(super) clock: Clock,
    pub(super) inputs: mpsc::Receiver<Input>,
    pub(super) commands: mpsc::Sender<Commanded>,
    pub(super) config: watch::Sender<Option<SealedConfig>>,
    pub(super) state: watch::Sender<LinkState>,
    pub(super) progress: watch::Receiver<Progress>,
    pub(super) lag: LagWatch,
}

impl Driver {
    /// Runs until the link is over.
    pub(super) async fn run(mut self) {
        let mut wire = Wire::None;
        loop {
            self.act(&mut wire).await;
            self.publish();
            if self.machine.is_over() {
                return self.outbox.expect_no_acks();
            }
            // Without room nothing can be said, whatever the time: there will be some, or the write is given up.
            let deadline = self.machine.deadline().filter(|_| wire.has_room());
            let deadline = deadline.map(|moment| self.clock.instant(moment));
            let time = async {
                match deadline {
                    Some(deadline) => tokio::time::sleep_until(deadline).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                happened = wire.next() => self.happened(&mut wire, happened),
                input = self.inputs.recv() => self.asked(input),
                changed = self.progress.changed() => match changed {
                    Ok(()) => self.progressed(),
                    // Nothing can be sent without the outbox, and nothing will come.
                    Err(_) => self.machine.handle_bye("the outbox is closed"),
                },
                () = time => {}
            }
        }
    }

    async fn act(&mut self, wire: &mut Wire) {
        while wire.has_room() || self.machine.is_over() {
            let Some(action) = self.machine.poll(self.clock.now()) else { return };
            self.perform(action, wire).await;
        }
    }

    async fn perform(&mut self, action: Action, wire: &mut Wire) {
        match action {
            Action::Connect => *wire = Wire::Connecting(Box::pin(self.endpoint.clone().connect())),
            Action::Send(frame) => {
                if let Wire::Open(connection) = wire {
                    // There is room, but for the last words to a relay that takes nothing: those may be lost.
                    connection.send(&frame);
                }
            }
            Action::Ping => {
                if let Wire::Open(connection) = wire {
                    connection.ping();
                }
            }
            Action::Resume { acked } => {
                let resumed = self.outbox.resume(acked).await;
                if self.managed(resumed).is_some() {
                    self.progressed();
                    self.machine.handle_resumed(self.clock.now(), acked);
                }
            }
            Action::Read { after, max_events, max_bytes } => {
                let batch = self.outbox.pending_after(after, max_events, max_bytes).await;
                if let Some(batch) = self.managed(batch) {
                    self.machine.handle_read(self.clock.now(), batch);
                }
            }
            Action::Ack { through } => {
                let acked = self.outbox.ack(through).await;
                self.managed(acked);
            }
            Action::Replace { number, reason } => {
                let replaced = self.outbox.replace(number, reason).await;
                self.managed(replaced);
            }
            Action::Configure(config) => {
                self.config.send_replace(Some(config));
            }
            Action::Deliver { id, command } => {
                if let Err(error) = self.commands.try_send((id, command)) {
                    let (code, message, (id, ..)) = match error {
                        mpsc::error::TrySendError::Full(commanded) => {
                            (ErrorCode::RateLimited, "too many commands wait for this agent", commanded)
                        }
                        mpsc::error::TrySendError::Closed(commanded) => {
                            (ErrorCode::AgentOffline, "the wrapper ends", commanded)
                        }
                    };
                    self.machine.handle_result(CommandResult::refused(id, code, message));
                }
            }
            Action::Close { code, reason } => {
                if let Wire::Open(connection) = std::mem::replace(wire, Wire::None) {
                    connection.close(code, &reason).await;
                }
            }
        }
    }

    fn progressed(&mut self) {
        let progress = *self.progress.borrow_and_update();
        self.lag.progress(self.clock.now(), progress);
        self.machine.handle_progress(progress);
    }

    fn happened(&mut self, wire: &mut Wire, happened: Happened) {
        let now = self.clock.now();
        match happened {
            Happened::Connected(Ok(connection)) => {
                *wire = Wire::Open(Box::new(connection));
                self.machine.handle_connected(now);
            }
            Happened::Connected(Err(closed)) | Happened::Heard(Heard::Closed(closed)) => {
                *wire = Wire::None;
                self.machine.handle_disconnected(now, closed);
            }
            Happened::Heard(Heard::Text(text)) => match ToWrapper::decode(text.as_bytes()) {
                Ok(frame) => self.machine.handle_frame(now, frame),
                Err(error) => {
                    tracing::warn!(%error, "a frame of the relay is not understood, and passed over");
                    self.machine.handle_sign_of_life(now);
                }
            },
            Happened::Heard(Heard::Alive) => self.machine.handle_sign_of_life(now),
            Happened::Heard(Heard::Room) => {}
        }
    }

    fn asked(&mut self, input: Option<Input>) {
        match input {
            Some(Input::Result(result)) => self.machine.handle_result(result),
            Some(Input::Presence(state, last_activity)) => self.machine.handle_presence(state, last_activity),
            Some(Input::Bye(reason)) => self.machine.handle_bye(&reason),
            None => self.machine.handle_bye("the wrapper is gone"),
        }
    }

    /// What the outbox answered; `None` where it failed, and then the link begins anew.
    fn managed<T>(&mut self, answer: Result<T, OutboxError>) -> Option<T> {
        answer
            .inspect_err(|error| {
                let error: &dyn std::error::Error = error;
                tracing::error!(error, "the link breaks off");
                self.machine.handle_outbox_failed(self.clock.now());
            })
            .ok()
    }

    fn publish(&self) {
        let state = self.machine.state();
        self.state.send_if_modified(|shown| {
            let changed = *shown != state;
            if changed {
                tracing::info!(?state, "the link's state has changed");
                *shown = state;
            }
            changed
        });
    }
}

impl Wire {
    fn has_room(&self) -> bool {
        match self {
            Self::None | Self::Connecting(_) => true,
            Self::Open(connection) => connection.has_room(),
        }
    }

    /// Cancel-safe.
    async fn next(&mut self) -> Happened {
        match self {
            Self::None => std::future::pending().await,
            Self::Connecting(connecting) => Happened::Connected(connecting.await),
            Self::Open(connection) => Happened::Heard(connection.next().await),
        }
    }
}
