//! ACP content blocks and the parts of messages: what an agent is given, and what it says.

use serde_json::{Value, json};

/// What a prompt to this agent may hold besides text and links.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct PromptCapabilities {
    /// Pictures.
    pub(super) image: bool,
    /// Recordings.
    pub(super) audio: bool,
    /// Files with their content.
    pub(super) embedded: bool,
}

impl PromptCapabilities {
    /// As `initialize` says them.
    pub(super) fn of(capabilities: &Value) -> Self {
        let can = |name: &str| capabilities[name].as_bool().unwrap_or(false);
        Self { image: can("image"), audio: can("audio"), embedded: can("embeddedContext") }
    }
}

/// A part of the user's message as content. What the agent cannot take goes as a link, and what is no link as its text.
pub(super) fn block(part: &Value, can: PromptCapabilities) -> Value {
    if let Some(text) = part["text"].as_str() {
        return json!({ "type": "text", "text": text });
    }
    let url = part["url"].as_str().unwrap_or_default();
    let mime = part["mime"].as_str().unwrap_or("application/octet-stream");
    let name = part["filename"].as_str().unwrap_or(url);
    match data_of(url) {
        Some(data) if can.image && mime.starts_with("image/") => {
            json!({ "type": "image", "mimeType": mime, "data": data })
        }
        Some(data) if can.audio && mime.starts_with("audio/") => {
            json!({ "type": "audio", "mimeType": mime, "data": data })
        }
        Some(data) if can.embedded => {
            let resource = json!({ "uri": format!("attachment:///{name}"), "mimeType": mime, "blob": data });
            json!({ "type": "resource", "resource": resource })
        }
        Some(_) => {
            json!({ "type": "text", "text": format!("[{name}: {mime}, which this agent cannot be given]") })
        }
        None if url.is_empty() => json!({ "type": "text", "text": part.to_string() }),
        None => json!({ "type": "resource_link", "uri": url, "name": name, "mimeType": mime }),
    }
}

/// What a content block says, as text.
pub(super) fn text(block: &Value) -> String {
    let of = |field: &str| block[field].as_str().map(str::to_owned);
    match block["type"].as_str() {
        Some("resource_link") => of("uri").map(|uri| format!("[{}]({uri})", of("name").unwrap_or_default())),
        Some("resource") => block["resource"]["text"].as_str().map(str::to_owned),
        Some("image") => Some("[image]".to_owned()),
        Some("audio") => Some("[audio]".to_owned()),
        Some(_) | None => of("text"),
    }
    .unwrap_or_default()
}

/// The todo list that a plan is.
pub(super) fn todos(plan: &Value) -> Vec<Value> {
    let entries = plan["entries"].as_array().into_iter().flatten();
    let todo = |entry: &Value| {
        let text = |field: &str, otherwise: &str| entry[field].as_str().unwrap_or(otherwise).to_owned();
        json!({
            "content": text("content", ""), "status": text("status", "pending"), "priority": text("priority", "medium"),
        })
    };
    entries.map(todo).collect()
}

/// The base64 of a data URL.
fn data_of(url: &str) -> Option<&str> {
    url.strip_prefix("data:")?.split_once(";base64,").map(|(_, data)| data)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PICTURE: &str = "data:image/png;base64,iVBO";

    #[test]
    fn text_stays_text() {
        let part = json!({ "type": "text", "text": "hi" });
        assert_eq!(block(&part, PromptCapabilities::default()), json!({ "type": "text", "text": "hi" }));
    }

    #[test]
    fn a_picture_goes_as_a_picture_to_an_agent_that_sees_and_is_named_to_one_that_does_not() {
        let part = json!({ "type": "file", "mime": "image/png", "filename": "a.png", "url": PICTURE });
        let sees = PromptCapabilities { image: true, ..PromptCapabilities::default() };
        assert_eq!(block(&part, sees), json!({ "type": "image", "mimeType": "image/png", "data": "iVBO" }));
        let blind = block(&part, PromptCapabilities::default());
        assert_eq!(blind["type"], "text");
        assert!(blind["text"].as_str().unwrap().contains("a.png"), "{blind}");
    }

    #[test]
    fn a_recording_and_a_file_go_with_their_content_to_an_agent_that_takes_them() {
        let can = PromptCapabilities { image: false, audio: true, embedded: true };
        let file =
            |mime: &str| json!({ "mime": mime, "filename": "a", "url": format!("data:{mime};base64,AAAA") });
        let audio = json!({ "type": "audio", "mimeType": "audio/wav", "data": "AAAA" });
        assert_eq!(block(&file("audio/wav"), can), audio);
        let resource = json!({ "uri": "attachment:///a", "mimeType": "text/csv", "blob": "AAAA" });
        assert_eq!(block(&file("text/csv"), can), json!({ "type": "resource", "resource": resource }));
        let odd = block(&json!({ "type": "agent", "name": "plan" }), can);
        assert_eq!(odd["text"], r#"{"name":"plan","type":"agent"}"#, "what is neither says itself");
    }

    #[test]
    fn a_file_that_is_somewhere_goes_as_a_link() {
        let part = json!({ "type": "file", "mime": "text/plain", "filename": "a", "url": "file:///w/a" });
        let link = block(&part, PromptCapabilities { embedded: true, ..PromptCapabilities::default() });
        assert_eq!(
            (link["type"].as_str(), link["uri"].as_str()),
            (Some("resource_link"), Some("file:///w/a"))
        );
    }

    #[test]
    fn every_kind_of_content_says_something() {
        for (said, content) in [
            ("hi", json!({ "type": "text", "text": "hi" })),
            ("[a](file:///a)", json!({ "type": "resource_link", "uri": "file:///a", "name": "a" })),
            ("inside", json!({ "type": "resource", "resource": { "uri": "x", "text": "inside" } })),
            ("[image]", json!({ "type": "image", "data": "", "mimeType": "image/png" })),
            ("", json!({ "type": "hologram" })),
        ] {
            assert_eq!(text(&content), said, "{content}");
        }
    }
}
