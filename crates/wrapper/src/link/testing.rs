//! A link's other end, played by a test: no network, and time stands still where the test's clock does.

use std::{io, sync::Arc};

use async_trait::async_trait;
use futures_util::{SinkExt as _, StreamExt as _};
use protocol::{
    CloseCode,
    codec::Frame,
    frame::{FromWrapper, IngestLimits, RuntimeInfo, ToWrapper},
};
use tokio::{
    io::{DuplexStream, duplex},
    sync::mpsc,
};
use tokio_tungstenite::{
    WebSocketStream, accept_async,
    tungstenite::{Message, Utf8Bytes, protocol::CloseFrame},
};

use super::{Dial, Io, LinkConfig, Token};

/// Bytes on the way in each direction: soon a peer that reads nothing takes nothing.
const ON_THE_WAY: usize = 1024;

/// What is dialled.
#[derive(Debug)]
struct Dialled(mpsc::Sender<DuplexStream>);

#[async_trait]
impl Dial for Dialled {
    async fn dial(&self, _host: &str, _port: u16) -> io::Result<Box<dyn Io>> {
        let (near, far) = duplex(ON_THE_WAY);
        self.0.send(far).await.map_err(|_| io::ErrorKind::ConnectionRefused)?;
        Ok(Box::new(near))
    }
}

/// A relay that is whatever the test says.
pub(super) struct Relay(mpsc::Receiver<DuplexStream>);

/// One connection of it.
pub(super) struct Peer(WebSocketStream<DuplexStream>);

impl Relay {
    pub(super) fn new() -> (Arc<dyn Dial>, Self) {
        let (dialled, relay) = mpsc::channel(1);
        (Arc::new(Dialled(dialled)), Self(relay))
    }

    pub(super) async fn accept(&mut self) -> Peer {
        let stream = self.0.recv().await.expect("somebody may still dial");
        Peer(accept_async(stream).await.expect("the other side speaks WebSocket"))
    }

    /// Accepts a link, and greets it.
    pub(super) async fn welcome(&mut self) -> Peer {
        let mut peer = self.accept().await;
        assert!(matches!(peer.hear().await, Ok(FromWrapper::Hello { .. })), "`hello` comes first");
        let limits = IngestLimits::default();
        peer.say(&ToWrapper::Welcome { protocol: 1, acked: 0, limits, config: None }).await;
        peer
    }
}

impl Peer {
    pub(super) async fn say<F: Frame>(&mut self, frame: &F) {
        let text = Utf8Bytes::try_from(frame.encode()).expect("a frame is JSON");
        self.0.send(Message::Text(text)).await.expect("the connection holds");
    }

    /// The next frame, or why the other side closed.
    pub(super) async fn hear(&mut self) -> Result<FromWrapper, String> {
        loop {
            match self.0.next().await {
                Some(Ok(Message::Text(text))) => {
                    return Ok(FromWrapper::decode(text.as_bytes()).expect("a wrapper says frames"));
                }
                Some(Ok(Message::Close(frame))) => {
                    return Err(frame.map(|frame| frame.reason.to_string()).unwrap_or_default());
                }
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(error.to_string()),
                None => return Err("there is no connection".to_owned()),
            }
        }
    }

    /// Reads, and so answers pings, to the end.
    pub(super) async fn hear_all(&mut self) {
        while self.0.next().await.is_some() {}
    }

    /// Says this code, to whoever still listens.
    pub(super) async fn close(&mut self, code: CloseCode) {
        let frame = CloseFrame { code: code.0.into(), reason: "closed".into() };
        let _ = self.0.close(Some(frame)).await;
    }
}

pub(super) fn config() -> LinkConfig {
    LinkConfig {
        relay: "http://relay".to_owned(),
        token: Token::new("canary"),
        agent: "a".parse().expect("an id"),
        town: "main".parse().expect("an id"),
        generation: 2,
        runtime: RuntimeInfo { name: "scripted".to_owned(), version: "1".to_owned() },
        seed: 7,
    }
}
