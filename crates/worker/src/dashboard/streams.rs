//! The streams of `view=html`: what makes a page live (`docs/protocol.md` §4, §5).

use axum::{
    extract::{Path, Query, State, WebSocketUpgrade},
    response::Response,
};
use http::{HeaderMap, Uri};
use protocol::{AgentId, Cursor, Epoch, ErrorCode, LogId, Seq, limits};
use relay::auth::{Capability, Grant};
use tokio::time::timeout;

use super::{
    Dashboard,
    live::{
        feeds::AgentSource,
        replay::Replay,
        viewer::{self, Source},
    },
    page::scrub::Speed,
    pages::{FOLD_TIMEOUT, reader_of},
    part::Reader,
    past::Past,
};

/// Bytes that are read from a viewer at once: it says little more than `pong`.
const READ_BUFFER: usize = 4 * 1024;
/// Bytes that are gathered before they are written: a patch is one write anyway.
const WRITE_BUFFER: usize = 4 * 1024;
/// Bytes that wait to be written at most: the largest frame is a whole page.
const WRITE_BUFFER_MAX: usize = 16 * 1024 * 1024;

/// Where a page is.
#[derive(Debug, Default, serde::Deserialize)]
pub(super) struct StreamQuery {
    after: Option<u64>,
    epoch: Option<String>,
    /// The position of the past to play on from.
    at: Option<u64>,
    /// How fast.
    speed: Option<Speed>,
}

/// `GET /v1/agents/{agent}/stream`.
pub(super) async fn agent(
    State(dashboard): State<Dashboard>,
    Path(agent): Path<String>,
    Query(query): Query<StreamQuery>,
    headers: HeaderMap,
    uri: Uri,
    upgrade: WebSocketUpgrade,
) -> Response {
    let admitted = agent.parse::<AgentId>().map_err(|_| ErrorCode::UnknownLog).and_then(|id| {
        let log = LogId::Agent(id);
        let grant =
            dashboard.admit(&headers, Some(&uri), Capability::Read, &log).map_err(|refused| refused.code)?;
        let resident = dashboard.agent(&agent).map_err(|_| ErrorCode::UnknownLog)?;
        let reader = reader_of(&grant, &log);
        let viewing = dashboard.feeds.follow(&resident.id, &resident.name);
        let town = (reader != Reader::Guest).then(|| dashboard.fleet.follow(reader == Reader::Steers));
        Ok((AgentSource { viewing, reader, town }, grant))
    });
    match (admitted, query.at.zip(query.speed)) {
        (Ok((source, grant)), Some((from, speed))) => {
            let replay = replay(&dashboard, &source, &grant.subject, Seq::new(from), speed).await;
            serve(&dashboard, upgrade, &query, replay.map(|replay| (replay, grant)))
        }
        (admitted, _) => serve(&dashboard, upgrade, &query, admitted),
    }
}

/// The past of an agent, played from a position on. Who came by a share link is shown the present only.
async fn replay(
    dashboard: &Dashboard,
    source: &AgentSource,
    watcher: &str,
    from: Seq,
    speed: Speed,
) -> Result<Replay, ErrorCode> {
    if source.reader == Reader::Guest {
        return Err(ErrorCode::Forbidden);
    }
    let room = dashboard.replays.room(watcher).ok_or(ErrorCode::RateLimited)?;
    let read = async {
        source.ready().await;
        let log = source.viewing.feed().state().log();
        Past::read(&**dashboard.worker.relay(), log).await
    };
    let past = timeout(FOLD_TIMEOUT, read).await.map_err(|_| ErrorCode::NotFound)?;
    let (scope, timeline) = {
        let state = source.viewing.feed().state();
        (state.scope(Reader::Reads), state.model().timeline.clone())
    };
    let epoch = Epoch::new(&uuid::Uuid::now_v7().simple().to_string());
    Replay::begin(room, past, from, speed, scope, timeline, epoch).ok_or(ErrorCode::NotFound)
}

/// `GET /v1/towns/{town}/stream`.
pub(super) async fn fleet(
    State(dashboard): State<Dashboard>,
    Path(town): Path<String>,
    Query(query): Query<StreamQuery>,
    headers: HeaderMap,
    uri: Uri,
    upgrade: WebSocketUpgrade,
) -> Response {
    let ours = dashboard.worker.town_id().clone();
    let admitted = if town == ours.as_str() {
        let grant = dashboard.admit(&headers, Some(&uri), Capability::Read, &LogId::Town(ours));
        grant.map_err(|refused| refused.code)
    } else {
        Err(ErrorCode::UnknownLog)
    };
    let admitted = admitted.map(|grant| (dashboard.fleet.follow(grant.has(Capability::Steer)), grant));
    serve(&dashboard, upgrade, &query, admitted)
}

fn serve<S: Source + 'static>(
    dashboard: &Dashboard,
    upgrade: WebSocketUpgrade,
    query: &StreamQuery,
    admitted: Result<(S, Grant), ErrorCode>,
) -> Response {
    let upgrade = upgrade
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(WRITE_BUFFER)
        .max_write_buffer_size(WRITE_BUFFER_MAX)
        .max_message_size(limits::VIEWER_FRAME_BYTES)
        .max_frame_size(limits::VIEWER_FRAME_BYTES);
    match admitted {
        Ok((source, grant)) => {
            let (worker, cursor) = (dashboard.worker.clone(), query.cursor());
            upgrade.on_upgrade(move |socket| {
                viewer::serve(socket, source, cursor, grant.lease, move || worker.now())
            })
        }
        Err(code) => upgrade.on_upgrade(move |socket| viewer::refuse(socket, code.close())),
    }
}

impl StreamQuery {
    fn cursor(&self) -> Option<Cursor> {
        Some(Cursor { epoch: Epoch::new(self.epoch.as_deref()?), seq: Seq::new(self.after?) })
    }
}
