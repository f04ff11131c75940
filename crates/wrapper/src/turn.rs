//! Turns of the root session and the prompts that wait for them (§7, §10).
//!
//! Pure: prompts, events and time go in, [`TurnOutput`]s come out of [`Turns::poll`].
//!
//! - One prompt at a time is in flight to the runtime: the next one goes only when its message was seen, or its turn is over. Agent
//!   servers take prompts before they store them, and two quick ones may swap.
//! - `queue` waits for the turn to be over, `boundary` goes while it runs, `interrupt` aborts it and then goes before all others. An
//!   agent that takes nothing while it works has no boundary before its turn is over.
//! - A slash command begins a turn as a prompt does, and goes as one with the delivery `queue`.
//! - A prompt that the runtime took and that is never seen is told, and so is an agent that does not end an aborted turn.
//! - A turn that is over may have work after it: the next prompt goes when that is [`settled`](Turns::settled).
//! - An abort ends the turn that runs and drops what was queued behind it, which is told to whoever asked: somebody who says
//!   stop does not mean "and then go on with the next".

mod watch;

use std::{
    collections::{BTreeSet, VecDeque},
    time::Duration,
};

use protocol::{
    Command, Delivery, NewEvent,
    model::{Message, Role, SessionStatus},
};
use serde::Deserialize;

pub use self::watch::TurnLimitArgs;
pub(crate) use self::watch::{Held, Watch};
use crate::Moment;

/// How long a prompt that the runtime took may go unseen before the next one goes all the same.
pub(crate) const PROMPT_PATIENCE: Duration = Duration::from_secs(30);
/// Prompts that may wait.
pub(crate) const QUEUE: usize = 64;

/// When a runtime takes prompts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Takes {
    /// While a turn runs as well, at its next step.
    AtSteps,
    /// Between turns.
    BetweenTurns,
    /// At any time: it does not tell the user's messages, so that there is nothing to wait for.
    Always,
}

/// Names a prompt within a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct PromptNumber(pub(crate) u64);

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TurnOutput {
    /// Hand this to the runtime, and say with [`Turns::taken`] what came of it.
    Send(PromptNumber, Box<Command>),
    /// Abort the turn that runs: a prompt interrupts it, or its time is up.
    Abort,
    /// The runtime took this prompt and its message never came.
    Unanswered(PromptNumber),
    /// The turn was aborted and goes on.
    Hung,
    /// An abort took this prompt out of the queue.
    Dropped(PromptNumber),
    /// The turn is over. Say with [`Turns::settled`] when what is to be done after it is done.
    Over {
        /// It was aborted.
        aborted: bool,
    },
}

/// The turns of one root session.
#[derive(Debug)]
pub(crate) struct Turns {
    root: String,
    takes: Takes,
    /// How long an aborted turn may go on before its agent counts as hung.
    abort_limit: Duration,
    queue: VecDeque<(PromptNumber, Command)>,
    sent: Option<Sent>,
    /// Prompts of the turn that runs.
    running: Vec<PromptNumber>,
    /// The agent takes prompts.
    ready: bool,
    open: bool,
    /// The turn is over, and what is done after it is not.
    settling: bool,
    /// The agent began the turn of a prompt that was on its way when the last turn ended.
    reopens: bool,
    /// The server says itself when this turn closes.
    says_close: bool,
    /// Assistant messages of this turn that are not complete.
    incomplete: BTreeSet<String>,
    idles: u32,
    aborting: Option<Moment>,
    /// User messages seen: a late word about one of them (its diffs) opens no turn.
    known: BTreeSet<String>,
    numbers: u64,
    out: VecDeque<TurnOutput>,
}

#[derive(Debug)]
struct Sent {
    number: PromptNumber,
    due: Moment,
    /// The runtime took it.
    taken: bool,
    is_slash: bool,
    opened: bool,
}

impl Turns {
    /// No turn runs, and the agent takes no prompts before [`resume`](Self::resume). `known` are the user messages that are there
    /// already.
    pub(crate) fn new(
        root: &str,
        takes: Takes,
        limits: &TurnLimitArgs,
        known: impl IntoIterator<Item = String>,
    ) -> Self {
        Self {
            root: root.to_owned(),
            takes,
            abort_limit: Duration::from_secs(limits.abort_limit),
            queue: VecDeque::new(),
            sent: None,
            running: Vec::new(),
            ready: false,
            open: false,
            settling: false,
            reopens: false,
            says_close: false,
            incomplete: BTreeSet::new(),
            idles: 0,
            aborting: None,
            known: known.into_iter().collect(),
            numbers: 0,
            out: VecDeque::new(),
        }
    }

    /// Takes what begins a turn, a prompt or a slash command; `None` if too many wait.
    pub(crate) fn take(&mut self, now: Moment, command: Command) -> Option<PromptNumber> {
        if self.queue.len() >= QUEUE {
            return None;
        }
        self.numbers += 1;
        let number = PromptNumber(self.numbers);
        if delivery(&command) == Delivery::Interrupt {
            self.interrupt(now);
            self.queue.push_front((number, command));
        } else {
            self.queue.push_back((number, command));
        }
        self.send_next(now);
        Some(number)
    }

    /// The runtime took a prompt, or did not.
    pub(crate) fn taken(&mut self, now: Moment, number: PromptNumber, ok: bool) {
        let Some(sent) = self.sent.as_mut().filter(|sent| sent.number == number) else { return };
        if ok {
            sent.taken = true;
            sent.due = now + PROMPT_PATIENCE;
        } else {
            self.sent = None;
            self.send_next(now);
        }
    }

    /// A slash command that the runtime took has failed: one that has begun no turn begins none.
    pub(crate) fn command_failed(&mut self, now: Moment) {
        if self.sent.as_ref().is_some_and(|sent| sent.is_slash && sent.taken && !sent.opened) {
            self.sent = None;
            self.send_next(now);
        }
    }

    /// The turn that runs is to end, and what is queued goes on after it.
    pub(crate) fn interrupt(&mut self, now: Moment) {
        if self.runs() && self.aborting.is_none() {
            self.aborting = Some(now + self.abort_limit);
            self.out.push_back(TurnOutput::Abort);
        }
    }

    /// The runtime did not take the abort: the turn runs on.
    pub(crate) fn abort_refused(&mut self) {
        self.aborting = None;
    }

    /// The prompts that were taken and are not through, in the order in which they go.
    pub(crate) fn inflight(&self) -> impl Iterator<Item = PromptNumber> {
        let queued = self.queue.iter().map(|(number, _)| *number);
        self.running.iter().copied().chain(self.sent.as_ref().map(|sent| sent.number)).chain(queued)
    }

    /// Whoever watches asked for the turn to be aborted. The runtime is to be told in any case: a sub-agent may work on when no turn runs.
    pub(crate) fn abort(&mut self, now: Moment) {
        let dropped = self.queue.drain(..).map(|(number, _)| TurnOutput::Dropped(number));
        self.out.extend(dropped);
        if self.runs() && self.aborting.is_none() {
            self.aborting = Some(now + self.abort_limit);
        }
    }

    /// These user messages were there before.
    pub(crate) fn knows(&mut self, messages: impl IntoIterator<Item = String>) {
        self.known.extend(messages);
    }

    /// Takes an event of the agent's log.
    pub(crate) fn event(&mut self, now: Moment, event: &NewEvent) {
        if event.session.as_deref() != Some(self.root.as_str()) {
            return;
        }
        match &*event.kind {
            "session.turn.open" => {
                self.opens();
                self.says_close = true;
            }
            "session.status" if event.data.parse().is_ok_and(|StatusOf { status }| status.is_busy()) => {
                self.opens();
                self.idles = 0;
            }
            "session.idle" => self.idle(),
            "session.turn.close" => self.over(),
            "message.updated" => {
                if let Ok(InfoOf { info }) = event.data.parse() {
                    self.message(now, info);
                }
            }
            _ => {}
        }
    }

    /// The server was asked and says that nothing runs: what closed the turn was missed. `answered` is whether its newest message is no
    /// user's; a prompt of which it has only the message may be about to begin.
    pub(crate) fn server_is_idle(&mut self, answered: bool) {
        if answered || self.running.is_empty() {
            self.over();
        }
    }

    /// Does what is due.
    pub(crate) fn handle_timeout(&mut self, now: Moment) {
        if self.aborting.is_some_and(|due| due <= now) {
            if self.open {
                self.aborting = None;
                self.out.push_back(TurnOutput::Hung);
            } else {
                // Nothing was begun that could end.
                self.open = true;
                self.over();
                self.lose_sent();
            }
        }
        if self.sent.as_ref().is_some_and(|sent| sent.due <= now) {
            self.lose_sent();
            self.send_next(now);
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) is to be called.
    pub(crate) fn due(&self) -> Option<Moment> {
        self.aborting.into_iter().chain(self.sent.as_ref().map(|sent| sent.due)).min()
    }

    /// What is to be done next.
    pub(crate) fn poll(&mut self) -> Option<TurnOutput> {
        self.out.pop_front()
    }

    /// Whether a turn runs, is about to, or is not settled.
    pub(crate) fn is_busy(&self) -> bool {
        self.runs() || self.settling
    }

    /// Whether a turn runs, as the agent says.
    pub(crate) fn is_open(&self) -> bool {
        self.open
    }

    /// Whether the last turn is over and not settled.
    pub(crate) fn is_settling(&self) -> bool {
        self.settling
    }

    /// What was to be done after the turn is done.
    pub(crate) fn settled(&mut self, now: Moment) {
        self.settling = false;
        self.running.clear();
        self.incomplete.clear();
        self.open = std::mem::take(&mut self.reopens);
        self.send_next(now);
    }

    /// Whether an event closes a turn of the root session, as far as it says so itself.
    pub(crate) fn closes(&self, event: &NewEvent) -> bool {
        event.session.as_deref() == Some(self.root.as_str())
            && matches!(&*event.kind, "session.idle" | "session.turn.close")
    }

    /// The agent is gone: nothing runs. What is queued waits for the next one, or is taken with [`drop_queue`](Self::drop_queue).
    pub(crate) fn reset(&mut self, root: &str) {
        root.clone_into(&mut self.root);
        self.ready = false;
        self.open = false;
        self.settling = false;
        self.reopens = false;
        self.lose_sent();
        self.running.clear();
        self.aborting = None;
        self.says_close = false;
        self.incomplete.clear();
        self.idles = 0;
    }

    /// The agent takes no more prompts: they wait for [`resume`](Self::resume).
    pub(crate) fn pause(&mut self) {
        self.ready = false;
    }

    /// The agent takes prompts: sends what waited for that.
    pub(crate) fn resume(&mut self, now: Moment) {
        self.ready = true;
        self.send_next(now);
    }

    /// Takes everything out of the queue.
    pub(crate) fn drop_queue(&mut self) -> Vec<PromptNumber> {
        self.queue.drain(..).map(|(number, _)| number).collect()
    }

    fn message(&mut self, now: Moment, info: Message) {
        match info.role {
            Role::User => {
                if self.known.insert(info.id) {
                    self.opens();
                    self.running.extend(self.sent.take().map(|sent| sent.number));
                    self.send_next(now);
                }
            }
            Role::Assistant => {
                if info.time.completed.is_some() {
                    self.incomplete.remove(&info.id);
                } else {
                    self.incomplete.insert(info.id);
                    self.opens();
                }
            }
            Role::Unknown | _ => {}
        }
    }

    /// Errors and aborts give two idles, and the message is complete only before the second one.
    fn idle(&mut self) {
        if !self.open {
            return;
        }
        self.idles += 1;
        let over =
            if self.says_close { self.idles > 2 } else { self.incomplete.is_empty() || self.idles > 1 };
        if over {
            self.over();
        }
    }

    /// Whether a turn runs or is about to.
    pub(crate) fn runs(&self) -> bool {
        self.open || self.sent.is_some()
    }

    fn opens(&mut self) {
        if self.settling {
            // What else the agent does meanwhile is part of that.
            self.reopens |= self.sent.is_some();
            return;
        }
        if !self.open && self.aborting.is_some() {
            // The abort came before the turn that it meant.
            self.out.push_back(TurnOutput::Abort);
        }
        self.open = true;
        if let Some(sent) = &mut self.sent {
            sent.opened = true;
        }
    }

    /// Nobody waits for the message of the prompt that was sent any more.
    fn lose_sent(&mut self) {
        if let Some(Sent { number, taken: true, opened: false, .. }) = self.sent.take() {
            self.out.push_back(TurnOutput::Unanswered(number));
        }
    }

    fn over(&mut self) {
        if !self.open {
            return;
        }
        self.open = false;
        self.says_close = false;
        self.incomplete.clear();
        self.idles = 0;
        if self.sent.as_ref().is_some_and(|sent| sent.opened) {
            self.sent = None;
        }
        let aborted = self.aborting.take().is_some();
        self.settling = true;
        self.out.push_back(TurnOutput::Over { aborted });
    }

    fn send_next(&mut self, now: Moment) {
        while self.ready && !self.settling && (self.sent.is_none() || self.takes == Takes::Always) {
            let may_go = |(_, command): &(PromptNumber, Command)| {
                let joins = self.takes == Takes::AtSteps && self.aborting.is_none();
                !self.open
                    || self.takes == Takes::Always
                    || (joins && delivery(command) == Delivery::Boundary)
            };
            let Some((number, command)) =
                self.queue.iter().position(may_go).and_then(|at| self.queue.remove(at))
            else {
                return;
            };
            if self.takes != Takes::Always {
                let is_slash = matches!(command, Command::Slash { .. });
                let due = now + PROMPT_PATIENCE;
                self.sent = Some(Sent { number, due, taken: false, is_slash, opened: false });
            } else {
                self.running.push(number);
            }
            self.out.push_back(TurnOutput::Send(number, Box::new(command)));
        }
    }
}

fn delivery(command: &Command) -> Delivery {
    if let Command::Prompt(prompt) = command { prompt.delivery } else { Delivery::Queue }
}

#[derive(Deserialize)]
struct StatusOf {
    status: SessionStatus,
}

#[derive(Deserialize)]
struct InfoOf {
    info: Message,
}

#[cfg(test)]
mod tests;
