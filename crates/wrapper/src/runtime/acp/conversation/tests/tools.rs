//! Tool calls in a conversation.

use serde_json::{Value, json};

use super::Talk;

#[test]
fn a_tool_call_is_put_together_from_what_its_updates_change() {
    let mut talk = Talk::begin();
    talk.prompt("edit");
    let diff = json!({ "type": "diff", "path": "/w/src/a.rs", "oldText": "one\n", "newText": "two\n" });
    talk.update(
        &json!({ "sessionUpdate": "tool_call", "toolCallId": "c1", "title": "edit", "kind": "edit" }),
    );
    talk.update(&json!({
        "sessionUpdate": "tool_call_update", "toolCallId": "c1", "status": "in_progress", "title": "src/a.rs",
        "locations": [{ "path": "/w/src/a.rs", "line": 3 }],
    }));
    talk.update(&json!({ "sessionUpdate": "tool_call_update", "toolCallId": "c1", "status": "completed", "content": [diff] }));
    // What is over stays as it is.
    talk.update(&json!({ "sessionUpdate": "tool_call_update", "toolCallId": "c1", "status": "in_progress" }));
    let state = talk.tool();
    assert_eq!(state["status"], "completed");
    assert_eq!(state["title"], "src/a.rs");
    assert_eq!(
        state["input"]["filePath"], "/w/src/a.rs",
        "a place stands for the file, if the input names none"
    );
    assert_eq!(
        (&state["metadata"]["filediff"]["additions"], &state["metadata"]["filediff"]["deletions"]),
        (&json!(1), &json!(1))
    );
    assert_eq!(talk.count("file.edited"), 1);
}

#[test]
fn a_failed_tool_says_why() {
    let mut talk = Talk::begin();
    talk.prompt("run");
    talk.update(&json!({
        "sessionUpdate": "tool_call", "toolCallId": "c1", "title": "ls", "kind": "execute", "status": "failed",
        "rawOutput": { "error": "no such folder" },
    }));
    assert_eq!((&talk.tool()["status"], &talk.tool()["error"]), (&json!("error"), &json!("no such folder")));
}

#[test]
fn what_a_terminal_writes_is_the_output_of_the_tool_that_shows_it() {
    let mut talk = Talk::begin();
    talk.prompt("run");
    let content = json!([{ "type": "terminal", "terminalId": "term_1" }]);
    talk.update(&json!({
        "sessionUpdate": "tool_call", "toolCallId": "c1", "title": "make", "kind": "execute", "status": "in_progress",
        "content": content,
    }));
    let now = talk.tick();
    talk.conversation.terminal_output(now, "term_1", "building\n");
    talk.conversation.terminal_output(now, "term_2", "another's\n");
    talk.take();
    assert_eq!(talk.tool()["metadata"]["output"], "building\n");
}

#[test]
fn a_tool_that_shows_a_terminal_only_when_it_is_over_has_its_output_and_nothing_that_comes_later() {
    let mut talk = Talk::begin();
    talk.prompt("run");
    talk.update(&json!({
        "sessionUpdate": "tool_call", "toolCallId": "c1", "title": "make", "kind": "execute", "status": "completed",
        "content": [{ "type": "terminal", "terminalId": "term_1" }],
    }));
    let now = talk.tick();
    talk.conversation.terminal_output(now, "term_1", "built\n");
    talk.conversation.terminal_output(now, "term_1", "built\nmore\n");
    talk.take();
    assert_eq!(talk.tool()["output"], "built\n");
}

#[test]
fn the_output_of_a_command_is_said_once_however_it_ends() {
    let content = json!([{ "type": "terminal", "terminalId": "term_1" }]);
    let raw = json!({ "output": "building\n", "exitCode": 2, "metadata": { "output": "building\n" } });
    for (status, said) in [
        ("in_progress", &["metadata", "output"][..]),
        ("completed", &["output"]),
        ("failed", &["metadata", "output"]),
    ] {
        let mut talk = Talk::begin();
        talk.prompt("run");
        talk.update(&json!({
            "sessionUpdate": "tool_call", "toolCallId": "c1", "title": "make", "kind": "execute", "content": content,
        }));
        let now = talk.tick();
        talk.conversation.terminal_output(now, "term_1", "building\n");
        talk.update(&json!({
            "sessionUpdate": "tool_call_update", "toolCallId": "c1", "status": status, "rawOutput": raw,
        }));
        let place = said.iter().fold(talk.tool(), |value, name| value[name].clone());
        assert_eq!(place, "building\n", "{status}");
        assert_eq!(talk.last("message.part.updated").matches("building").count(), 1, "{status}");
        assert_eq!(talk.tool()["metadata"]["exit"], 2, "{status}");
    }
}

#[test]
fn the_output_of_a_command_is_what_it_wrote_and_not_what_was_made_of_it_for_people() {
    let mut talk = Talk::begin();
    talk.prompt("run");
    let marked_up =
        json!({ "type": "content", "content": { "type": "text", "text": "```console\nbuilt\n```" } });
    talk.update(&json!({
        "sessionUpdate": "tool_call", "toolCallId": "c1", "title": "make", "kind": "execute", "status": "completed",
        "content": [marked_up], "rawOutput": "built\n",
    }));
    assert_eq!(talk.tool()["output"], "built\n");
}

#[test]
fn a_tool_that_outlives_its_turn_shows_what_came_of_it() {
    let mut talk = Talk::begin();
    talk.prompt("build");
    let call = json!({
        "sessionUpdate": "tool_call", "toolCallId": "c1", "title": "make", "kind": "execute", "status": "in_progress",
    });
    talk.update(&call);
    talk.finish("end_turn");
    assert_eq!(talk.tool()["error"], "Tool execution aborted");
    let over = json!({
        "sessionUpdate": "tool_call_update", "toolCallId": "c1", "status": "completed", "rawOutput": "built",
    });
    talk.update(&over);
    assert_eq!((&talk.tool()["status"], &talk.tool()["output"]), (&json!("completed"), &json!("built")));
    assert_eq!(talk.tools().len(), 1, "it is the same call");
    // Another call of the same id is another one.
    talk.prompt("again");
    talk.update(&call);
    talk.finish("end_turn");
    talk.prompt("and again");
    talk.update(&call);
    assert_eq!(talk.tools().len(), 3);
}

#[test]
fn what_an_edit_changed_is_shown_once_it_is_known_that_it_did() {
    let mut talk = Talk::begin();
    talk.prompt("edit");
    let diff = json!({ "type": "diff", "path": "/w/a.txt", "oldText": "one", "newText": "two" });
    talk.update(&json!({
        "sessionUpdate": "tool_call", "toolCallId": "c1", "title": "a.txt", "kind": "edit", "status": "in_progress",
        "content": [diff],
    }));
    talk.finish("cancelled");
    assert_eq!(talk.tool()["metadata"]["filediff"], Value::Null, "nobody knows");
    talk.update(&json!({ "sessionUpdate": "tool_call_update", "toolCallId": "c1", "status": "completed" }));
    assert_eq!(talk.tool()["metadata"]["filediff"]["additions"], 1);
}

#[test]
fn an_update_of_a_call_that_is_not_known_is_passed_on_outside_of_a_turn() {
    let mut talk = Talk::begin();
    talk.update(&json!({ "sessionUpdate": "tool_call_update", "toolCallId": "c1", "status": "completed" }));
    assert!(talk.last("acp.tool_call_update").contains("c1"));
    talk.update(
        &json!({ "sessionUpdate": "tool_call", "toolCallId": "c1", "title": "make", "kind": "execute" }),
    );
    assert_eq!((talk.tools().len(), talk.open_messages()), (1, 0));
}
