//! A permission that the agent asks for, and the answer it gets.

use protocol::PermissionReply;
use serde_json::{Value, json};

/// The answer that an open `session/request_permission` gets.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::runtime::acp) struct Outcome {
    /// The id of the agent's request.
    pub(in crate::runtime::acp) request: Value,
    /// Its result.
    pub(in crate::runtime::acp) result: Value,
}

/// A permission that waits for a person.
#[derive(Debug)]
pub(super) struct Ask {
    /// The agent's request.
    request: Value,
    /// The kinds of the options it offers, with their ids.
    options: Vec<(String, String)>,
}

impl Ask {
    /// The agent's `session/request_permission`.
    pub(super) fn new(request: Value, params: &Value) -> Self {
        let options = params["options"].as_array().into_iter().flatten();
        let options = options.filter_map(|option| {
            Some((option["kind"].as_str()?.to_owned(), option["optionId"].as_str()?.to_owned()))
        });
        Self { request, options: options.collect() }
    }

    /// Whether an option of this kind is offered.
    pub(super) fn offers(&self, kind: &str) -> bool {
        self.options.iter().any(|(offered, _)| offered == kind)
    }

    /// The answer that a person's reply comes to.
    pub(super) fn answered(self, reply: PermissionReply) -> Outcome {
        let option = match reply {
            PermissionReply::Once => self.option(&["allow_once", "allow_always"]),
            PermissionReply::Always => self.option(&["allow_always", "allow_once"]),
            PermissionReply::Reject => self.option(&["reject_once", "reject_always"]),
        };
        match option {
            Some(option) => {
                let result = json!({ "outcome": { "outcome": "selected", "optionId": option } });
                Outcome { request: self.request, result }
            }
            None => self.cancelled(),
        }
    }

    /// The answer when nobody is asked any more.
    pub(super) fn cancelled(self) -> Outcome {
        Outcome { request: self.request, result: json!({ "outcome": { "outcome": "cancelled" } }) }
    }

    /// The first option of the first of these kinds that is offered.
    fn option(&self, kinds: &[&str]) -> Option<&str> {
        let of = |kind: &&str| self.options.iter().find(|(offered, _)| offered == kind);
        kinds.iter().find_map(of).map(|(_, id)| id.as_str())
    }
}
