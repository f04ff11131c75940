mod talk;
mod tools;

use std::collections::BTreeSet;

use proptest::prelude::*;

use self::talk::Talk;
use super::*;

const SESSION: &str = "ses_1";
const RECORDING: &str =
    include_str!("../../../../../event-protocol/tests/recordings/acp-opencode-1.18.33/session.jsonl");

#[test]
fn text_streams_into_one_part_and_is_whole_at_its_end() {
    let mut talk = Talk::begin();
    talk.prompt("hi");
    talk.update(
        &json!({ "sessionUpdate": "agent_message_chunk", "content": { "type": "text", "text": "Hello " } }),
    );
    talk.update(
        &json!({ "sessionUpdate": "agent_message_chunk", "content": { "type": "text", "text": "you" } }),
    );
    talk.finish("end_turn");
    assert_eq!(talk.said(), ["hi", "Hello you"]);
    assert_eq!(talk.count("message.part.delta"), 2, "each chunk is a delta");
    assert_eq!(talk.closed(), ["completed"]);
}

#[test]
fn a_thought_and_a_text_are_two_parts_in_their_order() {
    let mut talk = Talk::begin();
    talk.prompt("hi");
    for (kind, text) in [("thought", "hm"), ("message", "yes"), ("thought", "or"), ("message", "no")] {
        let kind = format!("agent_{kind}_chunk");
        talk.update(&json!({ "sessionUpdate": kind, "content": { "type": "text", "text": text } }));
    }
    talk.finish("end_turn");
    assert_eq!(talk.kinds(), ["text", "step-start", "reasoning", "text", "reasoning", "text", "step-finish"]);
}

#[test]
fn another_message_of_the_agent_is_another_message() {
    let mut talk = Talk::begin();
    talk.prompt("hi");
    for (message, text) in [("a", "one "), ("a", "two"), ("b", "three")] {
        let content = json!({ "type": "text", "text": text });
        talk.update(
            &json!({ "sessionUpdate": "agent_message_chunk", "messageId": message, "content": content }),
        );
    }
    talk.finish("end_turn");
    assert_eq!(talk.said(), ["hi", "one two", "three"]);
    assert_eq!(talk.view.session(SESSION).unwrap().messages().len(), 3);
}

#[test]
fn a_permission_is_answered_with_the_option_of_its_kind() {
    for (reply, option) in [
        (PermissionReply::Once, "once"),
        (PermissionReply::Always, "always"),
        (PermissionReply::Reject, "reject"),
    ] {
        let mut talk = Talk::begin();
        talk.prompt("rm");
        assert_eq!(talk.ask(json!(7)), None, "a person is waited for");
        let id = talk.view.pending().first().expect("it is asked").id.to_string();
        let now = talk.tick();
        let outcome = talk.conversation.answer(now, &id, reply).expect("it waits");
        assert_eq!(outcome.request, json!(7));
        assert_eq!(outcome.result["outcome"]["optionId"], option);
        talk.take();
        assert_eq!(talk.view.pending().len(), 0);
        assert_eq!(talk.conversation.answer(now, &id, reply), None, "the first answer wins");
    }
}

#[test]
fn a_permission_outside_of_a_turn_is_asked_as_any_other_and_opens_none() {
    let mut talk = Talk::begin();
    assert_eq!(talk.ask(json!(7)), None, "a person is waited for");
    assert_eq!((talk.count("session.turn.open"), talk.open_messages()), (0, 0));
    let pending = talk.view.pending();
    let (id, patterns) = (pending[0].id.to_string(), &talk.last("permission.asked"));
    assert!(patterns.contains(r#""patterns":["rm a"]"#), "{patterns}");
    assert!(talk.conversation.is_speaking_aside(), "its message is still to be closed");
    talk.prompt("hi");
    talk.finish("end_turn");
    assert_eq!(talk.view.pending().len(), 1, "a turn is not its end");
    let now = talk.tick();
    let outcome = talk.conversation.answer(now, &id, PermissionReply::Once).expect("it waits");
    assert_eq!((outcome.request, &outcome.result["outcome"]["optionId"]), (json!(7), &json!("once")));
    talk.take();
    assert_eq!(talk.view.pending().len(), 0);
}

#[test]
fn a_permission_outside_of_a_turn_is_closed_by_an_abort_and_by_the_end_of_the_agent() {
    let mut talk = Talk::begin();
    talk.ask(json!(7));
    let now = talk.tick();
    let (outcomes, runs) = talk.conversation.cancel(now);
    assert_eq!((outcomes[0].result["outcome"]["outcome"].as_str(), runs), (Some("cancelled"), false));
    talk.take();
    assert_eq!(talk.view.pending().len(), 0);
    talk.ask(json!(8));
    let now = talk.tick();
    talk.conversation.gone(now);
    talk.take();
    assert_eq!(talk.view.pending().len(), 0);
}

#[test]
fn a_permission_for_no_call_is_nobodys_to_give() {
    let mut talk = Talk::begin();
    let now = talk.tick();
    let outcome = talk.conversation.ask(now, json!(7), &json!({ "toolCall": {}, "options": [] }));
    assert_eq!(outcome.expect("it is answered").result["outcome"]["outcome"], "cancelled");
}

#[test]
fn an_abort_answers_what_is_asked_and_closes_what_is_open() {
    let mut talk = Talk::begin();
    talk.prompt("rm");
    talk.update(
        &json!({ "sessionUpdate": "agent_message_chunk", "content": { "type": "text", "text": "I wi" } }),
    );
    talk.ask(json!(7));
    talk.prompt("and then");
    let now = talk.tick();
    let (outcomes, runs) = talk.conversation.cancel(now);
    assert!(runs);
    assert_eq!(outcomes[0].result["outcome"]["outcome"], "cancelled");
    assert!(talk.ask(json!(8)).is_some(), "nobody is asked any more");
    talk.take();
    assert!(talk.last("session.error").contains("PromptLostError"), "what waited is lost, and that is said");
    assert!(talk.last("session.queue.changed").contains(r#""queued":[]"#));
    assert_eq!(talk.finish("cancelled"), None, "what waited is not sent");
    assert_eq!(talk.view.pending().len(), 0);
    assert_eq!(talk.tool()["status"], "error");
    assert_eq!(talk.closed(), ["interrupted"]);
    assert!(talk.said().contains(&"I wi".to_owned()), "what was said stays");
}

#[test]
fn a_prompt_that_comes_while_one_is_answered_is_shown_at_once_and_given_next_in_the_same_turn() {
    let mut talk = Talk::begin();
    assert!(talk.prompt("one").is_some());
    assert_eq!(talk.prompt("two"), None);
    assert_eq!(talk.said(), ["one", "two"]);
    let next = talk.finish("end_turn").expect("the second one is due");
    assert_eq!(next.content, [json!({ "type": "text", "text": "two" })]);
    assert_eq!(talk.closed(), [""; 0]);
    assert_eq!(talk.finish("end_turn"), None);
    assert_eq!(talk.closed(), ["completed"]);
}

#[test]
fn a_refused_prompt_ends_the_turn_with_its_reason() {
    let mut talk = Talk::begin();
    talk.prompt("hi");
    let now = talk.tick();
    let error = RpcError::new(-32603, "the model is overloaded");
    talk.conversation.finished(now, Err(error));
    talk.take();
    assert_eq!(talk.closed(), ["error"]);
    assert!(talk.last("session.error").contains("the model is overloaded"));
}

#[test]
fn a_prompt_that_waited_behind_one_that_failed_has_a_turn_of_its_own() {
    let mut talk = Talk::begin();
    talk.prompt("one");
    talk.prompt("two");
    let next = talk.finish("refusal").expect("the second one is due");
    assert_eq!(next.content, [json!({ "type": "text", "text": "two" })]);
    assert!(talk.last("session.queue.changed").contains(r#""queued":[]"#));
    assert_eq!(talk.finish("end_turn"), None);
    assert_eq!(talk.closed(), ["error", "completed"]);
}

#[test]
fn a_prompt_that_comes_after_an_abort_has_a_turn_of_its_own() {
    // The agent may have come to its end before it heard of the abort.
    for (end, reason) in [("cancelled", "interrupted"), ("end_turn", "completed")] {
        let mut talk = Talk::begin();
        talk.prompt("one");
        let now = talk.tick();
        talk.conversation.cancel(now);
        talk.prompt("two");
        assert!(talk.finish(end).is_some(), "it was said after the abort, and is not meant by it");
        assert_eq!(talk.closed(), [reason]);
        talk.finish("end_turn");
        assert_eq!(talk.closed(), [reason, "completed"]);
    }
}

#[test]
fn a_prompt_that_waits_when_the_agent_ends_is_told_as_lost() {
    let mut talk = Talk::begin();
    talk.prompt("one");
    talk.prompt("two");
    let now = talk.tick();
    talk.conversation.gone(now);
    talk.take();
    assert!(talk.last("session.error").contains("PromptLostError"));
    assert!(talk.last("session.queue.changed").contains(r#""queued":[]"#));
}

#[test]
fn what_the_agent_says_outside_of_a_turn_is_a_message_that_opens_none() {
    let mut talk = Talk::begin();
    talk.prompt("hi");
    talk.finish("end_turn");
    for text in ["the background ", "build is done"] {
        let content = json!({ "type": "text", "text": text });
        talk.update(&json!({ "sessionUpdate": "agent_message_chunk", "content": content }));
        assert_eq!(talk.open_messages(), 0);
    }
    assert!(talk.conversation.is_speaking_aside());
    let now = talk.tick();
    talk.conversation.pause(now);
    talk.take();
    assert_eq!(talk.said(), ["hi", "the background build is done"]);
    assert!(talk.parts().last().is_some_and(|part| part["type"] == "step-finish"), "it is whole");
    assert_eq!(talk.closed().len(), talk.count("session.turn.open"));
    talk.prompt("thanks");
    talk.update(
        &json!({ "sessionUpdate": "agent_message_chunk", "content": { "type": "text", "text": "welcome" } }),
    );
    assert_eq!(talk.open_messages(), 1, "a turn has messages of its own");
}

#[test]
fn what_is_said_outside_of_a_turn_is_over_when_one_begins_or_the_agent_ends() {
    let mut talk = Talk::begin();
    let chunk =
        json!({ "sessionUpdate": "agent_message_chunk", "content": { "type": "text", "text": "welcome" } });
    talk.update(&chunk);
    talk.prompt("hi");
    assert!(!talk.conversation.is_speaking_aside());
    talk.finish("end_turn");
    talk.update(&chunk);
    let now = talk.tick();
    talk.conversation.gone(now);
    talk.take();
    let texts: Vec<Value> = talk.parts().into_iter().filter(|part| part["type"] == "text").collect();
    let ended = texts.iter().filter(|text| text["time"]["end"].is_number()).count();
    assert_eq!((texts.len(), ended), (3, 2), "the agent's have an end");
}

#[test]
fn the_plan_is_the_todo_list() {
    let mut talk = Talk::begin();
    talk.prompt("plan");
    let entry = |content, status| json!({ "content": content, "status": status, "priority": "high" });
    let entries = [entry("look", "completed"), entry("do", "in_progress")];
    talk.update(&json!({ "sessionUpdate": "plan", "entries": entries }));
    let todos = talk.view.session(SESSION).unwrap().todos();
    assert_eq!(todos.iter().map(|todo| todo.content.as_str()).collect::<Vec<_>>(), ["look", "do"]);
}

#[test]
fn a_message_has_the_tokens_of_its_turn_and_its_share_of_the_cost() {
    let mut talk = Talk::begin();
    for (cost, share, input) in [(0.25, 0.25, 10), (1.0, 0.75, 20)] {
        talk.prompt("hi");
        talk.update(
            &json!({ "sessionUpdate": "agent_message_chunk", "content": { "type": "text", "text": "yes" } }),
        );
        let cost = json!({ "amount": cost, "currency": "USD" });
        talk.update(&json!({ "sessionUpdate": "usage_update", "used": 1200, "size": 200_000, "cost": cost }));
        let usage = Tokens { input, output: 3, reasoning: 2, cache_read: 5, cache_write: 1 };
        let now = talk.tick();
        talk.conversation.finished(now, Ok(Stopped { reason: "end_turn".to_owned(), usage: Some(usage) }));
        talk.take();
        let info: Value = serde_json::from_str(&talk.last("message.updated")).unwrap();
        let step = talk.parts().pop().unwrap();
        for said in [&info["info"], &step] {
            assert_eq!((&said["cost"], &said["tokens"]["input"]), (&json!(share), &json!(input)));
            assert_eq!(said["tokens"]["cache"], json!({ "read": 5, "write": 1 }));
            assert_eq!(said["tokens"]["total"], json!(input + 11));
        }
    }
    let session: Value = serde_json::from_str(&talk.last("session.updated")).unwrap();
    assert_eq!(session["info"]["cost"], json!(1.0), "the session has the cost of all");
}

#[test]
fn a_cost_that_falls_or_is_below_zero_takes_nothing_back() {
    let mut talk = Talk::begin();
    talk.prompt("hi");
    talk.update(
        &json!({ "sessionUpdate": "agent_message_chunk", "content": { "type": "text", "text": "yes" } }),
    );
    for amount in [0.5, 0.25, -1.0] {
        let cost = json!({ "amount": amount, "currency": "USD" });
        talk.update(&json!({ "sessionUpdate": "usage_update", "used": 1200, "size": 200_000, "cost": cost }));
    }
    talk.finish("end_turn");
    let info: Value = serde_json::from_str(&talk.last("message.updated")).unwrap();
    assert_eq!(info["info"]["cost"], json!(0.5));
}

#[test]
fn a_cost_in_another_currency_is_passed_on_and_is_no_dollars() {
    for currency in [json!("EUR"), Value::Null] {
        let mut talk = Talk::begin();
        talk.prompt("hi");
        talk.update(
            &json!({ "sessionUpdate": "agent_message_chunk", "content": { "type": "text", "text": "yes" } }),
        );
        let cost = json!({ "amount": 2.5, "currency": currency });
        talk.update(&json!({ "sessionUpdate": "usage_update", "used": 1200, "size": 200_000, "cost": cost }));
        let passed_on: Value = serde_json::from_str(&talk.last("acp.usage_update")).unwrap();
        assert_eq!(passed_on["update"]["cost"], cost);
        talk.finish("end_turn");
        let info: Value = serde_json::from_str(&talk.last("message.updated")).unwrap();
        assert_eq!((&info["info"]["cost"], &info["info"]["tokens"]["input"]), (&json!(0.0), &json!(1200)));
    }
}

#[test]
fn an_agent_that_counts_no_tokens_of_a_turn_says_what_fills_its_context() {
    let mut talk = Talk::begin();
    talk.prompt("hi");
    talk.update(
        &json!({ "sessionUpdate": "agent_message_chunk", "content": { "type": "text", "text": "yes" } }),
    );
    talk.update(&json!({ "sessionUpdate": "usage_update", "used": 1200, "size": 200_000 }));
    talk.finish("end_turn");
    let info: Value = serde_json::from_str(&talk.last("message.updated")).unwrap();
    assert_eq!(info["info"]["tokens"]["input"], 1200);
}

#[test]
fn each_reason_to_stop_closes_the_turn_as_what_it_is() {
    for (stopped, closed, finish) in [
        ("end_turn", "completed", json!("stop")),
        ("max_tokens", "completed", json!("length")),
        ("max_turn_requests", "error", json!("length")),
        ("refusal", "error", json!("content-filter")),
        ("cancelled", "interrupted", Value::Null),
    ] {
        let mut talk = Talk::begin();
        talk.prompt("hi");
        talk.finish(stopped);
        assert_eq!(talk.closed(), [closed], "{stopped}");
        let info: Value = serde_json::from_str(&talk.last("message.updated")).unwrap();
        assert_eq!(info["info"]["finish"], finish, "{stopped}");
    }
    let mut talk = Talk::begin();
    talk.prompt("hi");
    let now = talk.tick();
    talk.conversation.cancel(now);
    talk.conversation.finished(now, Err(RpcError::new(-32603, "aborted")));
    talk.take();
    assert_eq!(talk.closed(), ["interrupted"], "an agent that answers an abort with an error");
}

#[test]
fn a_permission_is_answered_with_what_comes_nearest_to_it() {
    for (reply, offered, chosen) in [
        (PermissionReply::Once, &["allow_always", "reject_once"][..], Some("allow_always")),
        (PermissionReply::Always, &["allow_once", "reject_once"], Some("allow_once")),
        (PermissionReply::Reject, &["allow_once", "reject_always"], Some("reject_always")),
        (PermissionReply::Reject, &["allow_once"], None),
    ] {
        let options: Vec<Value> =
            offered.iter().map(|kind| json!({ "kind": kind, "optionId": kind })).collect();
        let outcome = Ask::new(json!(7), &json!({ "options": options })).answered(reply);
        assert_eq!(outcome.result["outcome"]["optionId"].as_str(), chosen, "{reply:?} of {offered:?}");
    }
}

#[test]
fn a_session_has_the_title_and_the_mode_that_the_agent_says() {
    let mut talk = Talk::begin();
    talk.update(&json!({ "sessionUpdate": "session_info_update", "title": "A fix" }));
    talk.update(&json!({ "sessionUpdate": "current_mode_update", "currentModeId": "plan" }));
    let session: Value = serde_json::from_str(&talk.last("session.updated")).unwrap();
    assert_eq!(session["info"]["title"], "A fix");
    talk.prompt("hi");
    let info: Value = serde_json::from_str(&talk.last("message.updated")).unwrap();
    assert_eq!(info["info"]["agent"], "plan");
}

#[test]
fn instructions_go_before_what_the_user_says_who_is_not_shown_them() {
    let mut talk = Talk::begin();
    let (text, system) = (Some("hi".to_owned()), Some("be brief".to_owned()));
    let prompt = Prompt { text, system, ..Prompt::default() };
    let now = talk.tick();
    let (_, give) = talk.conversation.prompt(now, &prompt, PromptCapabilities::default());
    talk.take();
    let text = |text: &str| json!({ "type": "text", "text": text });
    assert_eq!(give.unwrap().content, [text("be brief"), text("hi")]);
    assert_eq!(talk.said(), ["hi"]);
}

#[test]
fn what_is_not_known_is_passed_on_whole() {
    let mut talk = Talk::begin();
    talk.update(&json!({ "sessionUpdate": "hologram", "shape": [1, 2] }));
    assert!(talk.last("acp.hologram").contains(r#""shape":[1,2]"#));
}

#[test]
fn a_recorded_session_of_opencode_becomes_the_transcript_that_it_was() {
    let mut talk = Talk::begin();
    for line in RECORDING.lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        let message = &line["msg"];
        match (line["dir"].as_str(), message["method"].as_str()) {
            (Some("client>agent"), Some("session/prompt")) => {
                let text = message["params"]["prompt"][0]["text"].as_str().unwrap().to_owned();
                talk.prompt(&text);
            }
            (Some("client>agent"), Some("session/cancel")) => {
                let now = talk.tick();
                talk.conversation.cancel(now);
            }
            (Some("client>agent"), None) => {
                let option = message["result"]["outcome"]["optionId"].as_str();
                let reply =
                    if option == Some("once") { PermissionReply::Once } else { PermissionReply::Reject };
                let id = talk.view.pending().first().expect("a permission is asked").id.to_string();
                let now = talk.tick();
                assert_eq!(talk.conversation.answer(now, &id, reply).unwrap().result, message["result"]);
            }
            (Some("agent>client"), Some("session/update")) => talk.update(&message["params"]["update"]),
            (Some("agent>client"), Some("session/request_permission")) => {
                let now = talk.tick();
                talk.conversation.ask(now, message["id"].clone(), &message["params"]);
            }
            (Some("agent>client"), None) if message["result"]["stopReason"].is_string() => {
                let reason = message["result"]["stopReason"].as_str().unwrap().to_owned();
                talk.finish(&reason);
            }
            _ => {}
        }
        talk.take();
    }
    assert_eq!(
        talk.closed(),
        ["completed", "completed", "completed", "completed", "completed", "interrupted"]
    );
    let tools: BTreeSet<String> =
        talk.tools().iter().map(|tool| tool["tool"].as_str().unwrap().to_owned()).collect();
    assert_eq!(tools, ["bash", "edit", "grep", "read", "todowrite", "write"].map(str::to_owned).into());
    assert!(talk.tools().iter().all(is_over), "nothing is left running");
    assert!(talk.said().iter().any(|said| said.starts_with("Hello! The wrapper owns the agent server")));
}

proptest! {
    #[test]
    fn every_turn_is_closed_once_and_leaves_nothing_open(steps in prop::collection::vec(step(), 0..60)) {
        let mut talk = Talk::begin();
        let mut opened = 0;
        for step in steps {
            match step {
                Move::Prompt => opened += usize::from(talk.prompt("go on").is_some() && talk.fresh()),
                Move::Update(update) => talk.update(&update),
                Move::Ask => drop(talk.ask(json!(1))),
                Move::Cancel => {
                    let now = talk.tick();
                    talk.conversation.cancel(now);
                    talk.take();
                }
                Move::Finish(reason) => drop(talk.finish(reason)),
            }
        }
        while talk.conversation.turn.is_some() {
            talk.finish("end_turn");
        }
        // What the agent does outside of a turn is over with the next one.
        talk.prompt("the last one");
        talk.finish("end_turn");
        prop_assert_eq!(talk.closed().len(), talk.count("session.turn.open"));
        prop_assert!(opened <= talk.count("session.turn.open"));
        prop_assert!(talk.tools().iter().all(is_over));
    }
}

fn is_over(tool: &Value) -> bool {
    matches!(tool["state"]["status"].as_str(), Some("completed" | "error"))
}

#[derive(Debug, Clone)]
enum Move {
    Prompt,
    Update(Value),
    Ask,
    Cancel,
    Finish(&'static str),
}

fn step() -> impl Strategy<Value = Move> {
    let chunk =
        |kind: &'static str| json!({ "sessionUpdate": kind, "content": { "type": "text", "text": "x" } });
    let call = ("c[12]", prop::sample::select(vec!["pending", "in_progress", "completed", "failed"])).prop_map(
        |(call, status)| {
            json!({ "sessionUpdate": "tool_call_update", "toolCallId": call, "status": status, "kind": "execute" })
        },
    );
    prop_oneof![
        Just(Move::Prompt),
        Just(Move::Update(chunk("agent_message_chunk"))),
        Just(Move::Update(chunk("agent_thought_chunk"))),
        call.prop_map(Move::Update),
        Just(Move::Ask),
        Just(Move::Cancel),
        prop::sample::select(vec!["end_turn", "cancelled", "refusal", "max_tokens"]).prop_map(Move::Finish),
    ]
}
