//! One viewer of a live page: a WebSocket with the frames of `docs/protocol.md` §5.

use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket};
use bytes::Bytes;
use protocol::{
    CloseCode, Cursor, Timestamp,
    frame::{FromViewer, ToViewer},
    limits::{DEAD_MS, HEARTBEAT_MS, STALLED_MS},
};
use relay::auth::Lease;
use tokio::{
    sync::watch,
    time::{Instant, sleep_until, timeout},
};

use super::board::{Board, Place, encode};

/// What a viewer follows.
pub(crate) trait Source: Send + Sync {
    /// Until there is a page.
    fn ready(&self) -> impl Future<Output = ()> + Send;
    /// Goes up with every change of the page.
    fn changes(&self) -> watch::Receiver<u64>;
    /// Looks at the page.
    fn with_board<T>(&self, look: impl FnOnce(&Board) -> T) -> T;
    /// Frames beside the page's own that who joins is sent.
    fn standing(&self) -> Vec<Bytes>;
}

/// Serves a viewer until either side ends, or what it was let in for is over.
pub(crate) async fn serve(
    mut socket: WebSocket,
    source: impl Source,
    cursor: Option<Cursor>,
    lease: Lease,
    now: impl Fn() -> Timestamp + Send,
) {
    let code = tokio::select! {
        code = follow(&mut socket, &source, cursor, now) => code,
        () = lease.ended() => Some(CloseCode::UNAUTHENTICATED),
    };
    if let Some(code) = code {
        refuse(socket, code).await;
    }
}

/// Refuses a viewer: browsers hide the status of a refused upgrade, so that it is upgraded and closed (§4).
pub(crate) async fn refuse(mut socket: WebSocket, code: CloseCode) {
    let frame = CloseFrame { code: code.0, reason: "".into() };
    if timeout(Duration::from_secs(5), socket.send(Message::Close(Some(frame))))
        .await
        .is_ok_and(|sent| sent.is_ok())
    {
        // Read on until the peer's own close, or the close is unclean.
        let drained = async { while let Some(Ok(_)) = socket.recv().await {} };
        let _ = timeout(Duration::from_secs(5), drained).await;
    }
}

/// What happens next.
enum Next {
    Changed,
    Heartbeat,
    Heard,
    Closed(Option<CloseCode>),
}

/// The code to close with; nothing if the peer is gone already.
async fn follow(
    socket: &mut WebSocket,
    source: &impl Source,
    cursor: Option<Cursor>,
    now: impl Fn() -> Timestamp,
) -> Option<CloseCode> {
    let hello = ToViewer::Hello {
        protocol: 1,
        heartbeat_ms: HEARTBEAT_MS,
        server: concat!("gastown/", env!("CARGO_PKG_VERSION")).to_owned(),
    };
    if let Err(code) = send(socket, encode(&hello)).await {
        return code;
    }
    let mut changes = source.changes();
    let mut place: Option<Place> = None;
    let mut heard = Instant::now();
    let mut sent = Instant::now();
    let ready = source.ready();
    tokio::pin!(ready);
    let mut is_ready = false;
    loop {
        if is_ready {
            changes.mark_unchanged();
            let (frames, at) = next_frames(source, place, cursor.as_ref());
            place = Some(at);
            for frame in frames {
                sent = Instant::now();
                match send(socket, frame).await {
                    Ok(()) => {}
                    Err(code) => return code,
                }
            }
        }
        let next = tokio::select! {
            () = &mut ready, if !is_ready => { is_ready = true; Next::Changed }
            changed = changes.changed(), if is_ready => match changed {
                Ok(()) => Next::Changed,
                Err(_) => Next::Closed(Some(CloseCode::DRAINING)),
            },
            () = sleep_until(sent + Duration::from_millis(HEARTBEAT_MS)) => Next::Heartbeat,
            () = sleep_until(heard + Duration::from_millis(DEAD_MS)) => Next::Closed(Some(CloseCode::STALLED)),
            message = socket.recv() => heard_of(message),
        };
        match next {
            Next::Changed => {}
            Next::Heard => heard = Instant::now(),
            Next::Heartbeat => {
                sent = Instant::now();
                if let Err(code) = send(socket, encode(&ToViewer::Heartbeat { time: now() })).await {
                    return code;
                }
            }
            Next::Closed(code) => return code,
        }
    }
}

/// What a viewer at a place is to be sent. One without a place joins; one that fell behind joins again with the whole page.
fn next_frames(source: &impl Source, place: Option<Place>, cursor: Option<&Cursor>) -> (Vec<Bytes>, Place) {
    let followed = place.and_then(|place| source.with_board(|board| board.after(place)));
    followed.unwrap_or_else(|| {
        let (mut frames, place) =
            source.with_board(|board| board.join(if place.is_none() { cursor } else { None }));
        frames.extend(source.standing());
        (frames, place)
    })
}

/// A viewer only says that it is there: steering goes through forms.
fn heard_of(message: Option<Result<Message, axum::Error>>) -> Next {
    match message {
        Some(Ok(Message::Text(text))) => match serde_json::from_str::<FromViewer>(&text) {
            Ok(_) => Next::Heard,
            Err(_) => Next::Closed(Some(CloseCode::BAD_REQUEST)),
        },
        Some(Ok(Message::Ping(_) | Message::Pong(_))) => Next::Heard,
        Some(Ok(Message::Binary(_))) => Next::Closed(Some(CloseCode::BAD_REQUEST)),
        Some(Ok(Message::Close(_)) | Err(_)) | None => Next::Closed(None),
    }
}

/// Sends a frame; a peer that accepts no byte for too long is stalled.
async fn send(socket: &mut WebSocket, frame: Bytes) -> Result<(), Option<CloseCode>> {
    let text = Utf8Bytes::try_from(frame).expect("JSON is UTF-8");
    match timeout(Duration::from_millis(STALLED_MS), socket.send(Message::Text(text))).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => Err(None),
        Err(_) => Err(Some(CloseCode::STALLED)),
    }
}
