//! The wire format of OpenAI's chat completions (API reference, "Create chat completion", streaming and whole).

use serde_json::{Value, json};

use super::{
    Wire,
    script::{Action, Pieces},
};

/// One answer on its way.
#[derive(Debug)]
pub(super) struct Chat {
    /// No two answers of one endpoint share it.
    serial: u64,
    model: String,
    tools: Vec<(String, String)>,
    text: String,
    reasoning: String,
    usage: (u64, u64),
}

impl Wire for Chat {
    fn new(model: &str, serial: u64) -> Self {
        Self {
            serial,
            model: model.to_owned(),
            tools: Vec::new(),
            text: String::new(),
            reasoning: String::new(),
            usage: (100, 20),
        }
    }

    fn begin(&mut self) -> Vec<String> {
        vec![frame(&self.chunk(&json!({ "role": "assistant", "content": "" }), None))]
    }

    fn pieces(&mut self, action: &Action) -> Vec<String> {
        self.chunks(action).iter().map(frame).collect()
    }

    fn end(&mut self) -> Vec<String> {
        let mut chunk = self.chunk(&json!({}), Some(self.finish()));
        chunk["usage"] = self.usage();
        vec![frame(&chunk), "data: [DONE]\n\n".to_owned()]
    }

    fn whole(&self) -> Value {
        let mut message = json!({ "role": "assistant", "content": self.text });
        if !self.reasoning.is_empty() {
            message["reasoning_content"] = json!(self.reasoning);
        }
        if !self.tools.is_empty() {
            let call = |(index, (name, arguments)): (usize, &(String, String))| {
                let function = json!({ "name": name, "arguments": arguments });
                json!({ "id": self.call(index), "type": "function", "function": function })
            };
            message["tool_calls"] = self.tools.iter().enumerate().map(call).collect();
        }
        let choice = json!({ "index": 0, "message": message, "finish_reason": self.finish() });
        json!({
            "id": self.id(), "object": "chat.completion", "created": 0, "model": self.model, "choices": [choice],
            "usage": self.usage(),
        })
    }
}

impl Chat {
    fn chunks(&mut self, action: &Action) -> Vec<Value> {
        match action {
            Action::Text(pieces) => {
                self.count(pieces);
                self.text.push_str(&pieces.text);
                pieces.iter().map(|piece| self.chunk(&json!({ "content": piece }), None)).collect()
            }
            Action::Reasoning(pieces) => {
                self.count(pieces);
                self.reasoning.push_str(&pieces.text);
                pieces.iter().map(|piece| self.chunk(&json!({ "reasoning_content": piece }), None)).collect()
            }
            Action::Tool(name, pieces) => {
                self.count(pieces);
                let index = self.tools.len();
                self.tools.push((name.clone(), pieces.text.clone()));
                let head = json!({
                    "index": index, "id": self.call(index), "type": "function", "function": { "name": name, "arguments": "" },
                });
                let rest =
                    pieces.iter().map(|piece| json!({ "index": index, "function": { "arguments": piece } }));
                std::iter::once(head)
                    .chain(rest)
                    .map(|call| self.chunk(&json!({ "tool_calls": [call] }), None))
                    .collect()
            }
            Action::Silence(_) | Action::Error(_) | Action::Drop => Vec::new(),
        }
    }

    fn chunk(&self, delta: &Value, finish: Option<&str>) -> Value {
        let choice = json!({ "index": 0, "delta": delta, "finish_reason": finish });
        json!({
            "id": self.id(), "object": "chat.completion.chunk", "created": 0, "model": self.model, "choices": [choice],
        })
    }

    fn count(&mut self, pieces: &Pieces) {
        self.usage = pieces.usage.unwrap_or(self.usage);
    }

    fn finish(&self) -> &'static str {
        if self.tools.is_empty() { "stop" } else { "tool_calls" }
    }

    fn id(&self) -> String {
        format!("chatcmpl-{}", self.serial)
    }

    /// Call ids differ between the answers of one conversation.
    fn call(&self, index: usize) -> String {
        format!("call_{}_{index}", self.serial)
    }

    fn usage(&self) -> Value {
        let (input, output) = self.usage;
        json!({ "prompt_tokens": input, "completion_tokens": output, "total_tokens": input + output })
    }
}

fn frame(chunk: &Value) -> String {
    format!("data: {chunk}\n\n")
}
