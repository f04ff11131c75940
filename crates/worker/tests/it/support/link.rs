//! The ingest link of a wrapper, played by the test (`docs/protocol.md` §6).

use futures_util::{SinkExt as _, StreamExt as _};
use protocol::{
    Command, CommandId, NewEvent, Timestamp,
    config::SealedConfig,
    frame::{FromWrapper, RuntimeInfo, ToWrapper},
};
use tokio::net::TcpStream;
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async,
    tungstenite::{ClientRequestBuilder, Message},
};

use super::{in_time, wrappers::Launched};

/// One link that is up.
pub(crate) struct FakeLink {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    next: u64,
    /// What it was greeted with, or commanded with last.
    pub(crate) config: Option<SealedConfig>,
}

impl FakeLink {
    /// Connects as the wrapper that was launched, with the token that it was given.
    pub(crate) async fn connect(launched: &Launched) -> Self {
        let mut link = Self::greet(launched, protocol::PROTOCOL).await;
        link.config = link
            .hear(|frame| {
                let ToWrapper::Welcome { config, .. } = frame else { return None };
                Some(config.clone())
            })
            .await;
        link
    }

    /// Connects as a wrapper of another protocol, and is turned away.
    pub(crate) async fn refused(launched: &Launched, protocol: u32) {
        let mut link = Self::greet(launched, protocol).await;
        let closed = async {
            loop {
                if let Message::Close(_) = link.socket.next().await.expect("it is closed in order").unwrap() {
                    return;
                }
            }
        };
        in_time("it is turned away", closed).await;
    }

    async fn greet(launched: &Launched, protocol: u32) -> Self {
        let spec = &launched.spec;
        let url = format!("{}/v1/ingest", spec.relay.replacen("http", "ws", 1));
        let request = ClientRequestBuilder::new(url.parse().unwrap())
            .with_header("Authorization", format!("Bearer {}", spec.token.expose()));
        let (socket, _) = in_time("the link is made", connect_async(request)).await.unwrap();
        let mut link = Self { socket, next: 1, config: None };
        link.say(&FromWrapper::Hello {
            protocol,
            wrapper_version: "0.1.0".into(),
            agent: spec.agent.id.clone(),
            town: spec.town.clone(),
            producer: format!("prd_{}_{}", spec.agent.id, spec.generation).parse().unwrap(),
            generation: spec.generation,
            runtime: RuntimeInfo { name: "fake".into(), version: "1".into() },
            next: 1,
        })
        .await;
        link
    }

    /// Sends an event, and waits until it is committed.
    pub(crate) async fn event(&mut self, kind: &str, data: &serde_json::Value) {
        let event = NewEvent::of(Timestamp::from_unix_ms(1_795_000_000_000), kind, data).unwrap();
        let sent = self.next;
        self.next += 1;
        self.say(&FromWrapper::Append { first: sent, events: vec![event] }).await;
        self.hear(|frame| matches!(frame, ToWrapper::Ack { through, .. } if *through >= sent).then_some(()))
            .await;
    }

    /// The next command; it is answered with success.
    pub(crate) async fn command(&mut self) -> (CommandId, Command) {
        let command = |frame: &ToWrapper| {
            let ToWrapper::Command { id, command, config } = frame else { return None };
            Some((id.clone(), command.clone(), config.clone()))
        };
        let (id, command, config) = self.hear(command).await;
        self.config = config;
        self.say(&FromWrapper::Result { id: id.clone(), ok: true, error: None, data: None }).await;
        (id, command)
    }

    async fn say(&mut self, frame: &FromWrapper) {
        let text = serde_json::to_string(frame).unwrap();
        self.socket.send(Message::text(text)).await.unwrap();
    }

    async fn hear<T>(&mut self, want: impl Fn(&ToWrapper) -> Option<T>) -> T {
        let found = async {
            loop {
                let message = self.socket.next().await.expect("the link stays up").unwrap();
                if let Message::Text(text) = message
                    && let Some(found) = want(&serde_json::from_str(&text).unwrap())
                {
                    return found;
                }
            }
        };
        in_time("the relay says it", found).await
    }
}
