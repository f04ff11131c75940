//! The transports behind one face: what they tell a reader, and how they refuse one.

use std::collections::VecDeque;

use futures_util::{StreamExt as _, stream::BoxStream};
use protocol::{Cursor, Epoch, ErrorBody, ErrorCode, Seq, frame::GapReason};
use reqwest::RequestBuilder;
use serde::Deserialize;
use serde_json::{Value, json, value::RawValue};

use crate::support::{Server, Socket, http, within};

/// A way to read a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transport {
    /// `GET …/stream`.
    WebSocket,
    /// `GET /v1/stream`, and a `subscribe` frame.
    ManyLogs,
    /// `GET …/events` as server-sent events.
    Sse,
    /// `GET …/events` as pages that wait.
    LongPoll,
}

/// Where a reader starts, what it wants to see, and what it shows.
#[derive(Debug, Clone, Default)]
pub(crate) struct Start<'a> {
    pub(crate) after: Option<Cursor>,
    pub(crate) at_head: bool,
    /// A comma list.
    pub(crate) types: &'a str,
    /// A ticket or a share link; empty for nothing at all. Without one the operator's token is shown.
    pub(crate) ticket: Option<String>,
}

/// What a reader is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Told {
    Subscribed {
        epoch: Epoch,
        floor: Seq,
        head: Seq,
    },
    Event {
        seq: Seq,
        text: String,
    },
    Gap {
        from: Option<Seq>,
        to: Option<Seq>,
        reason: GapReason,
    },
    /// All that is stored was given. Pages say it by the first of them that has no more after it.
    Live {
        head: Seq,
    },
    Ended,
}

/// How a reader was refused: by its word, and by a close code or a status.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) code: ErrorCode,
    number: u16,
}

/// A log that is read.
pub(crate) struct Reader {
    told: VecDeque<(Told, String)>,
    envelope: String,
    way: Way,
}

enum Way {
    WebSocket(Box<Socket>),
    Sse { body: BoxStream<'static, reqwest::Result<bytes::Bytes>>, buffer: String },
    LongPoll { next: Poll, is_live: bool, said_bounds: bool },
}

/// The next page to ask for.
struct Poll {
    url: String,
    bearer: Option<String>,
    types: String,
    after: Option<Cursor>,
    at_head: bool,
}

impl Transport {
    pub(crate) const ALL: [Self; 4] = [Self::WebSocket, Self::ManyLogs, Self::Sse, Self::LongPoll];

    /// Whether it has a word for an agent's end.
    pub(crate) fn says_ended(self) -> bool {
        self.keeps_open()
    }

    /// Whether it is more than one request after the other.
    pub(crate) fn keeps_open(self) -> bool {
        self != Self::LongPoll
    }

    /// Opens a log that can be had.
    pub(crate) async fn open(self, server: &Server, agent: &str, start: Start<'_>) -> Reader {
        let opened = self.try_open(server, agent, start).await;
        opened.unwrap_or_else(|refused| panic!("{self:?}: {refused:?}"))
    }

    /// Asserts that a log cannot be had, for this reason, with the number that goes with it (§8).
    pub(crate) async fn is_refused(self, server: &Server, agent: &str, start: Start<'_>, code: ErrorCode) {
        let Err(refused) = self.try_open(server, agent, start).await else { panic!("{self:?}: let in") };
        assert_eq!(refused.code, code, "{self:?}");
        let number = match self {
            Self::WebSocket => code.close().0,
            // The socket may stay open for other logs.
            Self::ManyLogs => refused.number,
            Self::Sse | Self::LongPoll => code.http_status(),
        };
        assert_eq!(refused.number, number, "{self:?}");
    }

    pub(crate) async fn try_open(
        self,
        server: &Server,
        agent: &str,
        start: Start<'_>,
    ) -> Result<Reader, Refused> {
        let bearer = match start.ticket {
            None => Some(server.operator()),
            Some(_) => None,
        };
        let mut query = Vec::new();
        if let Some(ticket) = start.ticket.as_ref().filter(|ticket| !ticket.is_empty()) {
            query.push(format!("ticket={ticket}"));
        }
        if self == Self::ManyLogs {
            let mut socket = server.stream_as(&with("/v1/stream", &query), bearer.as_ref()).await;
            let types = start.types.split(',').filter(|kind| !kind.is_empty()).collect::<Vec<_>>();
            let cursor = match start.after {
                Some(cursor) => json!(cursor),
                None if start.at_head => json!({"seq": "head"}),
                None => Value::Null,
            };
            let frame = json!({"type": "subscribe", "log": format!("agent/{agent}"), "cursor": cursor, "types": types});
            // A relay that refuses the socket may have closed it.
            socket.try_send(&frame).await;
            return Reader::begun(Way::WebSocket(Box::new(socket))).await;
        }
        if self == Self::LongPoll {
            let url = with(&server.http(&format!("/v1/agents/{agent}/events")), &query);
            let bearer = bearer.map(|token| token.expose().to_owned());
            let types = start.types.to_owned();
            let next = Poll { url, bearer, types, after: start.after, at_head: start.at_head };
            return Reader::begun(Way::LongPoll { next, is_live: false, said_bounds: false }).await;
        }
        match &start.after {
            // A browser that reconnects says where it was, and keeps the address it was opened with.
            Some(_) if self == Self::Sse => query.push("after=0".to_owned()),
            Some(Cursor { epoch, seq }) => query.extend([format!("epoch={epoch}"), format!("after={seq}")]),
            None if start.at_head => query.push("after=head".to_owned()),
            None => {}
        }
        if !start.types.is_empty() {
            query.push(format!("types={}", start.types));
        }
        if self == Self::WebSocket {
            let path = with(&format!("/v1/agents/{agent}/stream"), &query);
            let socket = server.stream_as(&path, bearer.as_ref()).await;
            return Reader::begun(Way::WebSocket(Box::new(socket))).await;
        }
        let url = with(&server.http(&format!("/v1/agents/{agent}/events")), &query);
        let mut request = http().get(url).header("accept", "text/event-stream");
        if let Some(cursor) = start.after {
            request = request.header("last-event-id", cursor.to_string());
        }
        if let Some(token) = bearer {
            request = request.bearer_auth(token.expose());
        }
        let body = answered(request).await?.bytes_stream().boxed();
        Reader::begun(Way::Sse { body, buffer: String::new() }).await
    }
}

impl Reader {
    /// Reads until something was told, or the log refused.
    async fn begun(way: Way) -> Result<Self, Refused> {
        let mut reader = Self { told: VecDeque::new(), envelope: String::new(), way };
        while reader.told.is_empty() {
            reader.read().await?;
        }
        Ok(reader)
    }

    pub(crate) async fn next(&mut self) -> Told {
        loop {
            if let Some((told, envelope)) = self.told.pop_front() {
                if matches!(told, Told::Event { .. }) {
                    self.envelope = envelope;
                }
                return told;
            }
            self.read().await.unwrap_or_else(|refused| panic!("{refused:?}"));
        }
    }

    /// Everything up to the live mark.
    pub(crate) async fn until_live(&mut self) -> Vec<Told> {
        let mut told = Vec::new();
        while !matches!(told.last(), Some(Told::Live { .. })) {
            told.push(self.next().await);
        }
        told
    }

    /// The same, without the bounds at its beginning.
    pub(crate) async fn until_live_but_bounds(&mut self) -> Vec<Told> {
        let mut told = self.until_live().await;
        assert!(matches!(told.remove(0), Told::Subscribed { .. }));
        told
    }

    /// What comes next that is neither bounds nor a live mark.
    pub(crate) async fn next_but_bounds(&mut self) -> Told {
        loop {
            match self.next().await {
                Told::Subscribed { .. } | Told::Live { .. } => {}
                told @ (Told::Event { .. } | Told::Gap { .. } | Told::Ended) => return told,
            }
        }
    }

    /// The bytes of the last event.
    pub(crate) fn envelope(&self) -> &str {
        &self.envelope
    }

    /// Waits until nothing more comes; why, if that was said.
    pub(crate) async fn end(&mut self) -> Option<Refused> {
        loop {
            match self.read().await {
                Ok(()) => {}
                Err(Refused { number: 0, .. }) => return None,
                Err(refused) => return Some(refused),
            }
        }
    }

    /// Reads once.
    async fn read(&mut self) -> Result<(), Refused> {
        let told = match &mut self.way {
            Way::WebSocket(socket) => match socket.text_or_close().await {
                Ok(text) => of_frame(&text, socket).await?,
                Err(number) => return Err(Refused { code: ErrorCode::Internal, number }),
            },
            Way::Sse { body, buffer } => match sse_block(body, buffer).await {
                Some(text) => of_block(&text),
                None => return Err(Refused { code: ErrorCode::Internal, number: 0 }),
            },
            Way::LongPoll { next, is_live, said_bounds } => next.page(is_live, said_bounds).await?,
        };
        self.told.extend(told);
        Ok(())
    }
}

impl Poll {
    async fn page(
        &mut self,
        is_live: &mut bool,
        said_bounds: &mut bool,
    ) -> Result<Vec<(Told, String)>, Refused> {
        #[derive(Deserialize)]
        struct Page<'a> {
            epoch: Epoch,
            floor: Seq,
            head: Seq,
            #[serde(borrow)]
            events: Vec<&'a RawValue>,
            more: bool,
            gap: Option<Gap>,
        }
        let wait = if *is_live { "30" } else { "0" };
        let mut request = http().get(&self.url).query(&[("wait", wait), ("types", self.types.as_str())]);
        if let Some(Cursor { epoch, seq }) = &self.after {
            request = request.query(&[("epoch", epoch.to_string()), ("after", seq.to_string())]);
        } else if self.at_head {
            request = request.query(&[("after", "head")]);
        }
        if let Some(token) = &self.bearer {
            request = request.bearer_auth(token);
        }
        let text = answered(request).await?.text().await.unwrap();
        let page: Page<'_> = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
        let mut told = Vec::new();
        if !std::mem::replace(said_bounds, true) {
            told.push(bare(Told::Subscribed {
                epoch: page.epoch.clone(),
                floor: page.floor,
                head: page.head,
            }));
        }
        told.extend(page.gap.map(|Gap { from, to, reason }| bare(Told::Gap { from, to, reason })));
        told.extend(page.events.iter().map(|event| of_envelope(event.get())));
        let last = told.iter().rev().find_map(|(told, _)| match told {
            Told::Event { seq, .. } => Some(*seq),
            Told::Subscribed { .. } | Told::Gap { .. } | Told::Live { .. } | Told::Ended => None,
        });
        self.after = Some(Cursor { epoch: page.epoch, seq: last.unwrap_or(page.head) });
        if !page.more && !std::mem::replace(is_live, true) {
            told.push(bare(Told::Live { head: page.head }));
        }
        Ok(told)
    }
}

#[derive(Deserialize)]
struct Gap {
    from: Option<Seq>,
    to: Option<Seq>,
    reason: GapReason,
}

/// What a frame of §5 tells. An error is followed by a close, if the socket was there for that log.
async fn of_frame(text: &str, socket: &mut Socket) -> Result<Vec<(Told, String)>, Refused> {
    #[derive(Deserialize)]
    struct Events<'a> {
        #[serde(borrow)]
        events: Vec<&'a RawValue>,
    }
    let frame: Value = text.parse().unwrap();
    match frame["type"].as_str().unwrap() {
        "events" => {
            let Events { events } = serde_json::from_str(text).unwrap();
            Ok(events.iter().map(|event| of_envelope(event.get())).collect())
        }
        "error" => {
            let code = ErrorCode::deserialize(&frame["code"]).unwrap();
            let number = if frame["log"].is_null() { socket.close_code().await } else { 0 };
            Err(Refused { code, number })
        }
        kind => Ok(of_word(kind, &frame)),
    }
}

/// What a block of server-sent events tells.
fn of_block(block: &str) -> Vec<(Told, String)> {
    let lines = |name: &'static str| block.lines().filter_map(move |line| line.strip_prefix(name));
    let data = lines("data: ").collect::<Vec<_>>().join("\n");
    match lines("event: ").next() {
        Some(kind) => of_word(kind, &data.parse().unwrap()),
        None if data.is_empty() => Vec::new(),
        None => {
            let (told, envelope) = of_envelope(&data);
            let Told::Event { seq, .. } = &told else { unreachable!("an envelope is an event") };
            let id = lines("id: ").next().unwrap();
            assert!(id.ends_with(&format!(":{seq}")), "{id} of event {seq}");
            vec![(told, envelope)]
        }
    }
}

/// What is no event of the log.
fn of_word(kind: &str, frame: &Value) -> Vec<(Told, String)> {
    let told = match kind {
        "subscribed" => Told::Subscribed {
            epoch: Epoch::deserialize(&frame["epoch"]).unwrap(),
            floor: Seq::deserialize(&frame["floor"]).unwrap(),
            head: Seq::deserialize(&frame["head"]).unwrap(),
        },
        "gap" => {
            let Gap { from, to, reason } = Gap::deserialize(frame).unwrap();
            Told::Gap { from, to, reason }
        }
        "live" => Told::Live { head: Seq::deserialize(&frame["head"]).unwrap() },
        "ended" => Told::Ended,
        "hello" | "presence" | "heartbeat" => return Vec::new(),
        other => panic!("{other} is no word for a reader: {frame}"),
    };
    vec![bare(told)]
}

fn of_envelope(envelope: &str) -> (Told, String) {
    let event: Value = envelope.parse().unwrap();
    let text = event["data"]["text"].as_str().unwrap_or_default().to_owned();
    (Told::Event { seq: Seq::deserialize(&event["seq"]).unwrap(), text }, envelope.to_owned())
}

fn bare(told: Told) -> (Told, String) {
    (told, String::new())
}

/// The next block of server-sent events; `None` at the end.
async fn sse_block(
    body: &mut BoxStream<'static, reqwest::Result<bytes::Bytes>>,
    buffer: &mut String,
) -> Option<String> {
    loop {
        if let Some((block, rest)) = buffer.split_once("\n\n") {
            let (block, rest) = (block.to_owned(), rest.to_owned());
            *buffer = rest;
            return Some(block);
        }
        let chunk = within(body.next()).await?.unwrap();
        buffer.push_str(std::str::from_utf8(&chunk).unwrap());
    }
}

/// An answer that is none of a refusal.
async fn answered(request: RequestBuilder) -> Result<reqwest::Response, Refused> {
    let response = within(request.send()).await.unwrap();
    let number = response.status().as_u16();
    if number == 200 {
        return Ok(response);
    }
    let ErrorBody { error } = response.json().await.unwrap();
    Err(Refused { code: error.code, number })
}

fn with(path: &str, query: &[String]) -> String {
    if query.is_empty() { path.to_owned() } else { format!("{path}?{}", query.join("&")) }
}
