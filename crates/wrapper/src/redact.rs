//! What nobody is to read: in no line of the log, and in no event or answer of the wrapper's own (§9).
//!
//! What the agent itself says is not touched: its payloads are passed on as they are.

use std::{
    borrow::Cow,
    fmt,
    sync::{Arc, PoisonError, RwLock},
};

use protocol::{NewEvent, RawData};
use serde_json::Value;

/// What stands in a secret's place.
const HIDDEN: &str = "***";
/// What is shorter is no secret: it would be found in every line.
const SECRET_BYTES: usize = 8;
/// How the names of variables end that hold a secret.
const NAMES: &[&str] =
    &["API_KEY", "ACCESS_KEY", "SECRET_KEY", "PRIVATE_KEY", "TOKEN", "SECRET", "PASSWORD", "PASSWD"];

/// The secrets of a wrapper. Cheap to clone; all clones know the same.
#[derive(Clone, Default)]
pub(crate) struct Redactor(Arc<RwLock<Vec<String>>>);

impl Redactor {
    /// From here on this text is hidden; of one with several lines each line, since that is how texts are read.
    pub(crate) fn hide(&self, secret: &str) {
        let mut secrets = self.0.write().unwrap_or_else(PoisonError::into_inner);
        for secret in std::iter::once(secret).chain(secret.lines()).map(str::trim) {
            if secret.len() >= SECRET_BYTES && !secrets.iter().any(|hidden| hidden == secret) {
                // One that another one begins with is looked for after that.
                let at = secrets.partition_point(|hidden| hidden.len() >= secret.len());
                secrets.insert(at, secret.to_owned());
            }
        }
    }

    /// Hides the values of those variables whose names say that they are secret.
    pub(crate) fn hide_variables(&self, variables: impl IntoIterator<Item = (String, String)>) {
        for (_, value) in variables.into_iter().filter(|(name, _)| names_a_secret(name)) {
            self.hide(&value);
        }
    }

    /// A text as it may be shown.
    pub(crate) fn text<'t>(&self, text: &'t str) -> Cow<'t, str> {
        let secrets = self.0.read().unwrap_or_else(PoisonError::into_inner);
        secrets.iter().fold(Cow::Borrowed(text), |text, secret| {
            if text.contains(secret.as_str()) { text.replace(secret, HIDDEN).into() } else { text }
        })
    }

    /// Hides what is secret in an event of the wrapper's own, or in an error's words, which may be anybody's.
    pub(crate) fn event(&self, event: &mut NewEvent) {
        let is_ours = event.kind.starts_with("agent.") || event.kind.starts_with("wrapper.");
        if !is_ours && &*event.kind != "session.error" {
            return;
        }
        if let Ok(mut data) = event.data.parse::<Value>()
            && self.value(&mut data)
        {
            event.data = RawData::of(&data).expect("a JSON value serialises");
        }
    }

    /// Returns whether anything was hidden in it.
    fn value(&self, value: &mut Value) -> bool {
        match value {
            Value::String(text) => {
                let Cow::Owned(shown) = self.text(text) else { return false };
                *text = shown;
                true
            }
            // Each of them, not as far as the first.
            Value::Array(values) => values.iter_mut().fold(false, |hid, value| self.value(value) | hid),
            Value::Object(fields) => fields.values_mut().fold(false, |hid, value| self.value(value) | hid),
            Value::Null | Value::Bool(_) | Value::Number(_) => false,
        }
    }
}

impl fmt::Debug for Redactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Redactor(…)")
    }
}

fn names_a_secret(name: &str) -> bool {
    let name = name.to_ascii_uppercase();
    NAMES
        .iter()
        .any(|word| name.strip_suffix(word).is_some_and(|rest| rest.is_empty() || rest.ends_with('_')))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::event;

    #[test]
    fn p19_a_secret_is_hidden_whole_wherever_it_stands() {
        let secrets = hiding(&["canary-secret", "canary-secret-and-more", "on"]);
        assert_eq!(secrets.text("canary-secret-and-more is on, canary-secret\n"), "*** is on, ***\n");
        assert_eq!(format!("{secrets:?}"), "Redactor(…)");
    }

    #[test]
    fn p19_each_line_of_a_key_is_hidden() {
        let secrets = hiding(&["-----BEGIN-----\nc2VjcmV0\n-----END-----\n"]);
        assert_eq!(secrets.text("it read c2VjcmV0 there"), "it read *** there");
    }

    #[test]
    fn p19_an_event_of_the_wrappers_own_has_no_secret_also_where_json_writes_it_otherwise() {
        let secrets = hiding(&["say \"canary\""]);
        let data = r#"{"message":"it died","stderr":["no say \"canary\"","again say \"canary\""]}"#;
        for kind in ["agent.failed", "wrapper.auto_commit.failed", "session.error"] {
            let mut failed = event(kind, data);
            secrets.event(&mut failed);
            let shown: Value = failed.data.parse().unwrap();
            let hidden = serde_json::json!({ "message": "it died", "stderr": ["no ***", "again ***"] });
            assert_eq!(shown, hidden, "{kind}");
        }
        let mut said = event("message.part.updated", data);
        secrets.event(&mut said);
        assert_eq!(said.data.json(), data, "the agent's own payload is passed on as it is");
    }

    #[test]
    fn p19_variables_that_are_named_like_secrets_are() {
        let variable = |name: &str| (name.to_owned(), format!("value-of-{name}"));
        let secrets = Redactor::default();
        let names =
            ["ANTHROPIC_API_KEY", "AWS_SECRET_ACCESS_KEY", "GH_TOKEN", "token", "DB_PASSWORD", "APP_SECRET"];
        secrets.hide_variables(names.map(variable));
        for name in names {
            assert_eq!(secrets.text(&variable(name).1), HIDDEN, "{name}");
        }
        let others = ["PATH", "SSH_AUTH_SOCK", "TOKENS", "KEYBOARD", "GOOGLE_APPLICATION_CREDENTIALS"];
        secrets.hide_variables(others.map(variable));
        for name in others {
            assert_eq!(secrets.text(&variable(name).1), variable(name).1);
        }
    }

    fn hiding(secrets: &[&str]) -> Redactor {
        let redactor = Redactor::default();
        secrets.iter().for_each(|secret| redactor.hide(secret));
        redactor
    }
}
