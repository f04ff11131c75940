use proptest::prelude::*;
use protocol::{Prompt, RawData, Timestamp};
use serde_json::{Value, json};

use super::*;

/// The default.
const ABORT_LIMIT: Duration = Duration::from_secs(15);

#[test]
fn a_prompt_goes_at_once_when_nothing_runs() {
    let mut turns = turns();
    let number = turns.prompt(Moment::START, prompt("a", Delivery::Queue)).unwrap();
    assert_eq!(
        drain(&mut turns),
        [TurnOutput::Send(number, Box::new(Command::Prompt(prompt("a", Delivery::Queue))))]
    );
    assert!(turns.is_busy(), "its turn is about to begin");
}

#[test]
fn a_queued_prompt_waits_for_the_turn_to_be_over() {
    let mut turns = running();
    turns.prompt(Moment::START, prompt("b", Delivery::Queue));
    assert_eq!(drain(&mut turns), []);
    feed(&mut turns, &[assistant("a1", true), idle("root")]);
    assert_eq!(sent(&drain(&mut turns)), ["b"]);
}

#[test]
fn a_prompt_for_the_next_step_goes_once_the_one_before_was_seen() {
    let mut turns = turns();
    turns.prompt(Moment::START, prompt("a", Delivery::Queue));
    turns.prompt(Moment::START, prompt("b", Delivery::Boundary));
    assert_eq!(sent(&drain(&mut turns)), ["a"]);
    feed(&mut turns, &[user("u1")]);
    assert_eq!(sent(&drain(&mut turns)), ["b"]);
}

#[test]
fn an_agent_that_takes_nothing_while_it_works_is_given_the_next_prompt_after_its_turn() {
    let mut turns = Turns::new("root", Takes::BetweenTurns, &TurnLimitArgs::default(), []);
    turns.resume(Moment::START);
    turns.prompt(Moment::START, prompt("a", Delivery::Queue));
    turns.prompt(Moment::START, prompt("b", Delivery::Boundary));
    assert_eq!(sent(&drain(&mut turns)), ["a"]);
    feed(&mut turns, &[user("u1"), assistant("a1", false)]);
    assert_eq!(drain(&mut turns), []);
    turns.prompt(Moment::START, prompt("c", Delivery::Interrupt));
    assert_eq!(turns.poll(), Some(TurnOutput::Abort));
    feed(&mut turns, &[assistant("a1", true), idle("root")]);
    assert_eq!(sent(&drain(&mut turns)), ["c"], "what interrupts goes first");
    feed(&mut turns, &[user("u2"), assistant("a2", true), idle("root")]);
    assert_eq!(sent(&drain(&mut turns)), ["b"], "and nothing is lost by it");
}

#[test]
fn nothing_is_sent_before_a_turn_is_settled() {
    let mut turns = running();
    turns.prompt(Moment::START, prompt("b", Delivery::Queue));
    feed(&mut turns, &[assistant("a1", true), idle("root")]);
    assert_eq!(turns.poll(), Some(TurnOutput::Over { aborted: false }));
    turns.prompt(Moment::START, prompt("c", Delivery::Interrupt));
    // The agent condenses its session.
    feed(
        &mut turns,
        &[user("u9"), busy("root"), assistant("a9", false), assistant("a9", true), idle("root")],
    );
    assert_eq!(turns.poll(), None);
    assert!(turns.is_busy() && turns.is_settling());
    turns.settled(Moment::START);
    assert_eq!(sent(&drain(&mut turns)), ["c"], "there was nothing to abort");
}

#[test]
fn a_prompt_that_was_on_its_way_has_its_turn_after_the_last_one_is_settled() {
    let mut turns = running();
    turns.prompt(Moment::START, prompt("b", Delivery::Boundary));
    assert_eq!(sent(&drain(&mut turns)), ["b"]);
    feed(&mut turns, &[assistant("a1", true), idle("root")]);
    assert_eq!(turns.poll(), Some(TurnOutput::Over { aborted: false }));
    feed(&mut turns, &[user("u2"), busy("root")]);
    turns.settled(Moment::START);
    feed(&mut turns, &[idle("root")]);
    assert_eq!(drain(&mut turns), [TurnOutput::Over { aborted: false }]);
    assert!(!turns.is_busy());
}

#[test]
fn an_interrupting_prompt_aborts_the_turn_and_goes_before_what_is_queued() {
    let mut turns = running();
    turns.prompt(Moment::START, prompt("b", Delivery::Queue));
    turns.prompt(Moment::START, prompt("c", Delivery::Interrupt));
    assert_eq!(drain(&mut turns), [TurnOutput::Abort]);
    feed(&mut turns, &[idle("root")]);
    assert_eq!(drain(&mut turns), [], "the message is complete only before the second idle");
    feed(&mut turns, &[assistant("a1", true), idle("root")]);
    let out = drain(&mut turns);
    assert_eq!((&out[0], sent(&out)), (&TurnOutput::Over { aborted: true }, vec!["c".to_owned()]));
    feed(&mut turns, &[user("u2"), busy("root"), idle("root")]);
    assert_eq!(sent(&drain(&mut turns)), ["b"]);
}

#[test]
fn a_slash_command_begins_a_turn_as_a_prompt_does() {
    let mut turns = turns();
    let number = turns.take(Moment::START, slash("init")).unwrap();
    turns.prompt(Moment::START, prompt("b", Delivery::Queue));
    assert_eq!(sent(&drain(&mut turns)), ["/init"], "one at a time");
    assert_eq!(turns.inflight().next(), Some(number));
    feed(&mut turns, &[user("u1"), busy("root")]);
    turns.take(Moment::START, slash("review"));
    assert_eq!(drain(&mut turns), []);
    feed(&mut turns, &[assistant("a1", true), idle("root")]);
    assert_eq!(sent(&drain(&mut turns)), ["b"]);
    feed(&mut turns, &[user("u2"), busy("root"), idle("root")]);
    assert_eq!(sent(&drain(&mut turns)), ["/review"]);
}

#[test]
fn a_slash_command_that_failed_holds_up_nothing_and_a_prompt_is_not_taken_for_one() {
    for (command, goes_on) in [(slash("init"), true), (Command::Prompt(prompt("a", Delivery::Queue)), false)]
    {
        let mut turns = turns();
        let number = turns.take(Moment::START, command).unwrap();
        turns.taken(Moment::START, number, true);
        turns.prompt(Moment::START, prompt("b", Delivery::Queue));
        drain(&mut turns);
        turns.command_failed(Moment::START);
        let out = drain(&mut turns);
        assert_eq!(sent(&out).contains(&"b".to_owned()), goes_on);
        assert!(!out.contains(&TurnOutput::Unanswered(number)), "what came of it was told");
    }
}

#[test]
fn an_abort_drops_what_is_queued_and_says_so() {
    let mut turns = running();
    let number = turns.prompt(Moment::START, prompt("b", Delivery::Queue)).unwrap();
    turns.abort(Moment::START);
    assert_eq!(drain(&mut turns), [TurnOutput::Dropped(number)]);
    feed(&mut turns, &[assistant("a1", true), idle("root")]);
    assert_eq!(drain(&mut turns), [TurnOutput::Over { aborted: true }]);
}

#[test]
fn an_agent_that_does_not_end_an_aborted_turn_hangs() {
    let mut turns = running();
    turns.abort(Moment::START);
    assert_eq!(turns.due(), Some(Moment::START + ABORT_LIMIT));
    turns.handle_timeout(Moment::START + ABORT_LIMIT);
    assert_eq!(drain(&mut turns), [TurnOutput::Hung]);
    assert!(turns.is_busy(), "nobody said that it ended");
}

#[test]
fn an_abort_that_the_runtime_does_not_take_leaves_the_turn_alone() {
    let mut turns = running();
    turns.abort(Moment::START);
    turns.abort_refused();
    turns.handle_timeout(Moment::START + ABORT_LIMIT);
    assert_eq!(drain(&mut turns), []);
}

#[test]
fn an_abort_that_comes_before_its_turn_is_said_again_when_that_begins() {
    let mut turns = turns();
    turns.prompt(Moment::START, prompt("a", Delivery::Queue));
    drain(&mut turns);
    turns.abort(Moment::START);
    feed(&mut turns, &[user("u1")]);
    assert_eq!(drain(&mut turns), [TurnOutput::Abort]);
}

#[test]
fn a_turn_whose_time_is_up_is_aborted_and_what_is_queued_goes_on() {
    let mut turns = running();
    turns.prompt(Moment::START, prompt("b", Delivery::Queue));
    turns.interrupt(Moment::START);
    assert_eq!(drain(&mut turns), [TurnOutput::Abort]);
    feed(&mut turns, &[assistant("a1", true), idle("root")]);
    turns.settled(Moment::START);
    assert_eq!(sent(&drain(&mut turns)), ["b"]);
}

#[test]
fn a_prompt_that_was_taken_and_is_never_seen_is_told() {
    let mut turns = turns();
    let number = turns.prompt(Moment::START, prompt("a", Delivery::Queue)).unwrap();
    drain(&mut turns);
    turns.taken(Moment::START, number, true);
    turns.handle_timeout(Moment::START + PROMPT_PATIENCE);
    assert_eq!(drain(&mut turns), [TurnOutput::Unanswered(number)]);
    assert!(!turns.is_busy());
}

#[test]
fn a_prompt_that_the_agents_end_swallowed_is_told() {
    let mut turns = turns();
    let number = turns.prompt(Moment::START, prompt("a", Delivery::Queue)).unwrap();
    turns.taken(Moment::START, number, true);
    drain(&mut turns);
    turns.reset("root");
    assert_eq!(drain(&mut turns), [TurnOutput::Unanswered(number)]);
}

#[test]
fn what_was_taken_is_in_flight_until_its_turn_is_over() {
    let mut turns = turns();
    let ask = |turns: &mut Turns, text| turns.prompt(Moment::START, prompt(text, Delivery::Queue)).unwrap();
    let (first, second) = (ask(&mut turns, "a"), ask(&mut turns, "b"));
    let inflight = |turns: &Turns| turns.inflight().collect::<Vec<_>>();
    assert_eq!(inflight(&turns), [first, second]);
    feed(&mut turns, &[user("u1"), busy("root"), assistant("a1", true)]);
    assert_eq!(inflight(&turns), [first, second]);
    feed(&mut turns, &[idle("root")]);
    turns.settled(Moment::START);
    assert_eq!(inflight(&turns), [second]);
}

proptest! {
    /// Whatever an agent says or leaves unsaid: a prompt is in flight once or not at all, and a busy agent is either waited for with
    /// an end to that, or runs a turn, which the watch looks at.
    #[test]
    fn p14_no_prompt_waits_for_nothing(steps in prop::collection::vec((0_u8..12, 0_u64..40_000), 1..80)) {
        let mut turns = Turns::new("root", Takes::AtSteps, &TurnLimitArgs::default(), []);
        let mut now = Moment::START;
        let mut last = None;
        for (step, (what, later)) in (0_u32..).zip(steps) {
            now = now + Duration::from_millis(later);
            match what {
                0 => last = turns.prompt(now, prompt("x", Delivery::Queue)),
                1 => last = turns.prompt(now, prompt("x", Delivery::Boundary)),
                2 => last = turns.prompt(now, prompt("x", Delivery::Interrupt)),
                3 => turns.resume(now),
                4 => turns.reset("root"),
                5 => turns.abort(now),
                6 => turns.event(now, &user(&format!("u{step}"))),
                7 => turns.event(now, &busy("root")),
                8 => turns.event(now, &idle("root")),
                9 => turns.settled(now),
                10 => last.into_iter().for_each(|number| turns.taken(now, number, step % 2 == 0)),
                _ => turns.handle_timeout(now),
            }
            drain(&mut turns);
            let inflight: Vec<PromptNumber> = turns.inflight().collect();
            prop_assert_eq!(inflight.iter().collect::<BTreeSet<_>>().len(), inflight.len());
            if turns.runs() && !turns.is_open() {
                prop_assert!(turns.due().is_some(), "a prompt that was sent has an end");
            }
        }
    }
}

#[test]
fn a_childs_idle_is_not_the_end_of_the_turn() {
    let mut turns = running();
    feed(&mut turns, &[assistant("a1", true), idle("child")]);
    assert!(turns.is_busy());
}

#[test]
fn a_server_that_says_when_a_turn_closes_is_waited_for() {
    let mut turns = turns();
    feed(
        &mut turns,
        &[user("u1"), event("root", "session.turn.open", &json!({})), assistant("a1", true), idle("root")],
    );
    assert!(turns.is_busy());
    feed(&mut turns, &[event("root", "session.turn.close", &json!({ "reason": "completed" }))]);
    assert_eq!(drain(&mut turns), [TurnOutput::Over { aborted: false }]);
    assert!(!turns.is_busy());
}

#[test]
fn a_close_that_was_missed_is_made_up_for_by_an_idle_server() {
    let mut turns = turns();
    let open = event("root", "session.turn.open", &json!({}));
    turns.prompt(Moment::START, prompt("a", Delivery::Queue));
    feed(&mut turns, &[user("u1"), open]);
    turns.server_is_idle(false);
    assert!(turns.is_open(), "it has the message and may be about to begin");
    turns.server_is_idle(true);
    assert!(!turns.is_open());
}

#[test]
fn a_late_word_about_the_users_message_opens_no_turn() {
    let mut turns = running();
    feed(&mut turns, &[assistant("a1", true), idle("root")]);
    drain(&mut turns);
    feed(&mut turns, &[user("u1")]);
    assert!(!turns.is_busy());
}

#[test]
fn a_prompt_that_failed_lets_the_next_one_go() {
    let mut turns = turns();
    let first = turns.prompt(Moment::START, prompt("a", Delivery::Queue)).unwrap();
    turns.prompt(Moment::START, prompt("b", Delivery::Queue));
    drain(&mut turns);
    turns.taken(Moment::START, first, false);
    assert_eq!(sent(&drain(&mut turns)), ["b"]);
}

#[test]
fn a_prompt_that_is_never_seen_lets_the_next_one_go_after_a_while() {
    let mut turns = turns();
    turns.prompt(Moment::START, prompt("a", Delivery::Queue));
    turns.prompt(Moment::START, prompt("b", Delivery::Queue));
    drain(&mut turns);
    turns.handle_timeout(Moment::START + PROMPT_PATIENCE);
    assert_eq!(sent(&drain(&mut turns)), ["b"]);
}

#[test]
fn a_queue_has_an_end() {
    let mut turns = running();
    for _ in 0..QUEUE {
        assert!(turns.prompt(Moment::START, prompt("x", Delivery::Queue)).is_some());
    }
    assert_eq!(turns.prompt(Moment::START, prompt("x", Delivery::Queue)), None);
}

#[test]
fn a_recording_takes_every_step_at_once() {
    let mut turns = Turns::new("root", Takes::Always, &TurnLimitArgs::default(), []);
    turns.resume(Moment::START);
    for text in ["1", "2"] {
        turns.prompt(Moment::START, prompt(text, Delivery::Queue));
    }
    assert_eq!(sent(&drain(&mut turns)), ["1", "2"]);
}

#[test]
fn a_prompt_waits_for_the_agent_to_be_there() {
    let mut turns = Turns::new("root", Takes::AtSteps, &TurnLimitArgs::default(), []);
    turns.prompt(Moment::START, prompt("a", Delivery::Queue));
    assert_eq!(drain(&mut turns), []);
    turns.resume(Moment::START);
    assert_eq!(sent(&drain(&mut turns)), ["a"]);
}

/// A session whose first turn runs.
fn running() -> Turns {
    let mut turns = turns();
    feed(&mut turns, &[user("u1"), busy("root"), assistant("a1", false)]);
    turns
}

impl Turns {
    fn prompt(&mut self, now: Moment, prompt: Prompt) -> Option<PromptNumber> {
        self.take(now, Command::Prompt(prompt))
    }
}

fn turns() -> Turns {
    let mut turns = Turns::new("root", Takes::AtSteps, &TurnLimitArgs::default(), []);
    turns.resume(Moment::START);
    turns
}

fn feed(turns: &mut Turns, events: &[NewEvent]) {
    for event in events {
        turns.event(Moment::START, event);
    }
}

/// What is to be done next; a turn that is over is settled at once.
fn drain(turns: &mut Turns) -> Vec<TurnOutput> {
    let mut out = Vec::new();
    while let Some(output) = turns.poll() {
        if matches!(output, TurnOutput::Over { .. }) {
            turns.settled(Moment::START);
        }
        out.push(output);
    }
    out
}

fn sent(out: &[TurnOutput]) -> Vec<String> {
    let text = |output: &TurnOutput| {
        let TurnOutput::Send(_, command) = output else { return None };
        if let Command::Slash { name, .. } = &**command {
            return Some(format!("/{name}"));
        }
        if let Command::Prompt(prompt) = &**command { prompt.text.clone() } else { None }
    };
    out.iter().filter_map(text).collect()
}

fn slash(name: &str) -> Command {
    Command::Slash { name: name.to_owned(), arguments: String::new() }
}

fn prompt(text: &str, delivery: Delivery) -> Prompt {
    Prompt { text: Some(text.to_owned()), delivery, ..Prompt::default() }
}

fn user(id: &str) -> NewEvent {
    event(
        "root",
        "message.updated",
        &json!({ "info": { "id": id, "role": "user", "time": { "created": 1 } } }),
    )
}

fn assistant(id: &str, completed: bool) -> NewEvent {
    let time = if completed { json!({ "created": 1, "completed": 2 }) } else { json!({ "created": 1 }) };
    event("root", "message.updated", &json!({ "info": { "id": id, "role": "assistant", "time": time } }))
}

fn busy(session: &str) -> NewEvent {
    event(session, "session.status", &json!({ "status": { "type": "busy" } }))
}

fn idle(session: &str) -> NewEvent {
    event(session, "session.idle", &json!({}))
}

fn event(session: &str, kind: &str, data: &Value) -> NewEvent {
    let data = RawData::of(data).unwrap();
    NewEvent { time: Timestamp::from_unix_ms(0), kind: kind.into(), session: Some(session.into()), data }
}
