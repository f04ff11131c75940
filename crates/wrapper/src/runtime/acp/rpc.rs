//! JSON-RPC 2.0 as the Agent Client Protocol frames it: one message a line, UTF-8, no batches.

use serde::Deserialize;
use serde_json::{Value, json};

/// The agent or this client does not know the method.
pub(super) const METHOD_NOT_FOUND: i64 = -32601;
/// The parameters make no sense.
pub(super) const INVALID_PARAMS: i64 = -32602;
/// Something else went wrong.
pub(super) const INTERNAL_ERROR: i64 = -32603;
/// The agent wants somebody to log in first (ACP).
pub(super) const AUTH_REQUIRED: i64 = -32000;

/// One message of the agent.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Incoming {
    /// It wants an answer under this id.
    Request {
        /// A string or a number, to be given back as it is.
        id: Value,
        /// What it wants.
        method: String,
        /// With what.
        params: Value,
    },
    /// It says something.
    Notification {
        /// What.
        method: String,
        /// With what.
        params: Value,
    },
    /// It answers a request.
    Response {
        /// The request's number.
        id: u64,
        /// The answer.
        result: Result<Value, RpcError>,
    },
}

/// Why a request was refused.
#[derive(Debug, Clone, PartialEq, Deserialize, thiserror::Error)]
#[error("{message} ({code})")]
pub(super) struct RpcError {
    /// JSON-RPC's or ACP's number.
    pub(super) code: i64,
    /// What it says.
    pub(super) message: String,
    /// More of it: agents put the reason there, often as `details`.
    #[serde(default)]
    pub(super) data: Value,
}

impl RpcError {
    pub(super) fn new(code: i64, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), data: Value::Null }
    }

    /// The message with the reason, where the agent gives one.
    pub(super) fn reason(&self) -> String {
        let details = self.data["details"].as_str().or_else(|| self.data["message"].as_str());
        match details.or_else(|| self.data.as_str()) {
            Some(details) if details != self.message => format!("{}: {details}", self.message),
            Some(_) | None => self.message.clone(),
        }
    }
}

/// Reads a line; nothing if it is no message (agents print other things too).
pub(super) fn parse(line: &[u8]) -> Option<Incoming> {
    let message: Message = serde_json::from_slice(line).ok()?;
    Some(match (message.method, message.id) {
        (Some(method), None | Some(Value::Null)) => Incoming::Notification { method, params: message.params },
        (Some(method), Some(id)) => Incoming::Request { id, method, params: message.params },
        (None, id) => {
            let result = message.error.map_or(Ok(message.result), Err);
            Incoming::Response { id: id?.as_u64()?, result }
        }
    })
}

/// A request, as a line.
pub(super) fn request(id: u64, method: &str, params: &Value) -> Vec<u8> {
    line(&json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params }))
}

/// Something said without an answer, as a line.
pub(super) fn notification(method: &str, params: &Value) -> Vec<u8> {
    line(&json!({ "jsonrpc": "2.0", "method": method, "params": params }))
}

/// The answer to a request of the agent, as a line.
pub(super) fn response(id: &Value, result: &Result<Value, RpcError>) -> Vec<u8> {
    line(&match result {
        Ok(result) => json!({ "jsonrpc": "2.0", "id": id, "result": result }),
        Err(error) => {
            let error = json!({ "code": error.code, "message": error.message });
            json!({ "jsonrpc": "2.0", "id": id, "error": error })
        }
    })
}

#[derive(Deserialize)]
struct Message {
    method: Option<String>,
    id: Option<Value>,
    #[serde(default)]
    params: Value,
    #[serde(default)]
    result: Value,
    error: Option<RpcError>,
}

fn line(message: &Value) -> Vec<u8> {
    let mut line = message.to_string().into_bytes();
    line.push(b'\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_three_kinds_of_message_are_told_apart() {
        let update = parse(br#"{"jsonrpc":"2.0","method":"session/update","params":{"a":1}}"#);
        assert_eq!(
            update,
            Some(Incoming::Notification { method: "session/update".to_owned(), params: json!({ "a": 1 }) })
        );
        let ask = parse(br#"{"jsonrpc":"2.0","id":"x","method":"fs/read_text_file","params":{}}"#);
        assert!(matches!(ask, Some(Incoming::Request { id, .. }) if id == "x"));
        let answer = parse(br#"{"jsonrpc":"2.0","id":3,"result":null}"#);
        assert_eq!(answer, Some(Incoming::Response { id: 3, result: Ok(Value::Null) }));
    }

    #[test]
    fn an_error_says_its_reason() {
        let line =
            br#"{"id":1,"error":{"code":-32603,"message":"Internal error","data":{"details":"no model"}}}"#;
        let Some(Incoming::Response { result: Err(error), .. }) = parse(line) else { panic!("a response") };
        assert_eq!(error.reason(), "Internal error: no model");
        assert_eq!(RpcError::new(1, "plain").reason(), "plain");
    }

    #[test]
    fn what_is_no_message_is_nothing() {
        for line in ["", "starting…", "[]", "{", r#"{"id":"not ours","result":1}"#, "\u{0}"] {
            assert_eq!(parse(line.as_bytes()), None, "{line:?}");
        }
    }

    #[test]
    fn what_is_sent_is_one_line_and_is_understood() {
        for sent in [
            request(7, "initialize", &json!({ "text": "two\nlines" })),
            notification("session/cancel", &json!({})),
            response(&json!(0), &Ok(json!({ "outcome": {} }))),
            response(&json!("a"), &Err(RpcError::new(METHOD_NOT_FOUND, "no"))),
        ] {
            assert_eq!(sent.iter().filter(|byte| **byte == b'\n').count(), 1);
            let own_id_is_text = sent.windows(8).any(|bytes| bytes == br#""id":"a""#);
            assert!(parse(&sent).is_some() || own_id_is_text);
        }
    }
}
