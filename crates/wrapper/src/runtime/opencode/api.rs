//! The server's HTTP API, as far as a wrapper needs it (opencode 1.18, kilo 7.7; `/doc` of a running server describes it).

use std::{fmt, path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream, stream::BoxStream};
use protocol::sse;
use reqwest::{
    Client, Method, Response,
    header::{ACCEPT, CONTENT_TYPE},
};
use serde_json::Value;
use tokio::time::timeout;

/// An answer that does not take a turn.
const ANSWER: Duration = Duration::from_secs(30);

/// Whether a server is well it says at once.
const HEALTH: Duration = Duration::from_secs(5);

/// Where an answer says how to ask for what is older.
const NEXT_CURSOR: &str = "x-next-cursor";

/// Characters of a refusal that are passed on.
const REFUSAL: usize = 500;

/// Bytes of one event of the server: the output of a tool is in it, untrimmed.
const EVENT_BYTES: usize = 64 * 1024 * 1024;

/// Who logs in to the server.
#[derive(Clone)]
pub(super) struct Login {
    pub(super) username: String,
    pub(super) password: String,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login").field("username", &self.username).finish_non_exhaustive()
    }
}

/// The data of each event, until the stream ends or breaks.
pub(super) type EventStream = BoxStream<'static, Result<String, String>>;

/// The API of one server, for one work folder. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Api {
    http: Client,
    base: Arc<str>,
    login: Arc<Login>,
    directory: Arc<str>,
}

/// Why the server did not do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub(super) enum ApiError {
    #[error("no answer: {message}")]
    NoAnswer { message: String },
    #[error("{status}: {message}")]
    Status { status: u16, message: String },
    #[error("an answer that is not understood: {what}")]
    Shape { what: &'static str },
}

impl ApiError {
    fn of(error: &reqwest::Error) -> Self {
        let mut message = error.to_string();
        let mut cause = std::error::Error::source(error);
        while let Some(deeper) = cause {
            message = format!("{message}: {deeper}");
            cause = deeper.source();
        }
        Self::NoAnswer { message }
    }
}

impl Api {
    pub(super) fn new(base: &str, login: &Login, directory: &Path) -> Result<Self, ApiError> {
        // The server is on loopback and speaks plain HTTP: no certificate is read, no proxy is asked.
        let tls =
            rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
                .with_safe_default_protocol_versions()
                .map_err(|error| ApiError::NoAnswer { message: error.to_string() })?
                .with_root_certificates(rustls::RootCertStore::empty())
                .with_no_client_auth();
        let http = Client::builder()
            .tls_backend_preconfigured(tls)
            .no_proxy()
            .build()
            .map_err(|error| ApiError::of(&error))?;
        let directory =
            directory.to_str().ok_or(ApiError::Shape { what: "the work folder's name is not UTF-8" })?;
        Ok(Self { http, base: base.into(), login: Arc::new(login.clone()), directory: directory.into() })
    }

    /// The work folder, as it is told to the server.
    pub(super) fn directory(&self) -> &str {
        &self.directory
    }

    /// The server's version, if it is well.
    pub(super) async fn health(&self) -> Result<String, ApiError> {
        let answer = timeout(HEALTH, self.get(&["global", "health"]))
            .await
            .map_err(|_| ApiError::NoAnswer { message: format!("within {} s", HEALTH.as_secs()) })??;
        answer["version"]
            .as_str()
            .map(str::to_owned)
            .ok_or(ApiError::Shape { what: "a health without a version" })
    }

    /// Asks for something; the path in its segments.
    pub(super) async fn get(&self, path: &[&str]) -> Result<Value, ApiError> {
        self.call(Method::GET, path, None, Some(ANSWER)).await
    }

    /// The newest so many of a list, or those before a cursor; and the cursor of what is older, if there is more. Older versions give the
    /// whole list.
    pub(super) async fn page(
        &self,
        path: &[&str],
        size: usize,
        before: Option<&str>,
    ) -> Result<(Value, Option<String>), ApiError> {
        let mut request = self.request(Method::GET, path)?.query(&[("limit", size)]).timeout(ANSWER);
        if let Some(before) = before {
            request = request.query(&[("before", before)]);
        }
        let response = accepted(request.send().await.map_err(|error| ApiError::of(&error))?).await?;
        let cursor = response.headers().get(NEXT_CURSOR).and_then(|cursor| cursor.to_str().ok());
        let cursor = cursor.map(str::to_owned);
        Ok((json_of(response).await?, cursor))
    }

    /// Tells the server to do something.
    pub(super) async fn post(&self, path: &[&str], body: &Value) -> Result<Value, ApiError> {
        self.call(Method::POST, path, Some(body), Some(ANSWER)).await
    }

    /// The same, where the answer comes at the end of a turn.
    pub(super) async fn post_turn(&self, path: &[&str], body: &Value) -> Result<Value, ApiError> {
        self.call(Method::POST, path, Some(body), None).await
    }

    /// Follows the folder's events, from when the server says that it is connected.
    pub(super) async fn subscribe(&self) -> Result<EventStream, ApiError> {
        let request = self.request(Method::GET, &["event"])?.header(ACCEPT, "text/event-stream");
        let connected = async {
            let response = accepted(request.send().await.map_err(|error| ApiError::of(&error))?).await?;
            if !has_type(&response, "text/event-stream") {
                return Err(ApiError::Shape { what: "a page instead of the event stream" });
            }
            let mut events = events_of(response);
            // Nothing that happens after this first event is missing from the stream.
            match events.next().await {
                Some(Ok(_)) => Ok(events),
                Some(Err(message)) => Err(ApiError::NoAnswer { message }),
                None => Err(ApiError::NoAnswer { message: "the event stream ended at once".to_owned() }),
            }
        };
        let late = |_| ApiError::NoAnswer {
            message: format!("the event stream did not begin within {} s", ANSWER.as_secs()),
        };
        timeout(ANSWER, connected).await.map_err(late)?
    }

    async fn call(
        &self,
        method: Method,
        path: &[&str],
        body: Option<&Value>,
        within: Option<Duration>,
    ) -> Result<Value, ApiError> {
        let mut request = self.request(method, path)?;
        if let Some(body) = body {
            request = request.json(body);
        }
        if let Some(within) = within {
            request = request.timeout(within);
        }
        json_of(accepted(request.send().await.map_err(|error| ApiError::of(&error))?).await?).await
    }

    fn request(&self, method: Method, path: &[&str]) -> Result<reqwest::RequestBuilder, ApiError> {
        let mut url: reqwest::Url =
            self.base.parse().map_err(|_| ApiError::Shape { what: "the server's URL" })?;
        // Segments, so that no id, whatever is in it, reaches another path.
        url.path_segments_mut()
            .map_err(|()| ApiError::Shape { what: "the server's URL" })?
            .clear()
            .extend(path);
        let request = self.http.request(method, url).query(&[("directory", &*self.directory)]);
        Ok(request.basic_auth(&self.login.username, Some(&self.login.password)))
    }
}

async fn json_of(response: Response) -> Result<Value, ApiError> {
    let json = has_type(&response, "application/json");
    let bytes = response.bytes().await.map_err(|error| ApiError::of(&error))?;
    match (bytes.is_empty(), json) {
        (true, _) => Ok(Value::Null),
        (false, true) => serde_json::from_slice(&bytes)
            .map_err(|_| ApiError::Shape { what: "no JSON where JSON was said to be" }),
        // opencode answers paths that it does not know with its web page, and with 200.
        (false, false) => {
            Err(ApiError::Shape { what: "a page: this version of the server does not know the call" })
        }
    }
}

/// The `data` of each event in a body, until it ends or can be read no further.
fn events_of(response: Response) -> EventStream {
    type Reading = (BoxStream<'static, reqwest::Result<Bytes>>, Bytes, sse::Decoder);
    let begin = (response.bytes_stream().boxed(), Bytes::new(), sse::Decoder::new(EVENT_BYTES));
    let next = |(mut body, mut chunk, mut decoder): Reading| async move {
        loop {
            if let Some(event) = decoder.next(&mut chunk).map_err(|error| error.to_string())? {
                return Ok(Some((event.data, (body, chunk, decoder))));
            }
            match body.try_next().await.map_err(|error| error.to_string())? {
                Some(more) => chunk = more,
                None => return Ok(None),
            }
        }
    };
    stream::try_unfold(begin, next).boxed()
}

fn has_type(response: &Response, wanted: &str) -> bool {
    response.headers().get(CONTENT_TYPE).is_some_and(|found| found.as_bytes().starts_with(wanted.as_bytes()))
}

async fn accepted(response: Response) -> Result<Response, ApiError> {
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let text = response.text().await.unwrap_or_default();
    Err(ApiError::Status { status: status.as_u16(), message: refusal(&text) })
}

/// What a refusal says to people: `data.message` or `message` in its JSON, else its text.
fn refusal(text: &str) -> String {
    let body: Value = serde_json::from_str(text).unwrap_or_default();
    let message = body["data"]["message"].as_str().or_else(|| body["message"].as_str()).unwrap_or(text);
    message.chars().take(REFUSAL).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_told_in_the_servers_words() {
        let said = [
            (
                r#"{"name":"NotFoundError","data":{"message":"Session not found: ses_nope"}}"#,
                "Session not found: ses_nope",
            ),
            (r#"{"_tag":"PermissionNotFoundError","message":"gone"}"#, "gone"),
            ("plain", "plain"),
            ("", ""),
        ];
        for (text, message) in said {
            assert_eq!(refusal(text), message);
        }
    }

    #[test]
    fn an_id_does_not_lead_to_another_path() {
        let login = Login { username: "u".into(), password: "p".into() };
        let api = Api::new("http://127.0.0.1:1", &login, Path::new("/work folder")).unwrap();
        let request = api.request(Method::GET, &["session", "../config?x=1"]).unwrap().build().unwrap();
        assert_eq!(
            request.url().as_str(),
            "http://127.0.0.1:1/session/..%2Fconfig%3Fx=1?directory=%2Fwork+folder"
        );
    }

    #[test]
    fn a_login_is_not_shown() {
        let login = Login { username: "kilo".into(), password: "hunter2".into() };
        assert!(!format!("{login:?}").contains("hunter2"));
    }
}
