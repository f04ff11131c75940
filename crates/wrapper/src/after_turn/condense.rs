//! The agent condenses its session.

use std::time::Duration;

use protocol::{Command, ModelRef, agent::SkipReason};
use tokio::{sync::watch, time::timeout};

use super::{Part, Said, Voice};
use crate::runtime::{AgentControl, CommandError};

/// How long it may take: it is a call of the model with all that was said.
const CONDENSE: Duration = Duration::from_secs(180);
/// How long the agent's stream may lag behind its answer.
const STREAM_LAG: Duration = Duration::from_secs(5);

/// Has the agent condense its session, and waits until its stream tells that, too. `closes` counts the turns it closes.
pub(super) async fn run(
    control: &dyn AgentControl,
    model: Option<ModelRef>,
    mut closes: watch::Receiver<u64>,
    voice: &Voice,
) {
    voice.say(Said::new("wrapper.condense.started", &serde_json::json!({}), Some(Part::Condense))).await;
    let said = match timeout(CONDENSE, control.condense(model)).await {
        Ok(Ok(())) => Said::new("wrapper.condense.completed", &serde_json::json!({}), None),
        Ok(Err(CommandError::Unsupported { .. })) => {
            return voice.say(Said::skipped(Part::Condense, SkipReason::Unsupported)).await;
        }
        Ok(Err(error)) => Said::failed(Part::Condense, error.to_string()),
        Err(_) => {
            // It would go on meanwhile, and the next prompt would wait for it.
            if let Err(error) = control.command(Command::Abort).await {
                tracing::warn!(%error, "condensing took too long, and could not be aborted");
            }
            let message = format!("it took longer than {} s", CONDENSE.as_secs());
            Said::failed(Part::Condense, message)
        }
    };
    // The stream may be shorter than expected, by an error that came before there was a turn.
    let _ = timeout(STREAM_LAG, closes.wait_for(|closes| *closes > 0)).await;
    voice.say(said).await;
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    };

    use async_trait::async_trait;
    use serde_json::Value;
    use tokio::time::Instant;

    use super::{
        super::{AfterTurn, Job},
        *,
    };

    #[tokio::test(start_paused = true)]
    async fn an_agent_that_cannot_condense_is_said_to_be_unable() {
        let mut work = condensing(Condensing::Unsupported);
        assert_eq!(kinds(&mut work).await, ["wrapper.condense.started", "wrapper.condense.skipped"]);
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_complete_when_the_stream_tells_so_as_well() {
        let mut work = condensing(Condensing::Answers);
        assert_eq!(work.next().await.unwrap().kind, "wrapper.condense.started");
        assert!(work.reads_on());
        let begun = Instant::now();
        work.closed();
        assert_eq!(work.next().await.unwrap().kind, "wrapper.condense.completed");
        assert!(!work.reads_on() && begun.elapsed() < STREAM_LAG);
        assert_eq!(work.next().await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_hangs_is_aborted_and_the_work_ends() {
        let aborts = Arc::new(AtomicU32::new(0));
        let mut work = begin(Condensing::Hangs, aborts.clone());
        assert_eq!(kinds(&mut work).await, ["wrapper.condense.started", "wrapper.condense.failed"]);
        assert_eq!(aborts.load(Ordering::SeqCst), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_turn_that_went_wrong_is_not_condensed() {
        let control = Arc::new(Fake { condensing: Condensing::Answers, aborts: Arc::default() });
        let spoilt = Some(SkipReason::Aborted);
        let mut work = AfterTurn::begin(Job { commit: None, condense: Some(None), spoilt, control });
        let said = work.next().await.unwrap();
        assert_eq!((said.kind, &said.data["reason"]), ("wrapper.condense.skipped", &Value::from("aborted")));
        assert_eq!(work.next().await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_given_up_ends_with_a_failure() {
        let mut work = condensing(Condensing::Hangs);
        work.next().await.unwrap();
        let left = work.give_up("the agent is being ended").await;
        let kinds: Vec<_> = left.iter().map(|said| said.kind).collect();
        assert_eq!(kinds, ["wrapper.condense.failed"]);
        let mut done = condensing(Condensing::Unsupported);
        while done.next().await.is_some() {}
        assert_eq!(done.give_up("late").await, []);
    }

    async fn kinds(work: &mut AfterTurn) -> Vec<&'static str> {
        let mut kinds = Vec::new();
        while let Some(said) = work.next().await {
            kinds.push(said.kind);
        }
        kinds
    }

    fn condensing(condensing: Condensing) -> AfterTurn {
        begin(condensing, Arc::default())
    }

    fn begin(condensing: Condensing, aborts: Arc<AtomicU32>) -> AfterTurn {
        let control = Arc::new(Fake { condensing, aborts });
        AfterTurn::begin(Job { commit: None, condense: Some(None), spoilt: None, control })
    }

    #[derive(Debug, Clone, Copy)]
    enum Condensing {
        Unsupported,
        Answers,
        Hangs,
    }

    #[derive(Debug)]
    struct Fake {
        condensing: Condensing,
        aborts: Arc<AtomicU32>,
    }

    #[async_trait]
    impl AgentControl for Fake {
        async fn command(&self, command: Command) -> Result<Option<Value>, CommandError> {
            assert_eq!(command, Command::Abort);
            self.aborts.fetch_add(1, Ordering::SeqCst);
            Ok(None)
        }

        async fn condense(&self, _model: Option<ModelRef>) -> Result<(), CommandError> {
            match self.condensing {
                Condensing::Unsupported => Err(CommandError::Unsupported { what: "condense" }),
                Condensing::Answers => Ok(()),
                Condensing::Hangs => std::future::pending().await,
            }
        }

        async fn stop(&self) {}
    }
}
