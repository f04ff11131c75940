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
mod part;
mod steer;
mod transcript;
mod tree;

use std::time::Duration;

use axum::{
    Router,
    extract::{DefaultBodyLimit, Path, Query, State, WebSocketUpgrade},
    middleware::map_response,
    response::{Html, IntoResponse, Redirect, Response},
    routing::{get, post},
};
use futures_util::StreamExt as _;
use http::{HeaderMap, StatusCode, Uri};
use protocol::{AgentId, Cursor, Epoch, ErrorCode, LogId, Seq, frame::StartAt, limits};
use relay::{
    Delivery,
    auth::{Capability, Grant},
};

use self::{
    live::{
        agent::{AgentSource, Feeds},
        fleet::Fleet,
        viewer::{self, Source as _},
    },
    page::shell::Stream,
};
use crate::Worker;

/// How long a page waits for the fold of a log that is not there yet or long.
const FOLD_TIMEOUT: Duration = Duration::from_secs(5);
/// How long one raw event is waited for.
const EVENT_TIMEOUT: Duration = Duration::from_secs(2);

/// The dashboard's routes: pages, forms, assets, and the streams of `view=html`.
pub fn router(worker: Worker) -> Router {
    Router::new()
        .route("/", get(|| async { Redirect::to("/agents") }))
        .route("/agents", get(fleet_page))
        .route("/agents/{agent}", get(agent_page))
        .route("/agents/{agent}/events/{seq}", get(event_page))
        .route("/agents/{agent}/{what}", post(steer::steer))
        .route("/v1/agents/{agent}/stream", get(agent_stream))
        .route("/v1/towns/{town}/stream", get(fleet_stream))
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

/// The query of a stream.
#[derive(Debug, Default, serde::Deserialize)]
struct StreamQuery {
    after: Option<u64>,
    epoch: Option<String>,
}

impl Dashboard {
    fn new(worker: Worker) -> Self {
        let tasks = worker.tasks().clone();
        let feeds = Feeds::new(worker.relay().clone(), tasks.clone());
        let epoch = Epoch::new(&uuid::Uuid::now_v7().simple().to_string());
        let fleet = Fleet::new(worker.clone(), feeds.clone(), tasks, epoch);
        Self { worker, feeds, fleet }
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
            Err(Refused::new(ErrorCode::Forbidden, "These credentials do not reach this far."))
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

    fn refusal(&self, refused: &Refused, uri: &Uri) -> Response {
        if refused.code == ErrorCode::Unauthenticated {
            return Redirect::to(&format!("/login?next={}", uri.path())).into_response();
        }
        let page =
            page::message::refusal(self.worker.town_id().as_str(), "Not here", &refused.words, "/agents");
        (refused.status(), Html(page.into_string())).into_response()
    }

    /// Agents that wait for a person, as far as they are followed just now.
    fn needs(&self) -> usize {
        self.feeds.waiting()
    }
}

async fn fleet_page(State(dashboard): State<Dashboard>, headers: HeaderMap, uri: Uri) -> Response {
    let town = dashboard.worker.town_id().clone();
    let grant = match dashboard.admit(&headers, None, Capability::Read, &LogId::Town(town.clone())) {
        Ok(grant) => grant,
        Err(refused) => return dashboard.refusal(&refused, &uri),
    };
    let source = dashboard.fleet.follow(grant.has(Capability::Steer));
    source.ready().await;
    let page = source.with_board(|board| {
        let cursor = board.cursor();
        let stream = Stream {
            ticket: None,
            path: format!("/v1/towns/{town}/stream"),
            epoch: cursor.epoch.to_string(),
            after: cursor.seq.get(),
            log: LogId::Town(town.clone()).to_string(),
        };
        page::fleet::page(town.as_str(), dashboard.needs(), stream, board.regions())
    });
    Html(page.into_string()).into_response()
}

async fn agent_page(
    State(dashboard): State<Dashboard>,
    Path(agent): Path<String>,
    headers: HeaderMap,
    uri: Uri,
) -> Response {
    match agent_markup(&dashboard, &agent, &headers).await {
        Ok(page) => Html(page).into_response(),
        Err(refused) => dashboard.refusal(&refused, &uri),
    }
}

async fn agent_markup(dashboard: &Dashboard, agent: &str, headers: &HeaderMap) -> Result<String, Refused> {
    // Who is nobody is not told which agents there are.
    let log = LogId::Agent(
        agent
            .parse()
            .map_err(|_| Refused::new(ErrorCode::NotFound, "There is no such agent in this town."))?,
    );
    let grant = dashboard.admit(headers, None, Capability::Read, &log)?;
    let resident = dashboard.agent(agent)?;
    let steer = grant.allows(Capability::Steer, &log);
    let viewing = dashboard.feeds.follow(&resident.id, &resident.name);
    // An agent that never started has no log yet: its page is shown empty, and fills itself.
    let _ = tokio::time::timeout(FOLD_TIMEOUT, viewing.feed().live()).await;
    let town = dashboard.worker.town_id();
    let needs = dashboard.needs();
    let mut state = viewing.feed().state();
    let title = page::regions::title(&resident.name, state.model());
    let presence = state.presence().map(|(wrapper, _)| wrapper);
    let board = state.board(steer);
    let cursor = board.cursor();
    let stream = Stream {
        ticket: Some(format!("/api/towns/{town}/agents/{}/stream-ticket", resident.id)),
        path: format!("/v1/agents/{}/stream", resident.id),
        epoch: cursor.epoch.to_string(),
        after: cursor.seq.get(),
        log: log.to_string(),
    };
    let page = page::agent::AgentPage {
        name: &resident.name,
        agent: resident.id.as_str(),
        role: resident.role.as_str(),
        town: town.as_str(),
        title: &title,
        needs,
        steer,
        presence,
        stream,
    };
    Ok(page::agent::page(&page, board.regions()).into_string())
}

/// One event as it is in the log: read after the position before it.
async fn event_page(
    State(dashboard): State<Dashboard>,
    Path((agent, seq)): Path<(String, u64)>,
    headers: HeaderMap,
    uri: Uri,
) -> Response {
    let found = async {
        let gone =
            || Refused::new(ErrorCode::NotFound, "This event is no longer kept: a newer one took its place.");
        let resident = agent.parse::<AgentId>().map_err(|_| gone())?;
        let log = LogId::Agent(resident);
        dashboard.admit(&headers, None, Capability::Read, &log)?;
        let epoch = {
            let resident = dashboard.agent(&agent)?;
            let viewing = dashboard.feeds.follow(&resident.id, &resident.name);
            let _ = tokio::time::timeout(FOLD_TIMEOUT, viewing.feed().live()).await;
            viewing.feed().state().board(false).cursor().epoch
        };
        let start = StartAt::After(Cursor { epoch, seq: Seq::new(seq.saturating_sub(1)) });
        let mut deliveries = dashboard.worker.relay().follow(log, Some(start));
        let next = async {
            while let Some(delivery) = deliveries.next().await {
                match delivery {
                    Delivery::Event(event) => return Some(event),
                    Delivery::Gap { .. } | Delivery::Live { .. } => return None,
                    Delivery::Subscribed { .. } | Delivery::Presence { .. } | Delivery::Ended { .. } | _ => {}
                }
            }
            None
        };
        let event = tokio::time::timeout(EVENT_TIMEOUT, next).await.ok().flatten().ok_or_else(gone)?;
        if event.seq == Seq::new(seq) { Ok(event) } else { Err(gone()) }
    };
    match found.await {
        Ok(event) => {
            Html(page::message::event(dashboard.worker.town_id().as_str(), &agent, &event).into_string())
                .into_response()
        }
        Err(refused) => dashboard.refusal(&refused, &uri),
    }
}

async fn agent_stream(
    State(dashboard): State<Dashboard>,
    Path(agent): Path<String>,
    Query(query): Query<StreamQuery>,
    headers: HeaderMap,
    uri: Uri,
    upgrade: WebSocketUpgrade,
) -> Response {
    let upgrade = limited(upgrade);
    let admitted = agent.parse::<AgentId>().map_err(|_| ErrorCode::UnknownLog).and_then(|id| {
        let log = LogId::Agent(id);
        let grant =
            dashboard.admit(&headers, Some(&uri), Capability::Read, &log).map_err(|refused| refused.code)?;
        let resident = dashboard.agent(&agent).map_err(|_| ErrorCode::UnknownLog)?;
        Ok((resident, grant.allows(Capability::Steer, &log)))
    });
    match admitted {
        Ok((resident, steer)) => {
            let source = AgentSource { viewing: dashboard.feeds.follow(&resident.id, &resident.name), steer };
            let worker = dashboard.worker.clone();
            upgrade
                .on_upgrade(move |socket| viewer::serve(socket, source, query.cursor(), move || worker.now()))
        }
        Err(code) => upgrade.on_upgrade(move |socket| viewer::refuse(socket, code.close())),
    }
}

async fn fleet_stream(
    State(dashboard): State<Dashboard>,
    Path(town): Path<String>,
    Query(query): Query<StreamQuery>,
    headers: HeaderMap,
    uri: Uri,
    upgrade: WebSocketUpgrade,
) -> Response {
    let upgrade = limited(upgrade);
    let ours = dashboard.worker.town_id().clone();
    let admitted = if town == ours.as_str() {
        dashboard
            .admit(&headers, Some(&uri), Capability::Read, &LogId::Town(ours))
            .map_err(|refused| refused.code)
    } else {
        Err(ErrorCode::UnknownLog)
    };
    match admitted {
        Ok(grant) => {
            let source = dashboard.fleet.follow(grant.has(Capability::Steer));
            let worker = dashboard.worker.clone();
            upgrade
                .on_upgrade(move |socket| viewer::serve(socket, source, query.cursor(), move || worker.now()))
        }
        Err(code) => upgrade.on_upgrade(move |socket| viewer::refuse(socket, code.close())),
    }
}

impl StreamQuery {
    fn cursor(&self) -> Option<Cursor> {
        Some(Cursor { epoch: Epoch::new(self.epoch.as_deref()?), seq: Seq::new(self.after?) })
    }
}

fn limited(upgrade: WebSocketUpgrade) -> WebSocketUpgrade {
    upgrade.max_message_size(limits::VIEWER_FRAME_BYTES).max_frame_size(limits::VIEWER_FRAME_BYTES)
}

async fn not_found(State(dashboard): State<Dashboard>) -> Response {
    let page = page::message::refusal(
        dashboard.worker.town_id().as_str(),
        "Nothing here",
        "There is no page of this name.",
        "/agents",
    );
    (StatusCode::NOT_FOUND, Html(page.into_string())).into_response()
}
