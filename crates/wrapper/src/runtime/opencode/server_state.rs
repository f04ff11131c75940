//! What the server says of a session and its sub-agents when it is asked.
//!
//! The newest messages are asked for, in pages. Newer servers also have `POST /sync/history`, which is of no use here: it names what to
//! leave out, and gives every event of every other session that any folder of the user's ever had; opencode says only on
//! `/global/event` how far a session has come; and it knows neither status nor asks.

use std::{collections::BTreeSet, time::Duration};

use serde_json::Value;
use tokio::time::{Instant, timeout_at};

use super::{
    Flavour,
    api::{Api, ApiError},
};
use crate::runtime::ServerState;

/// Messages that are asked for at once.
const PAGE: usize = 100;
/// Pages of one session: a log does not hold more.
const PAGES: usize = 5;
/// After this long the newest page of each session is to do.
const ENOUGH: Duration = Duration::from_secs(10);

/// What whoever lost events is to know.
pub(super) async fn fetch(api: &Api, flavour: Flavour, root: &str) -> Result<ServerState, ApiError> {
    let sessions = sessions(api, root).await?;
    let ids: Vec<&str> = sessions.iter().filter_map(|session| session["id"].as_str()).collect();
    let until = Instant::now() + ENOUGH;
    let (mut messages, mut cut) = (Vec::new(), BTreeSet::new());
    for id in &ids {
        let (newest, has_more) = newest_messages(api, id, until).await?;
        messages.extend(newest);
        cut.extend(has_more.then(|| (*id).to_owned()));
    }
    let Value::Object(status) = api.get(&["session", "status"]).await? else {
        return Err(ApiError::Shape { what: "the status is no object" });
    };
    let known: BTreeSet<&str> = ids.into_iter().collect();
    let permissions = pending(api, "permission", &known).await?;
    let questions = pending(api, "question", &known).await?;
    let networks = if flavour.asks_about_the_network() {
        pending_if_known(api, "network", &known).await?
    } else {
        Vec::new()
    };
    Ok(ServerState { sessions, messages, cut, status, permissions, questions, networks })
}

/// The newest messages of a session, oldest first, and whether there are more.
async fn newest_messages(api: &Api, session: &str, until: Instant) -> Result<(Vec<Value>, bool), ApiError> {
    let path = ["session", session, "message"];
    let (newest, mut cursor) = api.page(&path, PAGE, None).await?;
    let mut messages = list(newest)?;
    for _ in 1..PAGES {
        let Some(before) = &cursor else { break };
        // Without what is older, what is newer can be compared all the same.
        let Ok(Ok((older, next))) = timeout_at(until, api.page(&path, PAGE, Some(before))).await else {
            break;
        };
        let mut older = list(older)?;
        older.append(&mut messages);
        (messages, cursor) = (older, next);
    }
    Ok((messages, cursor.is_some()))
}

/// A session and those below it, parents before children; none if it is gone.
pub(super) async fn sessions(api: &Api, root: &str) -> Result<Vec<Value>, ApiError> {
    let mut sessions = match api.get(&["session", root]).await {
        Ok(session) => vec![session],
        Err(ApiError::Status { status: 404, .. }) => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut seen: BTreeSet<String> = BTreeSet::from([root.to_owned()]);
    let mut next = 0;
    while let Some(id) = sessions.get(next).and_then(|session| session["id"].as_str()).map(str::to_owned) {
        next += 1;
        for child in list(api.get(&["session", &id, "children"]).await?)? {
            if child["id"].as_str().is_some_and(|id| seen.insert(id.to_owned())) {
                sessions.push(child);
            }
        }
    }
    Ok(sessions)
}

/// The asks of one kind (`permission`, `question`, `network`) that wait in these sessions.
pub(super) async fn pending(
    api: &Api,
    kind: &str,
    sessions: &BTreeSet<&str>,
) -> Result<Vec<Value>, ApiError> {
    let asks = list(api.get(&[kind]).await?)?;
    Ok(asks
        .into_iter()
        .filter(|ask| ask["sessionID"].as_str().is_some_and(|id| sessions.contains(id)))
        .collect())
}

/// The same; none from an older version, which has no such list, and no such asks then.
pub(super) async fn pending_if_known(
    api: &Api,
    kind: &str,
    sessions: &BTreeSet<&str>,
) -> Result<Vec<Value>, ApiError> {
    match pending(api, kind, sessions).await {
        Err(ApiError::Status { status: 404, .. } | ApiError::Shape { .. }) => Ok(Vec::new()),
        asks => asks,
    }
}

fn list(value: Value) -> Result<Vec<Value>, ApiError> {
    let Value::Array(list) = value else {
        return Err(ApiError::Shape { what: "no list where a list was asked for" });
    };
    Ok(list)
}
