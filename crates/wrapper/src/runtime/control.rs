//! Steers an agent that lives in a task of its own: commands go to it one after the other, each with somebody who waits for its answer.

use async_trait::async_trait;
use protocol::Command;
use serde_json::Value;
use tokio::sync::{mpsc, oneshot};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{AgentControl, CommandError};

/// Commands that may wait for the agent; then whoever asks waits.
const WAITING: usize = 64;

/// A command on its way to the agent.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) command: Command,
    /// Whoever asked may have gone.
    pub(super) answer: oneshot::Sender<Result<Option<Value>, CommandError>>,
}

/// The one end of the way, which the wrapper holds.
#[derive(Debug)]
pub(super) struct Control {
    requests: mpsc::Sender<Request>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Control {
    /// The agent is what runs in `tasks`, which are closed, and ends when `stop` is cancelled. The other end is for it to read.
    pub(super) fn new(stop: CancellationToken, tasks: TaskTracker) -> (Self, mpsc::Receiver<Request>) {
        let (requests, inbox) = mpsc::channel(WAITING);
        (Self { requests, stop, tasks }, inbox)
    }
}

#[async_trait]
impl AgentControl for Control {
    async fn command(&self, command: Command) -> Result<Option<Value>, CommandError> {
        let (answer, answered) = oneshot::channel();
        let gone = || CommandError::Unreachable { message: "the agent has ended".to_owned() };
        self.requests.send(Request { command, answer }).await.map_err(|_| gone())?;
        answered.await.map_err(|_| gone())?
    }

    async fn stop(&self) {
        self.stop.cancel();
        self.tasks.wait().await;
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}
