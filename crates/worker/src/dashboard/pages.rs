//! The pages: who may see them, and what they are made of.

use std::{collections::BTreeMap, time::Duration};

use axum::{
    extract::{Path, Query, State, rejection::QueryRejection},
    response::{Html, IntoResponse, Redirect, Response},
};
use futures_util::StreamExt as _;
use http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use protocol::{AgentId, Cursor, ErrorCode, LogId, Seq, frame::StartAt, search};
use relay::{
    Delivery,
    auth::{Capability, Grant},
};
use serde::Deserialize;
use tokio::time::timeout;

use super::{
    Dashboard, Refused,
    live::{fleet::FleetSource, viewer::Source as _},
    page::{self, agent::PageTime, scrub::Speed, search::Asked, shell::Stream},
    part::Reader,
    past::Past,
    timeline::MOMENTS,
    transcript::{Cache, Window},
};

/// How long a page waits for the fold of a log that is not there yet or long.
pub(super) const FOLD_TIMEOUT: Duration = Duration::from_secs(5);
/// How long one raw event is waited for.
const EVENT_TIMEOUT: Duration = Duration::from_secs(2);

/// `GET /agents`: every agent.
pub(super) async fn fleet(State(dashboard): State<Dashboard>, headers: HeaderMap, uri: Uri) -> Response {
    let town = dashboard.worker.town_id().clone();
    let grant = match dashboard.admit(&headers, None, Capability::Read, &LogId::Town(town.clone())) {
        Ok(grant) => grant,
        Err(refused) => return dashboard.refusal(&refused, &uri),
    };
    let source = dashboard.fleet.follow(grant.has(Capability::Steer));
    source.ready().await;
    let headline = dashboard.feeds.headline();
    let page = source.with_board(|board| {
        let cursor = board.cursor();
        let stream = Stream {
            ticket: None,
            key: None,
            path: format!("/v1/towns/{town}/stream"),
            epoch: cursor.epoch.to_string(),
            after: cursor.seq.get(),
            log: LogId::Town(town.clone()).to_string(),
        };
        page::fleet::page(town.as_str(), headline, stream, board.regions())
    });
    Html(page.into_string()).into_response()
}

/// What of an agent is to be shown.
#[derive(Debug, Default, Deserialize)]
pub(super) struct AgentQuery {
    /// The rows before this one, too.
    before: Option<String>,
    /// At least from this part on.
    part: Option<String>,
    /// The past at this position.
    at: Option<u64>,
    /// The past at this moment of the timeline.
    moment: Option<usize>,
    /// The past, played on from there.
    speed: Option<Speed>,
}

/// `GET /agents/{agent}`: one agent, live or as it was.
pub(super) async fn agent(
    State(dashboard): State<Dashboard>,
    Path(agent): Path<String>,
    query: Result<Query<AgentQuery>, QueryRejection>,
    headers: HeaderMap,
    uri: Uri,
) -> Response {
    let answer = async {
        // Who is nobody is not told which agents there are.
        let log = LogId::Agent(agent.parse().map_err(|_| no_such_agent())?);
        let grant = dashboard.admit(&headers, None, Capability::Read, &log)?;
        let Query(query) = query.map_err(|error| Refused::new(ErrorCode::BadRequest, error.body_text()))?;
        agent_page(&dashboard, &agent, &grant, &query, None).await
    };
    answer.await.unwrap_or_else(|refused| dashboard.refusal(&refused, &uri))
}

/// `GET /shared/{token}`: one agent, for whoever has the link.
pub(super) async fn shared(
    State(dashboard): State<Dashboard>,
    Path(token): Path<String>,
    query: Result<Query<AgentQuery>, QueryRejection>,
) -> Response {
    let query = query.map(|Query(query)| query).unwrap_or_default();
    let answer = match dashboard.worker.shared(&token) {
        Ok(shared) => {
            let query = AgentQuery { at: None, moment: None, speed: None, ..query };
            let agent = shared.agent.to_string();
            agent_page(&dashboard, &agent, &shared.grant, &query, Some(token)).await
        }
        Err(error) => Err(Refused::new(error.code(), "This link was revoked, or it has expired.")),
    };
    let mut response = answer.unwrap_or_else(|refused| {
        let town = dashboard.worker.town_id().as_str();
        let page = page::message::refusal(town, None, "Not shared any more", &refused.words, None);
        (refused.status(), Html(page.into_string())).into_response()
    });
    // The address is the key: no other server is to learn it.
    response.headers_mut().insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    response
}

async fn agent_page(
    dashboard: &Dashboard,
    agent: &str,
    grant: &Grant,
    query: &AgentQuery,
    share: Option<String>,
) -> Result<Response, Refused> {
    let resident = dashboard.agent(agent)?;
    let log = LogId::Agent(resident.id.clone());
    let reader = reader_of(grant, &log);
    let viewing = dashboard.feeds.follow(&resident.id, &resident.name);
    let _town = dashboard.town_of(reader).await;
    // An agent that never started has no log yet: its page is shown empty, and fills itself.
    let _ = timeout(FOLD_TIMEOUT, viewing.feed().live()).await;
    if let Some(moment) = query.moment {
        let column = viewing.feed().state().model().timeline.column_at(moment).copied();
        let to = match column.filter(|_| moment < MOMENTS) {
            Some(column) => format!("/agents/{}?at={}", resident.id, column.last),
            None => format!("/agents/{}", resident.id),
        };
        return Ok(Redirect::to(&to).into_response());
    }
    let window = match (&query.before, &query.part) {
        (Some(id), _) => Window::Before(id.clone()),
        (None, Some(id)) => Window::Around(id.clone()),
        (None, None) => Window::Newest,
    };
    let headline = dashboard.feeds.headline();
    let past = match query.at {
        Some(seq) => {
            let past = timeout(FOLD_TIMEOUT, Past::read(&**dashboard.worker.relay(), log.clone()));
            let gone = || Refused::new(ErrorCode::NotFound, "The log does not reach back to this position.");
            Some(past.await.ok().and_then(|past| past.at(Seq::new(seq))).ok_or_else(gone)?)
        }
        None => None,
    };
    let stream = || Stream {
        ticket: share.is_none().then(|| {
            format!("/api/towns/{}/agents/{}/stream-ticket", dashboard.worker.town_id(), resident.id)
        }),
        key: share.clone(),
        path: format!("/v1/agents/{}/stream", resident.id),
        log: log.to_string(),
        ..Stream::default()
    };
    let mut state = viewing.feed().state();
    let presence = state.presence().map(|(wrapper, _)| wrapper);
    let title = page::regions::title(&resident.name, state.model(), reader);
    let mut page = page::agent::AgentPage {
        name: &resident.name,
        agent: resident.id.as_str(),
        role: resident.role.as_str(),
        town: dashboard.worker.town_id().as_str(),
        title: &title,
        headline,
        reader,
        presence,
        window,
        time: PageTime::Live(Stream::default()),
    };
    let markup = match past {
        Some(scene) => {
            let timeline = &state.model().timeline;
            let scope = super::part::Scope { reader: Reader::Reads, ..state.scope(reader) };
            let (seq, moment) = (scene.seq, timeline.moment(scene.time));
            let replay = query.speed.map(|speed| {
                let mut stream = stream();
                stream.path = format!("{}?at={seq}&speed={}", stream.path, speed.factor());
                stream
            });
            page.time = PageTime::Past { seq, moment, replay };
            page::agent::page(
                &page,
                &page::regions::past(scene, &scope, timeline, query.speed, &mut Cache::default()),
            )
        }
        None => {
            let board = state.board(reader);
            let cursor = board.cursor();
            page.time = PageTime::Live(Stream {
                epoch: cursor.epoch.to_string(),
                after: cursor.seq.get(),
                ..stream()
            });
            page::agent::page(&page, board.regions())
        }
    };
    Ok(Html(markup.into_string()).into_response())
}

/// `GET /agents/{agent}/events/{seq}`: one event as it is in the log, read after the position before it.
pub(super) async fn event(
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
            let _ = timeout(FOLD_TIMEOUT, viewing.feed().live()).await;
            viewing.feed().state().board(Reader::Reads).cursor().epoch
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
        let event = timeout(EVENT_TIMEOUT, next).await.ok().flatten().ok_or_else(gone)?;
        if event.seq == Seq::new(seq) { Ok(event) } else { Err(gone()) }
    };
    match found.await {
        Ok(event) => {
            let (town, headline) = (dashboard.worker.town_id().as_str(), dashboard.feeds.headline());
            Html(page::message::event(town, headline, &agent, &event).into_string()).into_response()
        }
        Err(refused) => dashboard.refusal(&refused, &uri),
    }
}

/// What to look for, as the form sends it: a field that was left alone is empty.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct SearchQuery {
    q: String,
    agent: String,
    #[serde(rename = "type")]
    kind: String,
    before: String,
}

/// `GET /search`: what was said and done by every agent that the reader may read.
pub(super) async fn search(
    State(dashboard): State<Dashboard>,
    query: Result<Query<SearchQuery>, QueryRejection>,
    headers: HeaderMap,
    uri: Uri,
) -> Response {
    let town = dashboard.worker.town_id().clone();
    let grant = match dashboard.admit(&headers, None, Capability::Read, &LogId::Town(town.clone())) {
        Ok(grant) => grant,
        Err(refused) => return dashboard.refusal(&refused, &uri),
    };
    let query = query.map(|Query(query)| query).unwrap_or_default();
    let asked = Asked {
        words: query.q.trim().to_owned(),
        agent: query.agent.parse().ok(),
        kind: query.kind.parse().ok(),
    };
    let names: BTreeMap<AgentId, String> = {
        let known = dashboard.worker.town().borrow().clone();
        known.agents().values().map(|agent| (agent.id.clone(), agent.name.clone())).collect()
    };
    let readable =
        names.keys().filter(|agent| grant.allows(Capability::Read, &LogId::Agent((*agent).clone()))).cloned();
    let logs = page::search::logs_of(&asked, readable);
    let answer = match asked.words.parse::<search::Terms>() {
        _ if asked.words.is_empty() => None,
        Err(error) => Some(Err(format!("{error}."))),
        Ok(terms) => {
            let search = search::Search {
                logs: Some(logs),
                kinds: asked.kind.into_iter().collect(),
                before: query.before.parse().ok(),
                ..search::Search::of(terms)
            };
            Some(dashboard.worker.relay().search(&search).await.map_err(|error| format!("{error}.")))
        }
    };
    let headline = dashboard.feeds.headline();
    let page = page::search::SearchPage { town: town.as_str(), headline, asked: &asked, names: &names };
    let status = if matches!(answer, Some(Err(_))) { StatusCode::BAD_REQUEST } else { StatusCode::OK };
    (status, Html(page::search::page(&page, answer.as_ref()).into_string())).into_response()
}

fn no_such_agent() -> Refused {
    Refused::new(ErrorCode::NotFound, "There is no such agent in this town.")
}

/// Who reads with this grant: one that may end, and is no user's, is a share link's.
pub(super) fn reader_of(grant: &Grant, log: &LogId) -> Reader {
    let is_guest = grant.lease.is_limited() && grant.user.is_none();
    if is_guest { Reader::Guest } else { Reader::of(grant.allows(Capability::Steer, log)) }
}

impl Dashboard {
    /// The town, whose headline is known by then; nothing for guests.
    async fn town_of(&self, reader: Reader) -> Option<FleetSource> {
        if reader == Reader::Guest {
            return None;
        }
        let town = self.fleet.follow(reader == Reader::Steers);
        town.ready().await;
        Some(town)
    }
}
