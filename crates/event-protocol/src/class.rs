//! The one classifier: what the log needs to know of an event, from its type (§3).

use std::{borrow::Cow, fmt, sync::Arc};

use serde::{Deserialize, Serialize};

/// How an event may be treated on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// What something is by now.
    State,
    /// A piece to append to what the key names; worthless once the whole is there.
    Delta,
    /// How something ended: never dropped.
    Outcome,
    /// Neither stored nor sent; a sign of life.
    Volatile,
}

/// What an event does to earlier events of its log with the same key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// Nothing.
    Append,
    /// Makes every one of them obsolete.
    Replace,
    /// Makes every one obsolete whose key is this key or lies below it (see [`Key::covers`]), and stays as a tombstone.
    Remove,
}

/// The entity an event speaks of: `part/<msg>/<prt>`, `session/<id>`, …
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(transparent)]
pub struct Key(Arc<str>);

impl Key {
    /// A key of this text.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self(text.into())
    }

    /// The key as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// What the log needs to know of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Classified {
    /// How it may be treated.
    pub class: Class,
    /// The entity it speaks of.
    pub key: Option<Key>,
    /// What it does to earlier events with that key.
    pub effect: Effect,
}

impl Key {
    /// Whether a removal of this key takes `other` with it: the same key, or one below it. A message's parts lie below
    /// the message (`message/m` covers `part/m/p`), and so does everything of a session below the session
    /// (`session/s` covers `status/s`, `todo/s`, …; its messages and parts carry no session in their keys, so that a
    /// log compares their events' `session` too).
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        if self == other {
            return true;
        }
        let Some((kind, id)) = self.0.split_once('/') else { return false };
        let Some((other_kind, other_id)) = other.0.split_once('/') else { return false };
        match kind {
            "message" => other_kind == "part" && other_id.split('/').next() == Some(id),
            "session" => {
                matches!(other_kind, "status" | "turn" | "diff" | "todo" | "queue") && other_id == id
            }
            _ => false,
        }
    }
}

/// Where a type's key comes from.
#[derive(Debug, Clone, Copy)]
enum KeyFrom {
    /// It has none.
    None,
    /// `<prefix>/<session>`.
    Session(&'static str),
    /// `session/<info.id or sessionID>`.
    SessionInfo,
    /// `message/<info.id>` or `message/<messageID>`.
    Message,
    /// `part/<part.messageID>/<part.id>` or `part/<messageID>/<partID>`.
    Part,
    /// `<prefix>/<id or requestID>`.
    Request(&'static str),
    /// This one.
    Fixed(&'static str),
}

/// One row of the table of §3. A type that ends in `.*` stands for all below it.
struct Row(&'static str, Class, KeyFrom, Effect);

/// The table of §3. The first row that matches counts; a type without a row is `state`, no key, `append`.
#[rustfmt::skip]
const TABLE: &[Row] = &[
    Row("message.part.delta", Class::Delta, KeyFrom::Part, Effect::Append),
    Row("message.part.updated", Class::State, KeyFrom::Part, Effect::Replace),
    Row("message.part.removed", Class::State, KeyFrom::Part, Effect::Remove),
    Row("message.updated", Class::State, KeyFrom::Message, Effect::Replace),
    Row("message.removed", Class::State, KeyFrom::Message, Effect::Remove),
    Row("session.created", Class::State, KeyFrom::SessionInfo, Effect::Replace),
    Row("session.updated", Class::State, KeyFrom::SessionInfo, Effect::Replace),
    Row("session.deleted", Class::State, KeyFrom::SessionInfo, Effect::Remove),
    Row("session.status", Class::State, KeyFrom::Session("status"), Effect::Replace),
    Row("session.idle", Class::State, KeyFrom::Session("turn"), Effect::Replace),
    Row("session.compacted", Class::State, KeyFrom::Session("turn"), Effect::Replace),
    Row("session.turn.open", Class::State, KeyFrom::Session("turn"), Effect::Replace),
    Row("session.turn.close", Class::Outcome, KeyFrom::None, Effect::Append),
    Row("session.error", Class::Outcome, KeyFrom::None, Effect::Append),
    Row("session.diff", Class::State, KeyFrom::Session("diff"), Effect::Replace),
    Row("session.queue.changed", Class::State, KeyFrom::Session("queue"), Effect::Replace),
    Row("session.network.asked", Class::State, KeyFrom::Request("network"), Effect::Replace),
    Row("session.network.replied", Class::State, KeyFrom::Request("network"), Effect::Replace),
    Row("session.network.rejected", Class::State, KeyFrom::Request("network"), Effect::Replace),
    Row("permission.asked", Class::State, KeyFrom::Request("permission"), Effect::Replace),
    Row("permission.replied", Class::State, KeyFrom::Request("permission"), Effect::Replace),
    Row("question.asked", Class::State, KeyFrom::Request("question"), Effect::Replace),
    Row("question.replied", Class::State, KeyFrom::Request("question"), Effect::Replace),
    Row("question.rejected", Class::State, KeyFrom::Request("question"), Effect::Replace),
    Row("todo.updated", Class::State, KeyFrom::Session("todo"), Effect::Replace),
    Row("agent.status", Class::State, KeyFrom::Fixed("agent/status"), Effect::Replace),
    Row("agent.usage", Class::State, KeyFrom::Fixed("agent/usage"), Effect::Replace),
    Row("agent.started", Class::Outcome, KeyFrom::None, Effect::Append),
    Row("agent.exited", Class::Outcome, KeyFrom::None, Effect::Append),
    Row("agent.failed", Class::Outcome, KeyFrom::None, Effect::Append),
    Row("agent.done", Class::Outcome, KeyFrom::None, Effect::Append),
    Row("wrapper.resumed", Class::Outcome, KeyFrom::None, Effect::Append),
    Row("wrapper.lost", Class::Outcome, KeyFrom::None, Effect::Append),
    Row("wrapper.events_dropped", Class::Outcome, KeyFrom::None, Effect::Append),
    Row("wrapper.session_recreated", Class::Outcome, KeyFrom::None, Effect::Append),
    Row("wrapper.auto_commit.completed", Class::Outcome, KeyFrom::None, Effect::Append),
    Row("wrapper.auto_commit.skipped", Class::Outcome, KeyFrom::None, Effect::Append),
    Row("wrapper.auto_commit.failed", Class::Outcome, KeyFrom::None, Effect::Append),
    Row("wrapper.condense.completed", Class::Outcome, KeyFrom::None, Effect::Append),
    Row("wrapper.condense.skipped", Class::Outcome, KeyFrom::None, Effect::Append),
    Row("wrapper.condense.failed", Class::Outcome, KeyFrom::None, Effect::Append),
    Row("wrapper.auto_commit.started", Class::State, KeyFrom::None, Effect::Append),
    Row("wrapper.condense.started", Class::State, KeyFrom::None, Effect::Append),
    Row("wrapper.workspace.ready", Class::State, KeyFrom::None, Effect::Append),
    Row("agent.registered", Class::State, KeyFrom::None, Effect::Append),
    Row("file.edited", Class::State, KeyFrom::None, Effect::Append),
    Row("vcs.branch.updated", Class::State, KeyFrom::None, Effect::Append),
    Row("command.executed", Class::State, KeyFrom::None, Effect::Append),
    Row("session.drain.interrupted", Class::State, KeyFrom::None, Effect::Append),
    Row("worktree.*", Class::State, KeyFrom::None, Effect::Append),
    Row("pty.created", Class::State, KeyFrom::None, Effect::Append),
    Row("pty.updated", Class::State, KeyFrom::None, Effect::Append),
    Row("pty.exited", Class::State, KeyFrom::None, Effect::Append),
    Row("pty.deleted", Class::State, KeyFrom::None, Effect::Append),
    Row("mcp.*", Class::State, KeyFrom::None, Effect::Append),
    Row("server.connected", Class::Volatile, KeyFrom::None, Effect::Append),
    Row("server.heartbeat", Class::Volatile, KeyFrom::None, Effect::Append),
    Row("server.instance.disposed", Class::Volatile, KeyFrom::None, Effect::Append),
    Row("global.disposed", Class::Volatile, KeyFrom::None, Effect::Append),
    Row("file.watcher.updated", Class::Volatile, KeyFrom::None, Effect::Append),
    Row("lsp.*", Class::Volatile, KeyFrom::None, Effect::Append),
    Row("installation.*", Class::Volatile, KeyFrom::None, Effect::Append),
    Row("tui.*", Class::Volatile, KeyFrom::None, Effect::Append),
    Row("project.updated", Class::Volatile, KeyFrom::None, Effect::Append),
    Row("sync", Class::Volatile, KeyFrom::None, Effect::Append),
    Row("plugin.added", Class::Volatile, KeyFrom::None, Effect::Append),
    Row("catalog.updated", Class::Volatile, KeyFrom::None, Effect::Append),
    Row("reference.updated", Class::Volatile, KeyFrom::None, Effect::Append),
    Row("integration.updated", Class::Volatile, KeyFrom::None, Effect::Append),
    Row("global.config.updated", Class::Volatile, KeyFrom::None, Effect::Append),
    Row("sandbox.status.changed", Class::Volatile, KeyFrom::None, Effect::Append),
    Row("workspace.*", Class::Volatile, KeyFrom::None, Effect::Append),
    Row("indexing.*", Class::Volatile, KeyFrom::None, Effect::Append),
];

/// Every type that the table names; one that ends in `.*` stands for all below it.
pub fn named_types() -> impl Iterator<Item = &'static str> {
    TABLE.iter().map(|row| row.0)
}

fn row(kind: &str) -> &'static Row {
    const OTHER: &Row = &Row("*", Class::State, KeyFrom::None, Effect::Append);
    TABLE
        .iter()
        .find(|row| match row.0.strip_suffix('*') {
            Some(prefix) => kind.starts_with(prefix),
            None => row.0 == kind,
        })
        .unwrap_or(OTHER)
}

impl Class {
    /// The class of a type (§3).
    #[must_use]
    pub fn of(kind: &str) -> Self {
        row(kind).1
    }

    /// Whether the table names this type, rather than its last row.
    #[must_use]
    pub fn is_named(kind: &str) -> bool {
        row(kind).0 != "*"
    }
}

impl Effect {
    /// The effect of a type (§3).
    #[must_use]
    pub fn of(kind: &str) -> Self {
        row(kind).3
    }
}

/// The fields of a payload that keys and sessions come from. Other fields are skipped without being kept.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Ids<'a> {
    #[serde(borrow)]
    id: Option<Cow<'a, str>>,
    #[serde(borrow, rename = "sessionID")]
    session_id: Option<Cow<'a, str>>,
    #[serde(borrow, rename = "messageID")]
    message_id: Option<Cow<'a, str>>,
    #[serde(borrow, rename = "partID")]
    part_id: Option<Cow<'a, str>>,
    #[serde(borrow, rename = "requestID")]
    request_id: Option<Cow<'a, str>>,
    #[serde(borrow)]
    info: Option<Box<Self>>,
    #[serde(borrow)]
    part: Option<Box<Self>>,
}

/// What the log needs to know of an event: a payload without the ids that its type's key is made of has no key, and is
/// then never made obsolete.
#[must_use]
pub fn classify(kind: &str, session: Option<&str>, data: &str) -> Classified {
    let &Row(_, class, from, effect) = row(kind);
    let key = match from {
        KeyFrom::None => None,
        KeyFrom::Fixed(key) => Some(Key::new(key)),
        KeyFrom::Session(prefix) => match session {
            Some(session) => Some(join(&[prefix, session])),
            None => parse(data).and_then(|ids| Some(join(&[prefix, ids.session_id.as_deref()?]))),
        },
        KeyFrom::SessionInfo | KeyFrom::Message | KeyFrom::Part | KeyFrom::Request(_) => {
            parse(data).and_then(|ids| key_of(from, &ids))
        }
    };
    let effect = if key.is_none() { Effect::Append } else { effect };
    Classified { class, key, effect }
}

/// The session a payload speaks of (§2), in the order: `sessionID`, `info.sessionID`, `part.sessionID`, and for
/// `session.*` `info.id`.
#[must_use]
pub fn session_of(kind: &str, data: &str) -> Option<Arc<str>> {
    let ids = parse(data)?;
    let info = ids.info.as_deref();
    let found = ids
        .session_id
        .as_deref()
        .or_else(|| info.and_then(|i| i.session_id.as_deref()))
        .or_else(|| ids.part.as_deref().and_then(|p| p.session_id.as_deref()))
        .or_else(|| if kind.starts_with("session.") { info.and_then(|i| i.id.as_deref()) } else { None })?;
    Some(found.into())
}

fn parse(data: &str) -> Option<Ids<'_>> {
    serde_json::from_str(data).ok()
}

fn key_of(from: KeyFrom, ids: &Ids<'_>) -> Option<Key> {
    let info = ids.info.as_deref();
    let part = ids.part.as_deref();
    Some(match from {
        KeyFrom::SessionInfo => {
            join(&["session", info.and_then(|i| i.id.as_deref()).or(ids.session_id.as_deref())?])
        }
        KeyFrom::Message => {
            join(&["message", info.and_then(|i| i.id.as_deref()).or(ids.message_id.as_deref())?])
        }
        KeyFrom::Part => match part {
            Some(part) => join(&["part", part.message_id.as_deref()?, part.id.as_deref()?]),
            None => join(&["part", ids.message_id.as_deref()?, ids.part_id.as_deref()?]),
        },
        KeyFrom::Request(prefix) => join(&[prefix, ids.request_id.as_deref().or(ids.id.as_deref())?]),
        KeyFrom::None | KeyFrom::Fixed(_) | KeyFrom::Session(_) => return None,
    })
}

fn join(parts: &[&str]) -> Key {
    Key::new(&parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_covers_its_parts_and_nothing_else() {
        assert!(covers("message/m", "message/m"));
        assert!(covers("message/m", "part/m/p"));
        for other in ["part/mm/p", "part/n/m", "message/mm", "part/m", "session/m", "m", ""] {
            assert_eq!(covers("message/m", other), other == "part/m", "{other}");
        }
    }

    #[test]
    fn a_session_covers_what_is_kept_under_its_id() {
        for kind in ["session", "status", "turn", "diff", "todo", "queue"] {
            assert!(covers("session/s", &format!("{kind}/s")), "{kind}");
            assert!(!covers("session/s", &format!("{kind}/s2")), "{kind}");
        }
        for other in ["message/s", "part/s/s", "permission/s", "agent/status", "network/s"] {
            assert!(!covers("session/s", other), "{other}");
        }
    }

    #[test]
    fn other_keys_cover_themselves_only() {
        for key in ["part/m/p", "permission/p", "agent/status", "odd", ""] {
            assert!(covers(key, key), "{key}");
            assert!(!covers(key, "part/m/other"), "{key}");
        }
    }

    #[test]
    fn old_and_new_servers_give_the_same_keys_and_sessions() {
        let cases = [
            (
                "session.updated",
                r#"{"info":{"id":"s"}}"#,
                r#"{"sessionID":"s","info":{"id":"s"}}"#,
                "session/s",
            ),
            (
                "message.updated",
                r#"{"info":{"id":"m","sessionID":"s"}}"#,
                r#"{"sessionID":"s","info":{"id":"m","sessionID":"s"}}"#,
                "message/m",
            ),
            (
                "message.part.updated",
                r#"{"part":{"id":"p","messageID":"m","sessionID":"s"}}"#,
                r#"{"sessionID":"s","part":{"id":"p","messageID":"m","sessionID":"s"},"time":1}"#,
                "part/m/p",
            ),
        ];
        for (kind, old, new, key) in cases {
            for data in [old, new] {
                let session = session_of(kind, data);
                assert_eq!(session.as_deref(), Some("s"), "{kind} {data}");
                assert_eq!(
                    classify(kind, session.as_deref(), data).key,
                    Some(Key::new(key)),
                    "{kind} {data}"
                );
            }
        }
    }

    #[test]
    fn an_answer_has_the_key_of_what_was_asked() {
        let asked = classify("permission.asked", None, r#"{"id":"per_1"}"#);
        let replied = classify("permission.replied", None, r#"{"id":"evt_9","requestID":"per_1"}"#);
        assert_eq!(asked.key, replied.key);
        assert_eq!(replied.effect, Effect::Replace);
    }

    #[test]
    fn an_id_of_info_is_a_session_only_where_info_is_one() {
        assert_eq!(session_of("session.updated", r#"{"info":{"id":"s"}}"#).as_deref(), Some("s"));
        assert_eq!(session_of("message.updated", r#"{"info":{"id":"m"}}"#), None);
    }

    #[test]
    fn without_its_ids_an_event_has_no_key_and_no_effect() {
        for data in ["{}", "null", "7", r#"{"part":{"id":"p"}}"#, r#"{"part":[]}"#, "not json", ""] {
            let classified = classify("message.part.updated", None, data);
            assert_eq!((classified.key, classified.effect), (None, Effect::Append), "{data}");
        }
    }

    #[test]
    fn ids_with_escapes_are_read() {
        let data = r#"{"messageID":"m\u0031","partID":"p\"","field":"text","delta":""}"#;
        assert_eq!(classify("message.part.delta", None, data).key, Some(Key::new("part/m1/p\"")));
    }

    #[test]
    fn a_type_without_a_row_is_kept_as_state() {
        let classified = classify("session.next.levitated", Some("s"), "{}");
        assert_eq!(classified, Classified { class: Class::State, key: None, effect: Effect::Append });
        assert!(!Class::is_named("session.next.levitated"));
    }

    #[test]
    fn a_glob_needs_the_dot_and_something_after_it() {
        assert_eq!(Class::of("lsp.client.diagnostics"), Class::Volatile);
        assert_eq!(Class::of("lspx.updated"), Class::State);
        assert!(!Class::is_named("mcpx"));
    }

    #[test]
    fn outcomes_have_neither_key_nor_replacement() {
        for Row(kind, class, from, effect) in TABLE {
            if *class == Class::Outcome {
                assert!(matches!(from, KeyFrom::None) && *effect == Effect::Append, "{kind}");
            }
        }
    }

    fn covers(key: &str, other: &str) -> bool {
        Key::new(key).covers(&Key::new(other))
    }
}
