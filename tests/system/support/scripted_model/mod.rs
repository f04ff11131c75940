//! A scripted stand-in for a language model: OpenAI's chat completions and Anthropic's messages, streaming and not, on loopback.
//!
//! Real agents are driven with it offline and do the same in every run. The server keeps no session: what it answers is read from
//! the request. The last marker in a message of the user, `[[tools dir=/some/dir]]`, chooses the script `tools` with `$dir` set;
//! the number of assistant messages after that one chooses the turn; past the last turn the answer is `Done.`. A
//! request that offers no tools (agents ask for titles and summaries that way) gets the fixed title. The scripts are in
//! `scenario.json`; their actions are those of [`script::Action`].

mod anthropic;
mod chat;
mod script;

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::{
    Json, Router,
    body::{Body, Bytes},
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse as _, Response},
    routing::{get, post},
};
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::mpsc, task::JoinHandle};

use self::{
    anthropic::Messages,
    chat::Chat,
    script::{Action, Choice, Scenario},
};

/// A running endpoint; it ends when this is dropped.
#[derive(Debug)]
pub(crate) struct ScriptedModel {
    url: String,
    shared: Arc<Shared>,
    server: JoinHandle<()>,
}

/// What was asked of the model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Asked {
    /// The script that answered; `title` for a request without tools.
    pub(crate) script: String,
    /// The turn of the script.
    pub(crate) turn: usize,
    /// How many times this turn of this prompt was asked for, this time included.
    pub(crate) attempt: usize,
    /// The model that was asked for, and the messages in the request.
    pub(crate) model: String,
    pub(crate) messages: Value,
    /// Whether the answer was streamed.
    pub(crate) stream: bool,
}

#[derive(Debug)]
struct Shared {
    scenario: Scenario,
    answers: AtomicU64,
    log: Mutex<Log>,
}

#[derive(Debug, Default)]
struct Log {
    asked: Vec<Asked>,
    /// By script, turn and prompt.
    attempts: BTreeMap<(String, usize, String), usize>,
}

impl ScriptedModel {
    /// Starts the endpoint with the scripts of `scenario.json`.
    pub(crate) async fn start() -> Self {
        let scenario = Scenario::parse(include_str!("scenario.json")).expect("scenario.json is a scenario");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has a free port");
        let address = listener.local_addr().expect("a bound socket has an address");
        let shared = Arc::new(Shared { scenario, answers: AtomicU64::default(), log: Mutex::default() });
        let router = Router::new()
            .route("/v1/models", get(models))
            .route("/v1/chat/completions", post(complete::<Chat>))
            .route("/v1/messages", post(complete::<Messages>))
            .with_state(Arc::clone(&shared));
        let server =
            tokio::spawn(async move { axum::serve(listener, router).await.expect("loopback accepts") });
        Self { url: format!("http://{address}/v1"), shared, server }
    }

    /// What agents are configured with: `http://127.0.0.1:<port>/v1`.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Everything that was asked so far, in order.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.shared.log.lock().unwrap_or_else(PoisonError::into_inner).asked.clone()
    }

    /// What was asked last of this script.
    pub(crate) fn asked_last(&self, script: &str) -> Asked {
        let asked = self.asked().into_iter().rfind(|asked| asked.script == script);
        asked.unwrap_or_else(|| panic!("nothing was asked of {script}"))
    }
}

impl Drop for ScriptedModel {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// One answer on its way, in the words of one API: frames of server-sent events, or a whole.
trait Wire: Send + Sync + 'static {
    /// An answer of this model; no two answers of one endpoint share the serial number.
    fn new(model: &str, serial: u64) -> Self;
    /// The frames before anything is said.
    fn begin(&mut self) -> Vec<String>;
    /// What an action adds.
    fn pieces(&mut self, action: &Action) -> Vec<String>;
    /// The frames after everything was said.
    fn end(&mut self) -> Vec<String>;
    /// The answer in one piece.
    fn whole(&self) -> Value;
}

async fn models() -> Json<Value> {
    Json(json!({ "object": "list", "data": [{ "id": "scripted", "object": "model", "owned_by": "local" }] }))
}

async fn complete<W: Wire>(State(shared): State<Arc<Shared>>, Json(request): Json<Value>) -> Response {
    let choice = shared.scenario.choose(&request);
    let stream = request["stream"] == true;
    let attempt = shared.note(&choice, &request, stream);
    let mut actions = choice.actions;
    if let Some(Action::Error(error)) = actions.first() {
        if attempt <= error.times.unwrap_or(usize::MAX) {
            return error.response();
        }
        actions.retain(|action| !matches!(action, Action::Error(_)));
    }
    let serial = shared.answers.fetch_add(1, Ordering::Relaxed);
    let answer = W::new(request["model"].as_str().unwrap_or("scripted"), serial);
    if stream { streamed(answer, actions) } else { whole(answer, actions).await }
}

impl Shared {
    /// Writes a request down. Returns how often it has come.
    fn note(&self, choice: &Choice, request: &Value, stream: bool) -> usize {
        let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (choice.script.clone(), choice.turn, choice.prompt.clone());
        let attempts = log.attempts.entry(key).or_default();
        *attempts += 1;
        let attempt = *attempts;
        log.asked.push(Asked {
            script: choice.script.clone(),
            turn: choice.turn,
            attempt,
            model: request["model"].as_str().unwrap_or_default().to_owned(),
            messages: request["messages"].clone(),
            stream,
        });
        attempt
    }
}

/// Answers as a stream of server-sent events; a dropped answer breaks off without its end.
fn streamed(mut answer: impl Wire, actions: Vec<Action>) -> Response {
    let (sender, mut receiver) = mpsc::channel::<Result<Bytes, std::io::Error>>(16);
    tokio::spawn(async move {
        // The agent hangs up when it is aborted: then nobody reads on.
        let _ = play(&mut answer, actions, &sender).await;
    });
    let body = Body::from_stream(futures_util::stream::poll_fn(move |context| receiver.poll_recv(context)));
    ([(header::CONTENT_TYPE, "text/event-stream")], body).into_response()
}

/// The reader has gone.
struct Gone;

async fn play(
    answer: &mut impl Wire,
    actions: Vec<Action>,
    out: &mpsc::Sender<Result<Bytes, std::io::Error>>,
) -> Result<(), Gone> {
    let send = async |frames: Vec<String>, delay: Duration| {
        for frame in frames {
            out.send(Ok(frame.into())).await.map_err(|_| Gone)?;
            if delay > Duration::ZERO {
                tokio::time::sleep(delay).await;
            }
        }
        Ok(())
    };
    send(answer.begin(), Duration::ZERO).await?;
    for action in actions {
        let delay = action.delay();
        if matches!(action, Action::Drop) {
            let broken = std::io::Error::from(std::io::ErrorKind::ConnectionReset);
            return out.send(Err(broken)).await.map_err(|_| Gone);
        }
        if let Action::Silence(duration) = action {
            tokio::select! {
                () = tokio::time::sleep(duration) => {}
                () = out.closed() => return Err(Gone),
            }
            continue;
        }
        send(answer.pieces(&action), delay).await?;
    }
    send(answer.end(), Duration::ZERO).await
}

/// Answers in one piece.
async fn whole(mut answer: impl Wire, actions: Vec<Action>) -> Response {
    for action in &actions {
        if let Action::Silence(duration) = action {
            tokio::time::sleep(*duration).await;
        }
        answer.pieces(action);
    }
    Json(answer.whole()).into_response()
}

impl script::HttpError {
    fn response(&self) -> Response {
        let status = StatusCode::from_u16(self.status).expect("checked when the scenario was read");
        let body =
            json!({ "type": "error", "error": { "type": self.kind, "code": null, "message": self.message } });
        let mut response = (status, Json(body)).into_response();
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_stream_is_the_script_in_pieces_and_ends_with_done() {
        let model = ScriptedModel::start().await;
        let body = streamed_answer(&model, &ask("[[reason]] why", 1)).await;
        let deltas: Vec<Value> =
            chunks(&body).iter().map(|chunk| chunk["choices"][0]["delta"].clone()).collect();
        let joined =
            |field: &str| deltas.iter().filter_map(|delta| delta[field].as_str()).collect::<String>();
        assert!(joined("reasoning_content").starts_with("The user wants a short answer."));
        assert_eq!(joined("content"), "Here is the answer after thinking: 42.");
        let last = chunks(&body).pop().unwrap();
        assert_eq!(
            (&last["choices"][0]["finish_reason"], &last["usage"]["prompt_tokens"]),
            (&json!("stop"), &json!(512))
        );
        assert!(body.ends_with("data: [DONE]\n\n"));
    }

    #[tokio::test]
    async fn an_answer_in_anthropics_words_is_blocks_that_begin_grow_and_end() {
        let model = ScriptedModel::start().await;
        let answer =
            post_to(&model, "messages", &ask("[[claude dir=/p]] do it", 1)).await.text().await.unwrap();
        let kinds: Vec<&str> = answer.lines().filter_map(|line| line.strip_prefix("event: ")).collect();
        assert_eq!((kinds[0], kinds[kinds.len() - 1]), ("message_start", "message_stop"));
        let events = chunks(&answer);
        let joined = |block: u64, field: &str| -> String {
            let of_block = events.iter().filter(|event| event["index"] == block);
            of_block.filter_map(|event| event["delta"][field].as_str()).collect()
        };
        assert_eq!(joined(0, "thinking"), "Let me think.");
        let input: Value = serde_json::from_str(&joined(2, "partial_json")).unwrap();
        assert_eq!(input["description"], "List files");
        assert_eq!(events[events.len() - 2]["delta"]["stop_reason"], "tool_use");
        let mut request = ask("[[claude dir=/p]] do it", 1);
        request["stream"] = json!(false);
        let whole: Value = post_to(&model, "messages", &request).await.json().await.unwrap();
        assert_eq!((&whole["content"][2]["input"], &whole["stop_reason"]), (&input, &json!("tool_use")));
    }

    #[tokio::test]
    async fn tools_come_in_parallel_with_arguments_that_make_json() {
        let model = ScriptedModel::start().await;
        let body = streamed_answer(&model, &ask("[[parallel]]", 1)).await;
        let mut arguments: BTreeMap<u64, String> = BTreeMap::new();
        for chunk in chunks(&body) {
            for call in chunk["choices"][0]["delta"]["tool_calls"].as_array().into_iter().flatten() {
                let piece = call["function"]["arguments"].as_str().unwrap();
                arguments.entry(call["index"].as_u64().unwrap()).or_default().push_str(piece);
            }
        }
        let said: Vec<Value> = arguments.values().map(|text| serde_json::from_str(text).unwrap()).collect();
        assert_eq!(
            said.iter().map(|input| input["description"].as_str().unwrap()).collect::<Vec<_>>(),
            ["Say one", "Say two", "Say three"]
        );
        assert_eq!(chunks(&body).pop().unwrap()["choices"][0]["finish_reason"], "tool_calls");
    }

    #[tokio::test]
    async fn the_turn_is_the_number_of_answers_after_the_marker_and_variables_are_filled() {
        let model = ScriptedModel::start().await;
        let second = streamed_answer(&model, &ask("[[tools dir=/p]] build", 2)).await;
        assert!(second.contains("/p/calc.py"), "{second}");
        let past = streamed_answer(&model, &ask("[[plain]]", 9)).await;
        assert!(past.contains("Done."), "{past}");
        let asked: Vec<(String, usize)> =
            model.asked().into_iter().map(|asked| (asked.script, asked.turn)).collect();
        assert_eq!(asked, [("tools".to_owned(), 1), ("plain".to_owned(), 8)]);
    }

    #[tokio::test]
    async fn an_error_is_answered_so_many_times_and_then_the_text() {
        let model = ScriptedModel::start().await;
        for attempt in 1..=2 {
            let answer = post(&model, &ask("[[e429]] go", 1)).await;
            assert_eq!(answer.status(), 429, "attempt {attempt}");
            assert_eq!(answer.headers()["retry-after"], "1");
        }
        let body = streamed_answer(&model, &ask("[[e429]] go", 1)).await;
        assert!(body.contains("[DONE]"), "{body}");
        assert_eq!(post(&model, &ask("[[e401]]", 1)).await.status(), 401);
        assert_eq!(model.asked().last().unwrap().attempt, 1);
    }

    #[tokio::test]
    async fn a_dropped_answer_has_no_end() {
        let model = ScriptedModel::start().await;
        let answer = post(&model, &ask("[[drop]]", 1)).await;
        assert!(answer.bytes().await.is_err(), "the connection breaks off");
    }

    #[tokio::test]
    async fn a_request_without_tools_gets_the_title_in_one_piece() {
        let model = ScriptedModel::start().await;
        let mut request = ask("[[tools dir=/p]]", 1);
        request["tools"] = json!([]);
        request["stream"] = json!(false);
        let answer: Value = post(&model, &request).await.json().await.unwrap();
        assert_eq!(answer["choices"][0]["message"]["content"], "Scripted title");
        assert_eq!(model.asked()[0].script, "title");
    }

    /// A request in which the model has answered `turn - 1` times since the prompt.
    fn ask(prompt: &str, turn: usize) -> Value {
        let mut messages = vec![json!({ "role": "user", "content": [{ "type": "text", "text": prompt }] })];
        for _ in 1..turn {
            messages.push(json!({ "role": "assistant", "content": "" }));
            messages.push(json!({ "role": "tool", "content": "[[plain]] in a result is no marker" }));
        }
        json!({ "model": "scripted", "stream": true, "tools": [{}], "messages": messages })
    }

    async fn post(model: &ScriptedModel, request: &Value) -> reqwest::Response {
        post_to(model, "chat/completions", request).await
    }

    async fn post_to(model: &ScriptedModel, path: &str, request: &Value) -> reqwest::Response {
        // Building a client wants a provider of cryptography, although this connection has none.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let url = format!("{}/{path}", model.url());
        reqwest::Client::new().post(url).json(request).send().await.unwrap()
    }

    async fn streamed_answer(model: &ScriptedModel, request: &Value) -> String {
        let answer = post(model, request).await;
        assert_eq!(answer.headers()["content-type"], "text/event-stream");
        answer.text().await.unwrap()
    }

    fn chunks(body: &str) -> Vec<Value> {
        let data =
            body.lines().filter_map(|line| line.strip_prefix("data: ")).filter(|data| *data != "[DONE]");
        data.map(|data| serde_json::from_str(data).unwrap()).collect()
    }
}
