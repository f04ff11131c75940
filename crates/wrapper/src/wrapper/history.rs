//! What earlier runs of this wrapper said: the agent's log, read back from the relay and folded.
//!
//! A start waits for it for a while. If the relay cannot be reached, the agent starts all the same, and the log is read when it can be:
//! until then nothing that an earlier run said is closed or compared, since it might be told wrong.

use std::time::Duration;

use protocol::{Seq, view::SessionView};

use super::{
    agent::SESSION_GONE,
    life::{Done, Life},
    user_messages,
};
use crate::{
    link::{LinkHandle, Log, Past},
    outbox::{Outbox, OutboxError},
    recovery::{self, Known},
    runtime::ServerState,
};

/// How long the start waits for the relay, and for how long the agent's events wait while the log is read later on.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between a time that the log could not be read, though the relay was there, and the next one.
const RETRY: Duration = Duration::from_secs(60);
/// How often that is tried.
const TRIES: u32 = 5;

/// What is known of what was said before.
pub(super) struct Recalled {
    /// The fold of it, as far as it is known; `None` if nothing was said yet.
    pub(super) said: Option<SessionView>,
    /// The log, if it is still to be read.
    pub(super) unread: Option<Unread>,
}

/// A log that is still to be read.
#[derive(Debug)]
pub(super) struct Unread {
    log: Log,
    generation: u64,
    tries: u32,
    /// It is being read, and the agent's events wait for that.
    is_read: bool,
}

/// The fold of what was said before this run, which has this generation.
pub(super) async fn recall(
    outbox: &Outbox,
    link: &LinkHandle,
    log: Log,
    generation: u64,
) -> Result<Recalled, OutboxError> {
    if outbox.progress().borrow().next <= 1 {
        return Ok(Recalled { said: None, unread: None });
    }
    let left = outbox.pending().await?;
    if let Some(Past { whole, .. }) = read(link, &log, generation).await {
        return Ok(Recalled { said: Some(whole), unread: None });
    }
    let mut view = SessionView::default();
    if left.first().is_some_and(|(number, _)| *number == 1) {
        // No relay has any of it: this is the whole log.
        for (seq, (_, event)) in (1_u64..).zip(left) {
            view.apply(&event.at(Seq::new(seq)));
        }
        return Ok(Recalled { said: Some(view), unread: None });
    }
    let unread = Unread { log, generation, tries: 0, is_read: false };
    Ok(Recalled { said: Some(view), unread: Some(unread) })
}

/// Reads the log once it has all that was said by now; `None` if that takes too long or fails.
async fn read(link: &LinkHandle, log: &Log, generation: u64) -> Option<Past> {
    let reading = async {
        if !link.flushed().await {
            return None;
        }
        let read = log.read(generation).await;
        read.inspect_err(|error| {
            tracing::warn!(error = error as &dyn std::error::Error, "the agent's log cannot be read back");
        })
        .ok()
    };
    tokio::time::timeout(PATIENCE, reading).await.ok().flatten()
}

impl Life {
    /// Whether the agent's events wait until the log was read.
    pub(super) fn is_recalling(&self) -> bool {
        self.unread.as_ref().is_some_and(|unread| unread.is_read)
    }

    /// Says what was missed of what the agent says by now.
    pub(super) async fn caught_up(&mut self, state: &ServerState) {
        self.coalescer.flush(&mut self.out);
        self.pass_on().await;
        let Some(tree) = &mut self.tree else { return };
        if tree.root().is_some_and(|root| !recovery::is_told(state, root)) {
            return self.hangs(SESSION_GONE);
        }
        let known = if self.unread.is_some() { Known::ThisRun } else { Known::Log };
        let missed = recovery::catch_up(self.book.view(), known, state, tree, self.clock.timestamp());
        let root = tree.root().map(ToOwned::to_owned);
        missed.into_iter().for_each(|event| self.event(event));
        if let Some(root) = root.filter(|root| recovery::is_idle(state, root)) {
            self.turns.server_is_idle(recovery::is_answered(state, &root));
        }
    }

    /// Waits for the relay, if the log is still to be read.
    pub(super) fn await_relay(&mut self) {
        let Some(unread) = &self.unread else { return };
        let pause = if unread.tries > 0 { RETRY } else { Duration::ZERO };
        let link = self.link.clone();
        self.tasks.spawn(async move {
            tokio::time::sleep(pause).await;
            // Where it never will be, the link says so itself, and the life ends.
            Done::Reached(link.flushed().await)
        });
    }

    /// The relay can be reached: reads the log.
    pub(super) async fn reached(&mut self, reached: bool) {
        let Some(unread) = self.unread.as_mut().filter(|_| reached) else { return };
        unread.is_read = true;
        let (link, log, generation) = (self.link.clone(), unread.log.clone(), unread.generation);
        // What is said from here on is whole by itself, and may be said to a fold twice.
        self.coalescer.flush(&mut self.out);
        self.pass_on().await;
        self.book.begin_recall();
        self.tasks.spawn(async move { Done::Recalled(read(&link, &log, generation).await.map(Box::new)) });
    }

    /// The log was read, or could not be: closes what earlier runs left open, and has the agent say once more how things are.
    pub(super) async fn recalled(&mut self, past: Option<Box<Past>>) {
        let Some(mut unread) = self.unread.take() else { return };
        let Some(past) = past else {
            self.book.recalled(None);
            unread.is_read = false;
            unread.tries += 1;
            if unread.tries < TRIES {
                self.unread = Some(unread);
                self.await_relay();
            } else {
                tracing::warn!(
                    "the agent's log cannot be read: what an earlier run left open in it stays so"
                );
                self.unread = Some(unread);
            }
            return;
        };
        let Past { whole, before } = *past;
        self.book.recalled(Some(whole));
        let left = recovery::left_open(self.book.view(), &before, self.clock.timestamp());
        self.book.emit(left).await;
        self.turns.knows(user_messages(&before));
        if let (Some(tree), Some(session)) = (&mut self.tree, &self.session)
            && let Some(session) = self.book.view().session(session)
        {
            session
                .with_descendants()
                .into_iter()
                .for_each(|child| tree.learn(child.id(), child.parent_id()));
        }
        if let Some(agent) = &self.agent {
            agent.control.say_again();
        }
    }
}
