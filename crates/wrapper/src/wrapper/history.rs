//! What earlier runs of this wrapper said: the agent's log, read back from the relay and folded.

use std::time::Duration;

use protocol::{Seq, view::SessionView};

use crate::{
    link::{LinkHandle, Log},
    outbox::{Outbox, OutboxError},
};

/// How long the start waits for the relay. Without it the agent starts all the same.
const PATIENCE: Duration = Duration::from_secs(10);

/// The fold of what was said before, and whether anything was.
pub(super) async fn recall(
    outbox: &Outbox,
    link: &LinkHandle,
    log: Log,
) -> Result<Option<SessionView>, OutboxError> {
    if outbox.progress().borrow().next <= 1 {
        return Ok(None);
    }
    let left = outbox.pending().await?;
    // What was left is on its way while the log is waited for: only then the log holds all that was said.
    let read = async {
        if !link.flush(PATIENCE).await {
            return None;
        }
        match log.fold().await {
            Ok(view) => Some(view),
            Err(error) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "the agent's log cannot be read back"
                );
                None
            }
        }
    };
    if let Ok(Some(view)) = tokio::time::timeout(PATIENCE, read).await {
        return Ok(Some(view));
    }
    let mut view = SessionView::default();
    for (seq, (_, event)) in (1_u64..).zip(left) {
        view.apply(&event.at(Seq::new(seq)));
    }
    Ok(Some(view))
}
