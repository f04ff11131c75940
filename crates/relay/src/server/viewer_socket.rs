//! The viewers' WebSockets: what they ask for, before a writer has them.

use std::net::SocketAddr;

use axum::{
    Extension,
    extract::{ConnectInfo, Query, State, rejection::QueryRejection},
    response::Response,
};
use protocol::{Cursor, Epoch, ErrorCode, ErrorDetail, LogId, Seq, frame::StartAt};
use serde::Deserialize;

use super::{Relay, clock, socket::Upgrade};
use crate::{auth::Grant, filter::TypeFilter, viewer::Viewer};

/// Where a reader of one log starts, as the query says it.
#[derive(Debug, Default, Deserialize)]
pub(super) struct StartQuery {
    after: Option<String>,
    epoch: Option<String>,
    types: Option<String>,
    view: Option<String>,
}

impl StartQuery {
    /// The cursor and the filter. A position without an epoch is taken to be of the log's own, which `current` is.
    pub(super) fn parse(self, current: Option<&Epoch>) -> Result<(Option<StartAt>, TypeFilter), ErrorDetail> {
        let bad = |message: String| ErrorDetail::new(ErrorCode::BadRequest, message);
        if self.view.is_some_and(|view| view != "events") {
            let message = "this relay sends events: other views are the worker's";
            return Err(ErrorDetail::new(ErrorCode::Unsupported, message));
        }
        let filter =
            TypeFilter::parse(self.types.as_deref().unwrap_or_default()).map_err(|e| bad(e.to_string()))?;
        let from = match (self.after.as_deref(), self.epoch, current) {
            (None, _, _) => None,
            (Some("head"), _, _) => Some(StartAt::Head),
            (Some(after), epoch, current) => {
                let seq = after.parse::<u64>().ok().and_then(|seq| Seq::try_from(seq).ok());
                let seq = seq.ok_or_else(|| bad("`after` is a position or `head`".to_owned()))?;
                let epoch = epoch.map(|epoch| Epoch::new(&epoch)).or_else(|| current.cloned());
                epoch.map(|epoch| StartAt::After(Cursor { epoch, seq }))
            }
        };
        Ok((from, filter))
    }
}

/// `GET /v1/agents/{agent}/stream`, `GET /v1/towns/{town}/stream`.
pub(super) async fn one_log(
    State(relay): State<Relay>,
    Extension(grant): Extension<Grant>,
    Extension(log): Extension<LogId>,
    peer: Option<Extension<ConnectInfo<SocketAddr>>>,
    query: Result<Query<StartQuery>, QueryRejection>,
    upgrade: Upgrade,
) -> Response {
    let query = match query {
        Ok(Query(query)) => query,
        Err(error) => {
            return upgrade.refuse(&relay, ErrorDetail::new(ErrorCode::BadRequest, error.body_text()));
        }
    };
    let current = relay.store().bounds(&log).await.ok().map(|bounds| bounds.epoch);
    match query.parse(current.as_ref()) {
        Ok((from, filter)) => {
            let viewer = Viewer::of_one_log(clock::instant(), log, from, filter);
            serve(&relay, grant, peer, upgrade, viewer)
        }
        Err(why) => upgrade.refuse(&relay, why),
    }
}

/// `GET /v1/stream`.
pub(super) async fn many_logs(
    State(relay): State<Relay>,
    Extension(grant): Extension<Grant>,
    peer: Option<Extension<ConnectInfo<SocketAddr>>>,
    upgrade: Upgrade,
) -> Response {
    let viewer = std::future::ready(Viewer::new(clock::instant())).await;
    serve(&relay, grant, peer, upgrade, viewer)
}

fn serve(
    relay: &Relay,
    grant: Grant,
    peer: Option<Extension<ConnectInfo<SocketAddr>>>,
    upgrade: Upgrade,
    viewer: Viewer,
) -> Response {
    let place = match relay.place(peer.as_deref()) {
        Ok(place) => place,
        Err(why) => {
            relay.metrics().refused(why.code);
            return upgrade.refuse(relay, why);
        }
    };
    let served = relay.clone();
    upgrade.at(place).accept(relay, async move |io| served.writers().serve(&served, io, viewer, grant))
}
