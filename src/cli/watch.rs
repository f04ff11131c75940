//! `gastown watch`.

mod notice;
mod tool;
mod transcript;

use std::io;

use clap::Args;
use futures_util::StreamExt as _;
use protocol::{
    AgentId, Cursor, CursorParseError, Epoch, Seq, Timestamp,
    codec::Frame as _,
    frame::{StartAt, ToViewer, WrapperPresence},
};
use relay::{Delivery, client::Connection};
use tokio::sync::watch;

use self::transcript::Transcript;
use super::{
    Exit,
    paint::{Paint, Tone},
    print,
    progress::say,
    server::{Server, ServerArgs, agent_id, log_of},
    signals::Signals,
};

/// Show what an agent does, live
#[derive(Debug, Args)]
#[command(after_help = "\
What is kept of the agent's log comes first, then what it does. A connection that is lost is made again; no event is \
shown twice, and what cannot be had any more is said. Ctrl-C ends it and prints the cursor to go on from.

Examples:
  gastown watch toast
  gastown watch toast --after head             only what comes from now on
  gastown watch toast --after 6f1c:412         go on where an earlier one ended
  gastown watch toast --json --no-follow | jq -r 'select(.type == \"agent.failed\") | .data.message'")]
pub(super) struct Watch {
    /// The agent
    #[arg(value_parser = agent_id, value_name = "AGENT")]
    agent: AgentId,
    /// Begin after this cursor (<epoch>:<seq>), or with `head` from now on
    #[arg(long, value_parser = start_at, value_name = "CURSOR")]
    after: Option<StartAt>,
    /// End when all that is there has been shown
    #[arg(long)]
    no_follow: bool,
    /// Print the events as they are, one JSON object per line; a gap is a line of type `gap`
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: ServerArgs,
}

/// Deliveries that are printed with one write.
const AT_ONCE: usize = 256;

impl Watch {
    pub(super) async fn run(self) -> anyhow::Result<Exit> {
        let server = Server::find(&self.server)?;
        server.find_agent(&self.agent).await?;
        let follow = server.relay().await?.follow_when_there(log_of(&self.agent), self.after.clone());
        let mut connection = Reconnects::new(follow.connection());
        let mut deliveries = follow.ready_chunks(AT_ONCE);
        let mut screen = Screen::new(&self);
        let mut signals = Signals::follow()?;
        loop {
            tokio::select! {
                biased;
                () = signals.next() => break,
                chunk = deliveries.next() => {
                    let Some(chunk) = chunk else { break };
                    let mut text = String::new();
                    let mut failed = None;
                    for delivery in chunk {
                        match delivery {
                            Ok(delivery) => text.push_str(&screen.deliver(&delivery)),
                            Err(error) => failed = Some(error),
                        }
                    }
                    print(&text)?;
                    if let Some(error) = failed {
                        return Err(error.into());
                    }
                    if screen.live && self.no_follow {
                        break;
                    }
                }
                line = connection.changed() => say(&line),
            }
        }
        print(&screen.finish())?;
        if let Some(cursor) = screen.cursor().filter(|_| !self.no_follow) {
            say(&format!("to go on: gastown watch {} --after {cursor}\n", self.agent));
        }
        Ok(Exit::Done)
    }
}

/// `head`, or a cursor.
fn start_at(text: &str) -> Result<StartAt, CursorParseError> {
    if text == "head" { Ok(StartAt::Head) } else { text.parse().map(StartAt::After) }
}

/// What is shown, and where in the log that is.
struct Screen {
    agent: AgentId,
    /// `None` with `--json`.
    transcript: Option<Transcript>,
    paint: Paint,
    epoch: Option<Epoch>,
    seq: Option<Seq>,
    time: Timestamp,
    live: bool,
    presence: Option<WrapperPresence>,
}

impl Screen {
    fn new(watch: &Watch) -> Self {
        let paint = Paint::of(&io::stdout());
        let seq = match &watch.after {
            Some(StartAt::After(cursor)) => Some(cursor.seq),
            Some(StartAt::Head) | None => None,
        };
        Self {
            agent: watch.agent.clone(),
            transcript: (!watch.json)
                .then(|| Transcript::new(watch.agent.as_str(), paint, watch.after.is_some())),
            paint,
            epoch: None,
            seq,
            time: Timestamp::default(),
            live: false,
            presence: None,
        }
    }

    fn deliver(&mut self, delivery: &Delivery) -> String {
        match delivery {
            Delivery::Subscribed { epoch, head, .. } => {
                self.epoch = Some(epoch.clone());
                self.seq = self.seq.or(Some(*head).filter(|_| self.live));
                String::new()
            }
            Delivery::Event(event) => {
                self.seq = Some(event.seq);
                self.time = event.time;
                match &mut self.transcript {
                    Some(transcript) => transcript.apply(event),
                    None => json_line(&event.encode()),
                }
            }
            Delivery::Gap { from, to, reason } => {
                self.seq = to.or(Some(Seq::ZERO));
                match &mut self.transcript {
                    Some(transcript) => transcript.gap(*from, *to, *reason, self.time),
                    None => {
                        let log = log_of(&self.agent);
                        json_line(&ToViewer::Gap { log, from: *from, to: *to, reason: *reason }.encode())
                    }
                }
            }
            Delivery::Live { head } => {
                self.live = true;
                self.seq = self.seq.max(Some(*head));
                self.transcript.as_mut().map(Transcript::live).unwrap_or_default()
            }
            Delivery::Presence { wrapper, .. } => self.present(*wrapper),
            // The agent's own last event says the same, with more words.
            Delivery::Ended { .. } => String::new(),
            _ => String::new(),
        }
    }

    /// Says so when the agent's wrapper goes or comes; that one is there is no news.
    fn present(&mut self, wrapper: WrapperPresence) -> String {
        let before = self.presence.replace(wrapper);
        let Some(transcript) = &mut self.transcript else { return String::new() };
        let line = match (before, wrapper) {
            (None | Some(WrapperPresence::Connected), WrapperPresence::Disconnected) => {
                "○ its wrapper is not connected"
            }
            (Some(WrapperPresence::Disconnected), WrapperPresence::Connected) => "● its wrapper is connected",
            (None | Some(WrapperPresence::Connected), WrapperPresence::Connected)
            | (Some(WrapperPresence::Disconnected), WrapperPresence::Disconnected) => return String::new(),
        };
        let end = transcript.finish();
        format!("{end}{}\n", self.paint.paint(Tone::Dim, line))
    }

    fn finish(&mut self) -> String {
        self.transcript.as_mut().map(Transcript::finish).unwrap_or_default()
    }

    /// Everything up to here was shown.
    fn cursor(&self) -> Option<Cursor> {
        Some(Cursor { epoch: self.epoch.clone()?, seq: self.seq? })
    }
}

fn json_line(json: &[u8]) -> String {
    let mut line = String::from_utf8_lossy(json).into_owned();
    line.push('\n');
    line
}

/// Tells of connections that were lost and made again.
struct Reconnects {
    connection: watch::Receiver<Connection>,
    lost: bool,
}

impl Reconnects {
    fn new(connection: watch::Receiver<Connection>) -> Self {
        Self { connection, lost: false }
    }

    /// The next thing to tell; never, once the connection is over. Cancel-safe.
    async fn changed(&mut self) -> String {
        loop {
            if self.connection.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
            let connection = self.connection.borrow_and_update().clone();
            match connection {
                Connection::Waiting { retry_in, reason, .. } => {
                    self.lost = true;
                    return format!(
                        "connection lost ({reason}); next try in {:.0} s\n",
                        retry_in.as_secs_f64().ceil()
                    );
                }
                Connection::Up if std::mem::take(&mut self.lost) => return "connected again\n".to_owned(),
                Connection::Up | Connection::Connecting | Connection::Over => {}
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use protocol::{NewEvent, RawData, frame::GapReason};

    use super::*;

    #[test]
    fn a_start_is_a_cursor_or_the_head() {
        assert_eq!(start_at("head"), Ok(StartAt::Head));
        assert_eq!(start_at("e1:412"), Ok(StartAt::After("e1:412".parse().unwrap())));
        assert!(start_at("412").is_err());
    }

    #[test]
    fn json_lines_are_the_envelopes_and_gaps_byte_for_byte() {
        let mut screen = screen(true);
        let event = event(7);
        assert_eq!(
            screen.deliver(&Delivery::Event(event.clone())).as_bytes(),
            [&event.encode()[..], b"\n"].concat()
        );
        let gap = Delivery::Gap { from: Some(Seq::new(8)), to: Some(Seq::new(9)), reason: GapReason::Pruned };
        assert_eq!(
            screen.deliver(&gap),
            "{\"type\":\"gap\",\"log\":\"agent/toast\",\"from\":8,\"to\":9,\"reason\":\"pruned\"}\n"
        );
    }

    #[test]
    fn p3_the_cursor_to_go_on_from_is_the_last_event_shown() {
        let mut screen = screen(true);
        assert_eq!(screen.cursor(), None);
        screen.deliver(&Delivery::Subscribed {
            epoch: Epoch::new("e1"),
            floor: Seq::ZERO,
            head: Seq::new(9),
        });
        screen.deliver(&Delivery::Event(event(7)));
        assert_eq!(screen.cursor().unwrap().to_string(), "e1:7");
        screen.deliver(&Delivery::Live { head: Seq::new(9) });
        assert_eq!(screen.cursor().unwrap().to_string(), "e1:9");
    }

    #[test]
    fn a_wrapper_that_goes_and_comes_is_told_once_each() {
        let mut screen = screen(false);
        let mut told = String::new();
        for wrapper in [
            WrapperPresence::Connected,
            WrapperPresence::Disconnected,
            WrapperPresence::Disconnected,
            WrapperPresence::Connected,
        ] {
            told += &screen.deliver(&Delivery::Presence { wrapper, since: Timestamp::default() });
        }
        assert_eq!(told, "○ its wrapper is not connected\n● its wrapper is connected\n");
    }

    fn screen(json: bool) -> Screen {
        Screen {
            agent: "toast".parse().unwrap(),
            transcript: (!json).then(|| Transcript::new("toast", Paint::Plain, false)),
            paint: Paint::Plain,
            epoch: None,
            seq: None,
            time: Timestamp::default(),
            live: false,
            presence: None,
        }
    }

    fn event(seq: u64) -> Arc<protocol::Event> {
        let data = RawData::from_json("{\"note\":1}").unwrap();
        let new = NewEvent { time: Timestamp::default(), kind: "agent.note".into(), session: None, data };
        Arc::new(new.at(Seq::new(seq)))
    }
}
