//! The wire format of Anthropic's messages (API reference, "Streaming messages"; whole answers, too).

use serde_json::{Value, json};

use super::{
    Wire,
    script::{Action, Pieces},
};

/// One answer on its way.
#[derive(Debug)]
pub(super) struct Messages {
    /// No two answers of one endpoint share it.
    serial: u64,
    model: String,
    /// The blocks that are whole.
    content: Vec<Value>,
    calls_tools: bool,
    usage: (u64, u64),
}

impl Wire for Messages {
    fn new(model: &str, serial: u64) -> Self {
        Self { serial, model: model.to_owned(), content: Vec::new(), calls_tools: false, usage: (100, 20) }
    }

    fn begin(&mut self) -> Vec<String> {
        let message = self.message(&json!([]), None, (10, 1));
        vec![frame(&json!({ "type": "message_start", "message": message }))]
    }

    fn pieces(&mut self, action: &Action) -> Vec<String> {
        match action {
            Action::Text(pieces) => {
                let block = |text: &str| json!({ "type": "text", "text": text });
                let delta = |piece: String| json!({ "type": "text_delta", "text": piece });
                self.block(pieces, &block(""), block(&pieces.text), delta)
            }
            Action::Reasoning(pieces) => {
                let block = |text: &str| json!({ "type": "thinking", "thinking": text, "signature": "" });
                let delta = |piece: String| json!({ "type": "thinking_delta", "thinking": piece });
                self.block(pieces, &block(""), block(&pieces.text), delta)
            }
            Action::Tool(name, pieces) => {
                self.calls_tools = true;
                // Ids of calls differ between the answers of one conversation.
                let id = format!("toolu_{}_{}", self.serial, self.content.len());
                let block =
                    |input: Value| json!({ "type": "tool_use", "id": id, "name": name, "input": input });
                let input = serde_json::from_str(&pieces.text).expect("the arguments of a script are JSON");
                let delta = |piece: String| json!({ "type": "input_json_delta", "partial_json": piece });
                self.block(pieces, &block(json!({})), block(input), delta)
            }
            Action::Silence(_) | Action::Error(_) | Action::Drop => Vec::new(),
        }
    }

    fn end(&mut self) -> Vec<String> {
        let (input, output) = self.usage;
        let delta = json!({
            "type": "message_delta", "delta": { "stop_reason": self.stop_reason(), "stop_sequence": null },
            "usage": { "input_tokens": input, "output_tokens": output },
        });
        vec![frame(&delta), frame(&json!({ "type": "message_stop" }))]
    }

    fn whole(&self) -> Value {
        self.message(&json!(self.content), Some(self.stop_reason()), self.usage)
    }
}

impl Messages {
    /// A block as it begins, what comes of it, and its end.
    fn block(
        &mut self,
        pieces: &Pieces,
        begin: &Value,
        whole: Value,
        delta: impl Fn(String) -> Value,
    ) -> Vec<String> {
        self.usage = pieces.usage.unwrap_or(self.usage);
        let index = self.content.len();
        self.content.push(whole);
        let start = json!({ "type": "content_block_start", "index": index, "content_block": begin });
        let deltas = pieces
            .iter()
            .map(|piece| json!({ "type": "content_block_delta", "index": index, "delta": delta(piece) }));
        let stop = json!({ "type": "content_block_stop", "index": index });
        std::iter::once(start).chain(deltas).chain([stop]).map(|event| frame(&event)).collect()
    }

    fn message(&self, content: &Value, stop_reason: Option<&str>, (input, output): (u64, u64)) -> Value {
        json!({
            "id": format!("msg_{}", self.serial), "type": "message", "role": "assistant", "model": self.model,
            "content": content, "stop_reason": stop_reason, "stop_sequence": null,
            "usage": { "input_tokens": input, "output_tokens": output },
        })
    }

    fn stop_reason(&self) -> &'static str {
        if self.calls_tools { "tool_use" } else { "end_turn" }
    }
}

fn frame(event: &Value) -> String {
    format!("event: {}\ndata: {event}\n\n", event["type"].as_str().unwrap_or_default())
}
