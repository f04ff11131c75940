//! The logs that the laws are tried with: every recording of a real agent server, and what no recording holds.

use std::path::PathBuf;

use protocol::{Effect, Event, NewEvent, RawData, Seq, Timestamp, session_of};
use serde_json::{Value, json};

/// What a log keeps of events (§3).
pub(super) fn compact(events: &[Event]) -> Vec<Event> {
    let mut kept: Vec<Event> = Vec::new();
    for event in events {
        if let Some(key) = &event.key {
            match event.effect() {
                Effect::Append => {}
                Effect::Replace => kept.retain(|earlier| earlier.key.as_ref() != Some(key)),
                Effect::Remove => kept.retain(|earlier| {
                    let below = earlier.key.as_ref().is_some_and(|earlier| key.covers(earlier));
                    let of_session = key
                        .as_str()
                        .strip_prefix("session/")
                        .is_some_and(|id| earlier.session.as_deref() == Some(id));
                    !below && !of_session
                }),
            }
        }
        kept.push(event.clone());
    }
    kept
}

/// Every recording, as the log of an agent would hold it.
pub(super) fn recordings() -> Vec<(String, Vec<Event>)> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../event-protocol/tests/recordings");
    let mut recordings = Vec::new();
    for server in ["kilo-7.7.7", "opencode-1.18.33"] {
        let mut files: Vec<PathBuf> =
            std::fs::read_dir(root.join(server)).unwrap().map(|file| file.unwrap().path()).collect();
        files.sort();
        for file in files {
            let name = file.file_name().unwrap().to_str().unwrap().to_owned();
            if name.ends_with(".jsonl") && !name.contains(".http.") {
                recordings
                    .push((format!("{server}/{name}"), events(&std::fs::read_to_string(&file).unwrap())));
            }
        }
    }
    assert!(recordings.len() >= 16, "the recordings are there");
    recordings.push(("everything".to_owned(), everything()));
    recordings
}

/// What no recording holds: Gastown's own events, and tools and parts of other servers.
pub(super) fn everything() -> Vec<Event> {
    let tool = |id: &str, tool: &str, state: Value| {
        let part = json!({ "id": id, "messageID": "msg_2", "sessionID": "s", "type": "tool", "tool": tool, "callID": id, "state": state });
        ("message.part.updated", json!({ "sessionID": "s", "part": part }))
    };
    let done = |input: Value, output: &str, metadata: Value| json!({ "status": "completed", "input": input, "output": output, "title": "t", "metadata": metadata, "time": { "start": 1, "end": 2 } });
    let part = |id: &str, mut body: Value| {
        body["id"] = id.into();
        body["messageID"] = "msg_2".into();
        body["sessionID"] = "s".into();
        ("message.part.updated", json!({ "sessionID": "s", "part": body }))
    };
    let question = json!({ "questions": [{ "question": "Which?", "header": "h", "multiple": true, "options": [{ "label": "a", "description": "b" }] },
        { "question": "And?", "header": "h", "options": [] }] });
    let mut asked = question.clone();
    asked["id"] = "que_1".into();
    asked["sessionID"] = "s".into();
    let list = vec![
        (
            "agent.started",
            json!({ "generation": 3, "runtime": "opencode", "version": "1", "session": "s", "resumed": true, "directory": "/d" }),
        ),
        ("wrapper.resumed", json!({ "generation": 4, "detail": "took over" })),
        (
            "session.created",
            json!({ "sessionID": "s", "info": { "id": "s", "title": "t", "directory": "/d", "time": { "created": 1 } } }),
        ),
        (
            "message.updated",
            json!({ "sessionID": "s", "info": { "id": "msg_1", "sessionID": "s", "role": "user", "time": { "created": 2 } } }),
        ),
        (
            "message.part.updated",
            json!({ "sessionID": "s", "part": { "id": "p1", "messageID": "msg_1", "sessionID": "s", "type": "text", "text": "# do\n`it`" } }),
        ),
        (
            "message.updated",
            json!({ "sessionID": "s", "info": { "id": "msg_2", "sessionID": "s", "role": "assistant", "modelID": "m", "time": { "created": 3 } } }),
        ),
        tool(
            "t01",
            "grep",
            done(
                json!({ "pattern": "x", "path": "/d" }),
                "/d/a.rs:\n  Line 3: x\nplain",
                json!({ "matches": 1 }),
            ),
        ),
        tool("t02", "read", done(json!({ "filePath": "/d/a.rs" }), "x", json!({ "preview": "fn x() {}" }))),
        tool(
            "t03",
            "read",
            json!({ "status": "running", "input": { "filePath": "/d/b.rs" }, "time": { "start": 1 } }),
        ),
        tool(
            "t03",
            "read",
            json!({ "status": "error", "input": { "filePath": "/d/b.rs" }, "error": "not there", "time": { "start": 1, "end": 2 } }),
        ),
        tool("t04", "glob", done(json!({ "pattern": "*.rs" }), "a.rs", json!({ "count": 1 }))),
        tool(
            "t05",
            "webfetch",
            done(json!({ "url": "https://a.example" }), "[x](https://b.example)", json!({})),
        ),
        tool("t06", "mail_send", done(json!({ "to": "heron", "n": 3, "list": ["a"] }), "sent", json!({}))),
        tool("t07", "question", done(question, "", json!({ "answers": [["a"], ["own"]] }))),
        tool(
            "t08",
            "multiedit",
            done(json!({ "filePath": "/d/a.rs", "oldString": "a b c", "newString": "a x c" }), "", json!({})),
        ),
        tool(
            "t09",
            "write",
            done(json!({ "filePath": "/d/n.rs", "content": "fn n() {}" }), "", json!({ "exists": false })),
        ),
        tool(
            "t10",
            "bash",
            json!({ "status": "running", "input": { "command": "ls", "description": "List" }, "metadata": { "output": "\u{1b}[31ma" }, "time": { "start": 1 } }),
        ),
        tool(
            "t11",
            "task",
            json!({ "status": "running", "input": { "description": "look", "subagent_type": "general", "prompt": "p" }, "time": { "start": 1 } }),
        ),
        (
            "session.created",
            json!({ "sessionID": "c", "info": { "id": "c", "parentID": "s", "title": "child", "time": { "created": 4 } } }),
        ),
        (
            "message.updated",
            json!({ "sessionID": "c", "info": { "id": "msg_3", "sessionID": "c", "role": "assistant", "time": { "created": 5 } } }),
        ),
        (
            "message.part.updated",
            json!({ "sessionID": "c", "part": { "id": "p3", "messageID": "msg_3", "sessionID": "c", "type": "text", "text": "" } }),
        ),
        (
            "message.part.delta",
            json!({ "sessionID": "c", "messageID": "msg_3", "partID": "p3", "field": "text", "delta": "One\n\nTwo" }),
        ),
        tool(
            "t11",
            "task",
            json!({ "status": "running", "input": { "description": "look", "subagent_type": "general" }, "metadata": { "sessionId": "c" }, "time": { "start": 1 } }),
        ),
        (
            "session.error",
            json!({ "sessionID": "c", "error": { "name": "APIError", "data": { "message": "bad", "statusCode": 400 } } }),
        ),
        part("p20", json!({ "type": "file", "mime": "image/png", "filename": "a.png", "url": "data:x" })),
        part("p21", json!({ "type": "subtask", "prompt": "p", "description": "d", "agent": "general" })),
        part("p22", json!({ "type": "agent", "name": "plan" })),
        part(
            "p23",
            json!({ "type": "retry", "attempt": 2, "error": { "name": "APIError", "data": { "message": "slow down" } } }),
        ),
        part("p24", json!({ "type": "compaction", "auto": true })),
        part("p25", json!({ "type": "hologram", "depth": 3, "note": "of a newer server" })),
        part("p26", json!({ "type": "reasoning", "text": "" })),
        (
            "message.part.delta",
            json!({ "sessionID": "s", "messageID": "msg_2", "partID": "p26", "field": "text", "delta": "I think" }),
        ),
        part("p26", json!({ "type": "reasoning", "text": "I think\nso", "time": { "start": 1, "end": 2 } })),
        part("p27", json!({ "type": "text", "text": "half a", "metadata": { "interrupted": true } })),
        (
            "session.status",
            json!({ "sessionID": "s", "status": { "type": "retry", "attempt": 2, "message": "Rate limit", "next": 1_795_199_100_000_i64 } }),
        ),
        (
            "permission.asked",
            json!({ "id": "per_1", "sessionID": "s", "permission": "edit", "patterns": ["a"], "always": ["*"],
            "metadata": { "filepath": "/d/a.rs", "diff": "@@ -1,1 +1,1 @@\n-a\n+b\n" } }),
        ),
        ("question.asked", asked),
        ("session.network.asked", json!({ "id": "que_2", "sessionID": "s", "message": "reset" })),
        ("session.status", json!({ "sessionID": "s", "status": { "type": "offline", "message": "reset" } })),
        ("session.network.replied", json!({ "sessionID": "s", "requestID": "que_2" })),
        ("question.rejected", json!({ "sessionID": "s", "requestID": "que_1" })),
        ("permission.replied", json!({ "sessionID": "s", "requestID": "per_1", "reply": "always" })),
        ("session.status", json!({ "sessionID": "s", "status": { "type": "idle" } })),
        (
            "todo.updated",
            json!({ "sessionID": "s", "todos": [{ "content": "x", "status": "cancelled", "priority": "high" }] }),
        ),
        ("wrapper.events_dropped", json!({ "from": 3, "to": 9, "reason": "disk full" })),
        ("wrapper.lost", json!({ "since": "2026-11-20T18:10:16.123Z" })),
        (
            "session.error",
            json!({ "sessionID": "s", "error": { "name": "MessageAbortedError", "data": { "message": "Aborted" } } }),
        ),
        (
            "message.updated",
            json!({ "sessionID": "s", "info": { "id": "msg_2", "sessionID": "s", "role": "assistant", "time": { "created": 3, "completed": 9 },
            "error": { "name": "MessageAbortedError", "data": { "message": "Aborted" } } } }),
        ),
        (
            "wrapper.workspace.ready",
            json!({ "branch": "gt/toast/work", "commit": "0f1e", "base": "main", "rescued": ["refs/gastown/rescue/toast/1"], "stale": "no route" }),
        ),
        ("wrapper.session_recreated", json!({ "lost": "s0", "session": "s", "summarised": true })),
        ("wrapper.auto_commit.started", json!({ "branch": "gt/toast/work", "paths": 3 })),
        (
            "wrapper.auto_commit.completed",
            json!({ "hash": "a1b2c3d4e5f6", "branch": "gt/toast/work", "subject": "Brown the toast", "pushed": true, "upstream": "origin/gt/toast/work" }),
        ),
        (
            "wrapper.auto_commit.completed",
            json!({ "hash": "b2c3", "branch": "gt/toast/work", "subject": "Butter it", "hooks_skipped": "lint failed", "pushed": false,
            "upstream": "origin/main", "not_pushed": "rejected", "detail": "fetch first" }),
        ),
        ("wrapper.auto_commit.skipped", json!({ "reason": "default_branch" })),
        ("wrapper.auto_commit.failed", json!({ "message": "no space left" })),
        ("wrapper.auto_commit.started", json!({ "branch": "gt/toast/work", "paths": 1 })),
        ("wrapper.condense.started", json!({})),
        ("wrapper.condense.completed", json!({})),
        ("wrapper.condense.skipped", json!({ "reason": "unsupported" })),
        ("wrapper.condense.failed", json!({ "message": "no model" })),
        ("agent.done", json!({ "summary": "all is done" })),
        (
            "agent.failed",
            json!({ "message": "it died: start it again", "exit_code": 101, "stderr": ["a", "\u{1b}[31mb"] }),
        ),
        ("agent.exited", json!({ "reason": "stopped", "code": 0 })),
    ];
    let at = |n: usize, (kind, data): (&str, Value)| {
        let data = RawData::of(&data).unwrap();
        let session = session_of(kind, data.json());
        let time = Timestamp::from_unix_ms(1_795_199_000_000 + n as i64);
        NewEvent { time, kind: kind.into(), session, data }.at(Seq::new(n as u64 * 2 + 1))
    };
    list.into_iter().enumerate().map(|(n, event)| at(n, event)).collect()
}

fn events(recording: &str) -> Vec<Event> {
    let mut events = Vec::new();
    for line in recording.lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        let (Some(t_ms), Some(event)) = (line["t_ms"].as_f64(), line["event"].as_object()) else { continue };
        let kind = event["type"].as_str().unwrap();
        if protocol::Class::of(kind) == protocol::Class::Volatile {
            continue;
        }
        let data = RawData::of(&event["properties"]).unwrap();
        let session = session_of(kind, data.json());
        #[expect(clippy::cast_possible_truncation, reason = "recordings are minutes long")]
        let time = Timestamp::from_unix_ms(1_795_199_000_000 + t_ms as i64);
        let new = NewEvent { time, kind: kind.into(), session, data };
        events.push(new.at(Seq::new(events.len() as u64 * 3 + 5)));
    }
    events
}
