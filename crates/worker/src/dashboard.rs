//! The dashboard: server-rendered pages that change live (`ARCHITECTURE.md`).
//!
//! Everything that is shown is a pure function of the fold of a log ([`protocol::view::SessionView`]): `part` renders
//! the parts of a transcript, `page` whole pages, both as `tree::Node`s. A change of a page is the difference of two
//! trees; `live` computes it once per change and agent and sends it to every viewer. The page module
//! (`assets/live.js`) applies it.
//!
//! What a log holds is hostile input: agents print what they read. Every renderer escapes; the tests try each field.

mod ansi;
mod assets;
mod difference;
#[cfg(test)]
mod dom;
mod element;
mod figures;
mod highlight;
#[cfg(test)]
mod law;
mod live;
mod markdown;
mod model;
mod page;
mod pages;
mod part;
mod past;
mod steer;
mod streams;
mod timeline;
mod transcript;
mod tree;

use axum::{
    Router,
    extract::{DefaultBodyLimit, State},
    middleware::map_response,
    response::{Html, IntoResponse, Redirect, Response},
    routing::{get, post},
};
use http::{HeaderMap, StatusCode, Uri};
use protocol::{AgentId, Epoch, ErrorCode, LogId, limits};
use relay::auth::{Capability, Grant};

use self::live::{feeds::Feeds, fleet::Fleet, replay::Replays};
use crate::Worker;

/// The dashboard's routes: pages, forms, assets, and the streams of `view=html`.
pub fn router(worker: Worker) -> Router {
    Router::new()
        .route("/", get(|| async { Redirect::to("/agents") }))
        .route("/agents", get(pages::fleet))
        .route("/agents/{agent}", get(pages::agent))
        .route("/agents/{agent}/events/{seq}", get(pages::event))
        .route("/agents/{agent}/{what}", post(steer::steer))
        .route("/search", get(pages::search))
        .route("/shared/{token}", get(pages::shared))
        .route("/v1/agents/{agent}/stream", get(streams::agent))
        .route("/v1/towns/{town}/stream", get(streams::fleet))
        .fallback(not_found)
        .layer(map_response(assets::with_headers))
        .route("/assets/{file}", get(assets::serve))
        .layer(DefaultBodyLimit::max(limits::HTTP_BODY_BYTES))
        .with_state(Dashboard::new(worker))
}

/// The login page. `error` is a sentence to show; `next` is where to go after signing in.
pub fn login_page(worker: &Worker, error: Option<&str>, next: &str) -> Response {
    let page = page::login::page(worker.town_id().as_str(), error, next);
    assets::put_headers(Html(page.into_string()).into_response())
}

/// What every handler needs.
#[derive(Clone)]
struct Dashboard {
    worker: Worker,
    feeds: Feeds,
    fleet: Fleet,
    replays: Replays,
}

/// Why something was not done, for people.
#[derive(Debug)]
struct Refused {
    code: ErrorCode,
    words: String,
}

impl Refused {
    fn new(code: ErrorCode, words: impl Into<String>) -> Self {
        Self { code, words: words.into() }
    }
}

impl Dashboard {
    fn new(worker: Worker) -> Self {
        let tasks = worker.tasks().clone();
        let feeds = Feeds::new(worker.relay().clone(), tasks.clone(), worker.clock().clone());
        let epoch = Epoch::new(&uuid::Uuid::now_v7().simple().to_string());
        let fleet = Fleet::new(worker.clone(), feeds.clone(), tasks, epoch);
        Self { worker, feeds, fleet, replays: Replays::default() }
    }

    /// The grant of a request that may do this on this log.
    fn admit(
        &self,
        headers: &HeaderMap,
        uri: Option<&Uri>,
        capability: Capability,
        log: &LogId,
    ) -> Result<Grant, Refused> {
        let grant = self
            .worker
            .authenticate(headers, uri)
            .map_err(|error| Refused::new(error.code(), error.to_string()))?;
        if grant.allows(capability, log) {
            Ok(grant)
        } else {
            Err(Refused::new(ErrorCode::Forbidden, beyond(capability)))
        }
    }

    fn agent(&self, agent: &str) -> Result<town::Agent, Refused> {
        let unknown = || Refused::new(ErrorCode::NotFound, "There is no such agent in this town.");
        let id: AgentId = agent.parse().map_err(|_| unknown())?;
        self.worker.town().borrow().agents().get(&id).cloned().ok_or_else(unknown)
    }

    fn admit_steering(
        &self,
        agent: &str,
        headers: &HeaderMap,
        what: &str,
    ) -> Result<(AgentId, Grant), Refused> {
        let agent = self.agent(agent)?.id;
        let capability = if matches!(what, "start" | "stop") { Capability::Admin } else { Capability::Steer };
        let grant = self.admit(headers, None, capability, &LogId::Agent(agent.clone()))?;
        Ok((agent, grant))
    }

    /// Who is nobody signs in first; whoever else was refused is told so.
    fn refusal(&self, refused: &Refused, uri: &Uri) -> Response {
        if refused.code == ErrorCode::Unauthenticated {
            return Redirect::to(&format!("/login?next={}", uri.path())).into_response();
        }
        let town = self.worker.town_id().as_str();
        let page = page::message::refusal(town, None, "Not here", &refused.words, Some("/agents"));
        (refused.status(), Html(page.into_string())).into_response()
    }
}

/// What it takes, for whoever does not have it.
fn beyond(capability: Capability) -> &'static str {
    match capability {
        Capability::Admin => {
            "Your token does not reach this far: starting and stopping takes one of scope admin."
        }
        Capability::Steer => "Your token may only read: this takes one of scope steer.",
        Capability::Read | Capability::Ingest => "These credentials do not reach this far.",
    }
}

async fn not_found(State(dashboard): State<Dashboard>) -> Response {
    let town = dashboard.worker.town_id().as_str();
    let words = "There is no page of this name.";
    let page = page::message::refusal(town, None, "Nothing here", words, Some("/agents"));
    (StatusCode::NOT_FOUND, Html(page.into_string())).into_response()
}
