//! Which sessions of a server belong to the agent: its root session and everything below it by `parentID` (§2).

use std::{collections::BTreeSet, sync::Arc};

use protocol::{Class, NewEvent};
use serde::Deserialize;

/// The sessions of one agent. It learns children from the events that make them.
#[derive(Debug, Clone, Default)]
pub(crate) struct SessionTree {
    root: Option<Arc<str>>,
    members: BTreeSet<Arc<str>>,
}

impl SessionTree {
    /// A tree of this root, with nothing below it yet.
    pub(crate) fn of_root(root: &str) -> Self {
        let root: Arc<str> = root.into();
        Self { members: BTreeSet::from([root.clone()]), root: Some(root) }
    }

    /// The root session, once there is one.
    pub(crate) fn root(&self) -> Option<&str> {
        self.root.as_deref()
    }

    /// Whether this session belongs to the agent.
    pub(crate) fn holds(&self, session: &str) -> bool {
        self.members.contains(session)
    }

    /// Takes a session in, if its parent belongs to the agent.
    pub(crate) fn learn(&mut self, session: &str, parent: Option<&str>) {
        if parent.is_some_and(|parent| self.holds(parent)) {
            self.members.insert(session.into());
        }
    }

    /// Whether an event is to be forwarded; learns from it.
    pub(crate) fn admit(&mut self, event: &NewEvent) -> bool {
        if Class::of(&event.kind) == Class::Volatile {
            return false;
        }
        let Some(session) = event.session.as_deref() else { return true };
        if matches!(&*event.kind, "session.created" | "session.updated")
            && let Ok(Described { info }) = event.data.parse()
        {
            self.learn(session, info.parent_id.as_deref());
        }
        self.holds(session)
    }
}

#[derive(Deserialize)]
struct Described {
    info: Info,
}

#[derive(Deserialize)]
struct Info {
    #[serde(default, rename = "parentID")]
    parent_id: Option<String>,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::event;

    #[test]
    fn only_the_root_and_what_is_below_it_is_forwarded() {
        let mut tree = SessionTree::of_root("ses_root");
        assert!(tree.admit(&idle("ses_root")));
        assert!(!tree.admit(&idle("ses_child")), "nobody said yet whose it is");
        assert!(tree.admit(&created("ses_child", Some("ses_root"))));
        assert!(tree.admit(&idle("ses_child")));
        assert!(tree.admit(&created("ses_grandchild", Some("ses_child"))));
        assert!(tree.admit(&idle("ses_grandchild")));
        assert!(!tree.admit(&created("ses_other", None)));
        assert!(!tree.admit(&created("ses_others_child", Some("ses_other"))));
        assert!(!tree.admit(&idle("ses_others_child")));
    }

    #[test]
    fn sessionless_events_are_forwarded_unless_volatile() {
        let mut tree = SessionTree::of_root("ses_root");
        assert!(tree.admit(&event("file.edited", r#"{"file":"/a"}"#)));
        assert!(tree.admit(&event("something.new", "{}")));
        assert!(!tree.admit(&event("server.heartbeat", "{}")));
        assert!(!tree.admit(&event("file.watcher.updated", r#"{"file":"/a"}"#)));
    }

    #[test]
    fn a_volatile_event_of_an_own_session_is_not_forwarded() {
        let mut tree = SessionTree::of_root("ses_root");
        assert!(!tree.admit(&event("sandbox.status.changed", r#"{"sessionID":"ses_root"}"#)));
    }

    proptest! {
        /// Whatever the forest: exactly the descendants of the root belong to the agent.
        #[test]
        fn exactly_the_descendants_belong(parents in proptest::collection::vec(any::<prop::sample::Index>(), 1..40)) {
            let mut tree = SessionTree::of_root("s0");
            // Session 0 is the root, session 1 a stranger; each later one hangs below an earlier one.
            let mut mine = vec![true, false];
            tree.admit(&created("s1", None));
            for (i, parent) in parents.iter().enumerate() {
                let (id, parent) = (i + 2, parent.index(i + 2));
                tree.admit(&created(&format!("s{id}"), Some(&format!("s{parent}"))));
                mine.push(mine[parent]);
            }
            for (id, mine) in mine.into_iter().enumerate() {
                prop_assert_eq!(tree.holds(&format!("s{id}")), mine);
            }
        }
    }

    fn idle(session: &str) -> NewEvent {
        event("session.idle", &format!(r#"{{"sessionID":"{session}"}}"#))
    }

    fn created(session: &str, parent: Option<&str>) -> NewEvent {
        let info = serde_json::json!({ "id": session, "parentID": parent });
        event("session.created", &serde_json::json!({ "info": info }).to_string())
    }
}
