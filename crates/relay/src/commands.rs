//! Commands happen at most once (§7): the ids of one agent's commands, what became of them, and who answered a prompt
//! first.

use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};

use protocol::{Command, CommandId, CommandResult, ErrorCode};

/// Commands remembered per agent.
const REMEMBERED: usize = 256;
/// Time a result is remembered: longer than anyone tries again.
const REMEMBER_FOR: Duration = Duration::from_secs(600);
/// Commands of one agent that wait for their results.
const IN_FLIGHT: usize = 64;

/// What one agent was asked to do.
#[derive(Debug, Default)]
pub struct CommandBook {
    entries: BTreeMap<CommandId, Entry>,
    /// Finished ones, oldest first.
    finished: VecDeque<(Instant, CommandId)>,
    /// Permissions and questions that have an answer or wait for its result, with the command that gave it.
    answers: BTreeMap<String, CommandId>,
}

#[derive(Debug)]
struct Entry {
    /// The prompt it answers.
    answers: Option<String>,
    /// What became of it.
    result: Option<CommandResult>,
}

/// What to do with a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Begin {
    /// Deliver it, and say [`CommandBook::finish`] when its result is there.
    Deliver,
    /// It is being delivered: wait for the same result.
    Wait,
    /// This became of it.
    Done(CommandResult),
}

impl CommandBook {
    /// Whether a command of this id came before and is remembered.
    #[must_use]
    pub fn knows(&self, id: &CommandId) -> bool {
        self.entries.contains_key(id)
    }

    /// A command came.
    pub fn begin(&mut self, now: Instant, id: &CommandId, command: &Command) -> Begin {
        self.forget(now);
        if let Some(entry) = self.entries.get(id) {
            return entry.result.clone().map_or(Begin::Wait, Begin::Done);
        }
        let refused = |code, message: &str| Begin::Done(CommandResult::refused(id.clone(), code, message));
        if self.entries.len() - self.finished.len() >= IN_FLIGHT {
            return refused(ErrorCode::RateLimited, "too many commands of this agent wait for their results");
        }
        let answers = answered_by(command);
        if let Some(prompt) = &answers {
            if self.answers.contains_key(prompt) {
                return refused(ErrorCode::AlreadyAnswered, "somebody answered first");
            }
            self.answers.insert(prompt.clone(), id.clone());
        }
        self.entries.insert(id.clone(), Entry { answers, result: None });
        Begin::Deliver
    }

    /// What became of a command that was to be delivered. An answer that was not taken leaves the prompt to others.
    pub fn finish(&mut self, now: Instant, result: &CommandResult) {
        let Some(entry) = self.entries.get_mut(&result.id) else { return };
        if entry.result.is_some() {
            return;
        }
        entry.result = Some(result.clone());
        if !result.ok
            && let Some(prompt) = entry.answers.take()
        {
            self.answers.remove(&prompt);
        }
        self.finished.push_back((now, result.id.clone()));
        self.forget(now);
    }

    fn forget(&mut self, now: Instant) {
        while let Some((finished, id)) = self.finished.front() {
            if self.finished.len() <= REMEMBERED && now.saturating_duration_since(*finished) < REMEMBER_FOR {
                return;
            }
            if let Some(prompt) = self.entries.remove(id).and_then(|entry| entry.answers) {
                self.answers.remove(&prompt);
            }
            self.finished.pop_front();
        }
    }
}

/// The ask that a command answers.
fn answered_by(command: &Command) -> Option<String> {
    match command {
        Command::Permission { id, .. } => Some(format!("permission/{id}")),
        Command::Question(answer) => Some(format!("question/{}", answer.id)),
        Command::QuestionReject { id } => Some(format!("question/{id}")),
        Command::Network { id } | Command::NetworkReject { id } => Some(format!("network/{id}")),
        Command::Prompt(_)
        | Command::Abort
        | Command::Slash { .. }
        | Command::Revert { .. }
        | Command::Unrevert
        | Command::Fork { .. }
        | Command::Stop { .. }
        | Command::Ping
        | _ => None,
    }
}

#[cfg(test)]
mod tests {
    use protocol::PermissionReply;

    use super::*;

    #[test]
    fn a_command_is_delivered_once_and_its_result_is_remembered() {
        let (mut book, now) = (CommandBook::default(), start());
        assert_eq!(book.begin(now, &id("c1"), &Command::Abort), Begin::Deliver);
        assert_eq!(book.begin(now, &id("c1"), &Command::Abort), Begin::Wait);
        book.finish(now, &CommandResult::ok(id("c1")));
        assert_eq!(book.begin(now, &id("c1"), &Command::Abort), Begin::Done(CommandResult::ok(id("c1"))));
    }

    #[test]
    fn the_first_answer_to_a_permission_wins() {
        let (mut book, now) = (CommandBook::default(), start());
        assert_eq!(book.begin(now, &id("c1"), &answer("p1")), Begin::Deliver);
        assert_eq!(code(book.begin(now, &id("c2"), &answer("p1"))), Some(ErrorCode::AlreadyAnswered));
        book.finish(now, &CommandResult::ok(id("c1")));
        assert_eq!(code(book.begin(now, &id("c2"), &answer("p1"))), Some(ErrorCode::AlreadyAnswered));
        assert_eq!(book.begin(now, &id("c3"), &answer("p2")), Begin::Deliver);
    }

    #[test]
    fn an_answer_that_was_not_taken_leaves_the_prompt_to_others() {
        let (mut book, now) = (CommandBook::default(), start());
        book.begin(now, &id("c1"), &answer("p1"));
        book.finish(now, &CommandResult::refused(id("c1"), ErrorCode::AgentError, "no"));
        assert_eq!(book.begin(now, &id("c2"), &answer("p1")), Begin::Deliver);
    }

    #[test]
    fn results_are_forgotten_by_number_and_by_time() {
        let (mut book, now) = (CommandBook::default(), start());
        for n in 0..=REMEMBERED {
            let id = id(&format!("c{n}"));
            book.begin(now, &id, &Command::Abort);
            book.finish(now, &CommandResult::ok(id));
        }
        assert_eq!(book.begin(now, &id("c0"), &Command::Abort), Begin::Deliver, "the oldest of one too many");
        assert!(matches!(book.begin(now, &id("c1"), &Command::Abort), Begin::Done(_)));
        assert_eq!(book.begin(now + REMEMBER_FOR, &id("c1"), &Command::Abort), Begin::Deliver);
        assert_eq!(
            book.begin(now + REMEMBER_FOR, &id("c0"), &Command::Abort),
            Begin::Wait,
            "it is not finished"
        );
    }

    #[test]
    fn one_command_too_many_in_flight_is_refused() {
        let (mut book, now) = (CommandBook::default(), start());
        for n in 0..IN_FLIGHT {
            assert_eq!(book.begin(now, &id(&format!("c{n}")), &Command::Ping), Begin::Deliver);
        }
        assert_eq!(code(book.begin(now, &id("more"), &Command::Ping)), Some(ErrorCode::RateLimited));
    }

    fn start() -> Instant {
        tokio::time::Instant::now().into_std()
    }

    fn id(text: &str) -> CommandId {
        text.parse().unwrap()
    }

    fn answer(permission: &str) -> Command {
        Command::Permission { id: permission.into(), reply: PermissionReply::Once, message: None }
    }

    fn code(begin: Begin) -> Option<ErrorCode> {
        match begin {
            Begin::Done(result) => result.error.map(|error| error.code),
            Begin::Deliver | Begin::Wait => None,
        }
    }
}
