//! The machine alone: what it is told, what it does.

use proptest::prelude::*;
use protocol::{NewEvent, RawData, Timestamp, frame::WrapperPresence};

use super::*;

#[test]
fn each_event_is_delivered_once_although_the_server_repeats_some() {
    let mut client = Client::following(None);
    client.subscribe("e1", 0, 3);
    client.frame(events(&[1, 2]));
    client.frame(events(&[1, 2, 3]));
    client.frame(ToViewer::Live { log: log(), head: Seq::new(3) });
    assert_eq!(client.told(), ["subscribed e1", "1", "2", "3", "live 3"]);
}

#[test]
fn a_reconnect_asks_for_what_comes_after_the_last_event_delivered() {
    let mut client = Client::following(None);
    client.subscribe("e1", 0, 2);
    client.frame(events(&[1, 2]));
    client.lost(Loss::Network("reset".to_owned()));
    assert_eq!(client.reconnected_from(), Some(StartAt::After(cursor("e1", 2))));
}

#[test]
fn whoever_started_at_the_head_misses_nothing_after_it_in_a_reconnect() {
    let mut client = Client::following(Some(StartAt::Head));
    client.subscribe("e1", 0, 17);
    client.lost(Loss::Network("reset".to_owned()));
    assert_eq!(client.reconnected_from(), Some(StartAt::After(cursor("e1", 17))));
}

#[test]
fn p3_a_pruned_gap_is_passed_on_and_moves_the_cursor() {
    let mut client = Client::following(Some(StartAt::After(cursor("e1", 4))));
    client.subscribe("e1", 9, 12);
    client.frame(gap(Some(5), Some(9), GapReason::Pruned));
    client.lost(Loss::Network("reset".to_owned()));
    assert_eq!(client.told(), ["subscribed e1", "gap 5-9"]);
    assert_eq!(client.reconnected_from(), Some(StartAt::After(cursor("e1", 9))));
}

#[test]
fn p3_after_an_epoch_gap_lower_positions_are_events_and_no_repetitions() {
    let mut client = Client::following(Some(StartAt::After(cursor("e1", 40))));
    client.subscribe("e2", 0, 2);
    client.frame(gap(None, None, GapReason::Epoch));
    client.frame(events(&[1, 2]));
    assert_eq!(client.told(), ["subscribed e2", "gap epoch", "1", "2"]);
    client.lost(Loss::Network("reset".to_owned()));
    assert_eq!(client.reconnected_from(), Some(StartAt::After(cursor("e2", 2))));
}

#[test]
fn a_change_of_epoch_that_the_server_did_not_name_becomes_a_gap() {
    let mut client = Client::following(Some(StartAt::After(cursor("e1", 40))));
    client.subscribe("e2", 0, 2);
    client.frame(events(&[1, 2]));
    assert_eq!(client.told(), ["subscribed e2", "gap epoch", "1", "2"]);
}

#[test]
fn p14_a_silent_server_is_asked_after_20_s_and_left_5_s_later() {
    let mut client = Client::following(None);
    client.subscribe("e1", 0, 0);
    client.pass(Duration::from_millis(19_999));
    assert_eq!(client.pings, 0);
    client.pass(Duration::from_millis(1));
    assert_eq!(client.pings, 1);
    client.pass(Duration::from_millis(4_999));
    assert_eq!(client.disconnects, []);
    client.pass(Duration::from_millis(1));
    assert_eq!((client.pings, &*client.disconnects), (1, &[CloseCode::NORMAL][..]));
    let Connection::Waiting { failures: 1, reason, .. } = client.session.connection() else {
        panic!("waits")
    };
    assert_eq!(reason, "nothing was heard for 25 s");
}

#[test]
fn a_server_whose_heartbeats_are_lost_stays_as_long_as_it_answers() {
    let mut client = Client::following(None);
    client.subscribe("e1", 0, 0);
    for asked in 1..=10 {
        client.pass(Duration::from_secs(20));
        assert_eq!(client.pings, asked);
        client.pass(Duration::from_secs(4));
        client.session.handle_sign_of_life(client.now);
    }
    assert_eq!(client.disconnects, []);
}

#[test]
fn whoever_was_asleep_itself_asks_before_it_leaves() {
    let mut client = Client::following(None);
    client.subscribe("e1", 0, 0);
    client.pass(Duration::from_secs(8 * 3600));
    assert_eq!((client.pings, &*client.disconnects), (1, &[][..]));
    client.frame(ToViewer::Heartbeat { time: Timestamp::default() });
    client.pass(Duration::from_secs(19));
    assert_eq!((client.pings, &*client.disconnects), (1, &[][..]));
}

#[test]
fn the_servers_own_heartbeat_is_what_its_silence_is_measured_by() {
    let mut client = Client::following(None);
    client.frame(ToViewer::Hello { protocol: 1, heartbeat_ms: 1_500, server: "gastown/0".to_owned() });
    client.subscribe("e1", 0, 0);
    client.pass(Duration::from_millis(2_000));
    assert_eq!((client.pings, &*client.disconnects), (1, &[][..]));
    client.pass(Duration::from_millis(500));
    assert_eq!(client.disconnects, [CloseCode::NORMAL]);
}

#[test]
fn a_close_that_blames_the_follower_is_believed_at_the_third_in_a_row() {
    for code in
        [CloseCode::BAD_REQUEST, CloseCode::TOO_LARGE, CloseCode(1002), CloseCode(1003), CloseCode(1007)]
    {
        let mut client = Client::following(None);
        for _ in 0..2 {
            client.subscribe("e1", 0, 0);
            client.lost(closed(code));
            assert!(client.end.is_none(), "{code:?}: the bytes may have been damaged on their way");
            client.lost(Loss::Network("reset".to_owned()));
            client.reconnected_from();
        }
        client.lost(closed(code));
        let Some(Some(FollowError::Refused { code: said, .. })) = &client.end else {
            panic!("{:?}", client.end)
        };
        assert_eq!(*said, code.0);
    }
}

#[test]
fn damage_now_and_then_ends_no_follower() {
    let mut client = Client::following(None);
    for _ in 0..20 {
        client.subscribe("e1", 0, 0);
        client.now += Duration::from_secs(60);
        client.lost(closed(CloseCode(1007)));
        assert!(client.end.is_none());
        client.reconnected_from();
    }
}

#[test]
fn a_request_that_was_understood_and_refused_is_final_at_once() {
    let mut client = Client::following(None);
    client.frame(error(ErrorCode::BadRequest, Some(log()), None));
    assert!(matches!(client.end, Some(Some(FollowError::Refused { code: 4400, .. }))), "{:?}", client.end);
}

#[test]
fn heartbeats_are_answered_and_keep_the_connection() {
    let mut client = Client::following(None);
    client.subscribe("e1", 0, 0);
    for _ in 0..10 {
        client.pass(Duration::from_secs(15));
        client.frame(ToViewer::Heartbeat { time: Timestamp::default() });
    }
    assert_eq!(client.disconnects, []);
    assert_eq!(client.pongs, 10);
}

#[test]
fn refused_credentials_are_renewed_once_and_not_a_second_time() {
    let mut client = Client::following(None);
    client.lost(closed(CloseCode::UNAUTHENTICATED));
    assert_eq!(client.connects, 2, "at once, without a wait");
    client.lost(closed(CloseCode::UNAUTHENTICATED));
    assert!(matches!(client.end, Some(Some(FollowError::Unauthenticated { .. }))), "{:?}", client.end);
}

#[test]
fn a_ticket_that_expires_after_hours_of_service_is_renewed_again() {
    let mut client = Client::following(None);
    for _ in 0..3 {
        client.subscribe("e1", 0, 0);
        client.lost(closed(CloseCode::UNAUTHENTICATED));
    }
    assert!(client.end.is_none());
}

#[test]
fn close_codes_say_whether_a_reconnect_can_help() {
    for code in [
        CloseCode::DRAINING,
        CloseCode::STALLED,
        CloseCode::RATE_LIMITED,
        CloseCode::INTERNAL,
        CloseCode(1006),
    ] {
        let mut client = Client::following(None);
        client.subscribe("e1", 0, 0);
        client.lost(closed(code));
        assert!(client.end.is_none(), "{code:?} is to be tried again");
        assert!(client.session.deadline().is_some(), "{code:?}");
    }
    for code in [CloseCode::FORBIDDEN, CloseCode::UNKNOWN_LOG, CloseCode::SUPERSEDED] {
        let mut client = Client::following(None);
        client.lost(closed(code));
        assert!(matches!(client.end, Some(Some(_))), "{code:?} is final");
        assert_eq!(client.session.deadline(), None, "{code:?}");
    }
    let mut client = Client::following(None);
    client.lost(closed(CloseCode::NORMAL));
    assert!(matches!(client.end, Some(None)), "ended by request is no error");
}

#[test]
fn a_log_that_is_not_there_yet_is_asked_for_again_by_whoever_waits_for_it() {
    let mut client = Client::following(None);
    client.session = client.session.waiting_for_log();
    client.frame(error(ErrorCode::UnknownLog, Some(log()), None));
    assert!(client.end.is_none());
    let Connection::Waiting { retry_in, .. } = client.session.connection() else { panic!("waits") };
    assert!((500..=1500).contains(&retry_in.as_millis()), "{retry_in:?}");
    client.reconnected_from();
    client.subscribe("e1", 0, 1);
    client.frame(events(&[1]));
    assert_eq!(client.told(), ["subscribed e1", "1"]);
}

#[test]
fn an_error_that_names_the_log_ends_the_subscription_although_the_socket_stays_open() {
    let mut client = Client::following(None);
    client.frame(error(ErrorCode::UnknownLog, Some(log()), None));
    assert!(matches!(client.end, Some(Some(FollowError::UnknownLog { .. }))), "{:?}", client.end);
}

#[test]
fn the_wait_that_a_draining_server_asks_for_is_kept() {
    let mut client = Client::following(None);
    client.subscribe("e1", 0, 0);
    client.frame(error(ErrorCode::Draining, None, Some(4000)));
    client.lost(closed(CloseCode::DRAINING));
    let Connection::Waiting { retry_in, .. } = client.session.connection() else { panic!("waits") };
    assert!((4000..=6000).contains(&retry_in.as_millis()), "{retry_in:?}");
}

#[test]
fn an_ended_agent_is_said_once_until_it_does_something_again() {
    let mut client = Client::following(None);
    let ended = || ToViewer::Ended { log: log(), reason: "done".to_owned() };
    client.subscribe("e1", 0, 1);
    client.frame(events(&[1]));
    client.frame(ended());
    client.lost(Loss::Network("reset".to_owned()));
    client.reconnected_from();
    client.subscribe("e1", 0, 1);
    client.frame(ended());
    client.frame(events(&[2]));
    client.frame(ended());
    assert_eq!(client.told(), ["subscribed e1", "1", "ended", "subscribed e1", "2", "ended"]);
}

#[test]
fn presence_is_passed_on_and_frames_of_other_logs_are_not() {
    let mut client = Client::following(None);
    client.subscribe("e1", 0, 0);
    let presence =
        |log| ToViewer::Presence { log, wrapper: WrapperPresence::Connected, since: Timestamp::default() };
    client.frame(presence("agent/other".parse().unwrap()));
    client.frame(presence(log()));
    assert_eq!(client.told(), ["subscribed e1", "presence"]);
}

/// What happens to a client, a log and the network between them.
#[derive(Debug, Clone)]
enum Step {
    Append(usize),
    Serve(usize),
    Repeat,
    Lose,
    Prune(usize),
    NewEpoch,
}

proptest! {
    /// P1–P3: whatever the network does, every event is delivered once, in order, or named by a gap.
    #[test]
    fn p2_a_follower_sees_every_event_once_in_order_or_is_told_of_the_gap(
        steps in prop::collection::vec(step(), 1..60),
    ) {
        let mut server = Server::default();
        let mut client = Client::following(None);
        for step in steps.into_iter().chain([Step::Append(1), Step::Serve(1000)]) {
            server.step(&mut client, &step);
            server.let_back(&mut client);
        }
        while server.serve(&mut client) {}
        let mut last = 0;
        let mut seen = Vec::new();
        let mut excused = 0;
        for line in client.told() {
            match line.split_once(' ') {
                Some(("gap", "epoch")) => { last = 0; excused = 0; seen.clear(); }
                Some(("gap", range)) => {
                    let (from, to) = range.split_once('-').expect("from-to");
                    prop_assert_eq!(from.parse::<u64>().expect("a position"), last + 1);
                    excused = to.parse::<u64>().expect("a position");
                    last = excused;
                }
                Some(_) => {}
                None => {
                    let seq = line.parse::<u64>().expect("a position");
                    prop_assert!(seq > last, "{seq} after {last}");
                    last = seq;
                    seen.push(seq);
                }
            }
        }
        let unseen: Vec<u64> = (server.first_floor.max(excused) + 1..=server.head).filter(|seq| !seen.contains(seq)).collect();
        prop_assert!(unseen.is_empty(), "never delivered: {unseen:?}");
    }
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1usize..5).prop_map(Step::Append),
        6 => (1usize..4).prop_map(Step::Serve),
        1 => Just(Step::Repeat),
        3 => Just(Step::Lose),
        1 => (1usize..6).prop_map(Step::Prune),
        1 => Just(Step::NewEpoch),
    ]
}

/// A log as the relay serves it (§5), one frame at a time.
#[derive(Default)]
struct Server {
    epoch: u64,
    floor: u64,
    head: u64,
    /// The floor when the client first read this incarnation: it never asked for what lies below.
    first_floor: u64,
    sent: u64,
    serving: bool,
}

impl Server {
    fn step(&mut self, client: &mut Client, step: &Step) {
        match step {
            Step::Append(n) => self.head += *n as u64,
            Step::Serve(n) => {
                for _ in 0..*n {
                    self.serve(client);
                }
            }
            Step::Repeat if self.serving && self.sent > self.floor => client.frame(events(&[self.sent])),
            Step::Repeat => {}
            Step::Lose => self.lose(client),
            Step::Prune(n) => {
                self.floor = (self.floor + *n as u64).min(self.head);
                if self.sent < self.floor {
                    self.lose(client);
                }
            }
            Step::NewEpoch => {
                self.lose(client);
                *self = Self { epoch: self.epoch + 1, ..Self::default() };
            }
        }
    }

    fn lose(&mut self, client: &mut Client) {
        self.serving = false;
        client.subscriptions.clear();
        client.lost(Loss::Network("reset".to_owned()));
    }

    /// Lets the client come back, if it is not served.
    fn let_back(&mut self, client: &mut Client) {
        if !self.serving && client.subscriptions.is_empty() {
            let deadline = client.session.deadline().expect("it tries for ever");
            client.pass(deadline - client.now);
        }
        self.accept(client);
    }

    /// Answers a subscription that waits for an answer.
    fn accept(&mut self, client: &mut Client) {
        let Some(from) = client.subscriptions.pop() else { return };
        let epoch = format!("e{}", self.epoch);
        self.serving = true;
        client.subscribe(&epoch, self.floor, self.head);
        let fresh = match from {
            Some(StartAt::After(cursor)) if cursor.epoch.as_str() == epoch => {
                self.sent = cursor.seq.get().max(self.floor);
                if cursor.seq.get() < self.floor {
                    client.frame(gap(Some(cursor.seq.get() + 1), Some(self.floor), GapReason::Pruned));
                }
                false
            }
            Some(_) => {
                client.frame(gap(None, None, GapReason::Epoch));
                true
            }
            None => true,
        };
        if fresh {
            self.sent = self.floor;
            self.first_floor = self.floor;
        }
    }

    /// Sends the next event, if there is one.
    fn serve(&mut self, client: &mut Client) -> bool {
        let more = self.serving && self.sent < self.head;
        if more {
            self.sent += 1;
            client.frame(events(&[self.sent]));
        }
        more
    }
}

/// A machine with everything it asked for written down.
struct Client {
    session: Session,
    now: Instant,
    deliveries: Vec<String>,
    subscriptions: Vec<Option<StartAt>>,
    disconnects: Vec<CloseCode>,
    connects: usize,
    pongs: usize,
    pings: usize,
    end: Option<Option<FollowError>>,
}

impl Client {
    /// One whose first connection is open.
    fn following(from: Option<StartAt>) -> Self {
        let now = tokio::time::Instant::now().into_std();
        let mut client = Self {
            session: Session::new(log(), from, 1, now),
            now,
            deliveries: Vec::new(),
            subscriptions: Vec::new(),
            disconnects: Vec::new(),
            connects: 0,
            pongs: 0,
            pings: 0,
            end: None,
        };
        client.drain();
        client
    }

    fn subscribe(&mut self, epoch: &str, floor: u64, head: u64) {
        self.frame(ToViewer::Subscribed {
            log: log(),
            epoch: Epoch::new(epoch),
            floor: Seq::new(floor),
            head: Seq::new(head),
        });
    }

    fn frame(&mut self, frame: ToViewer) {
        self.session.handle_frame(self.now, frame);
        self.drain();
    }

    fn lost(&mut self, loss: Loss) {
        self.session.handle_lost(self.now, loss);
        self.drain();
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.session.handle_timeout(self.now);
        self.drain();
    }

    /// Waits for the next connection; where its subscription starts.
    fn reconnected_from(&mut self) -> Option<StartAt> {
        self.subscriptions.clear();
        self.now = self.session.deadline().expect("it will try again");
        self.session.handle_timeout(self.now);
        self.drain();
        self.subscriptions.pop().expect("subscribed again")
    }

    fn told(&self) -> Vec<&str> {
        self.deliveries.iter().map(String::as_str).collect()
    }

    /// Does what the machine asks for; a connection comes about at once.
    fn drain(&mut self) {
        while let Some(action) = self.session.poll() {
            match action {
                Action::Connect => {
                    self.connects += 1;
                    self.session.handle_connected(self.now);
                }
                Action::Send(FromViewer::Subscribe { cursor, .. }) => self.subscriptions.push(cursor),
                Action::Send(FromViewer::Pong) => self.pongs += 1,
                Action::Ping => self.pings += 1,
                Action::Send(other) => panic!("{other:?} was not to be sent"),
                Action::Disconnect(code) => self.disconnects.push(code),
                Action::Deliver(delivery) => self.deliveries.push(line(&delivery)),
                Action::End(error) => self.end = Some(error),
            }
        }
    }
}

fn line(delivery: &Delivery) -> String {
    match delivery {
        Delivery::Subscribed { epoch, .. } => format!("subscribed {epoch}"),
        Delivery::Event(event) => event.seq.to_string(),
        Delivery::Gap { from: Some(from), to: Some(to), .. } => format!("gap {from}-{to}"),
        Delivery::Gap { .. } => "gap epoch".to_owned(),
        Delivery::Live { head } => format!("live {head}"),
        Delivery::Presence { .. } => "presence".to_owned(),
        Delivery::Ended { .. } => "ended".to_owned(),
    }
}

fn log() -> LogId {
    "agent/a1".parse().expect("a log")
}

fn cursor(epoch: &str, seq: u64) -> Cursor {
    Cursor { epoch: Epoch::new(epoch), seq: Seq::new(seq) }
}

fn events(seqs: &[u64]) -> ToViewer {
    let event = |seq: &u64| {
        let data = RawData::from_json("{}").expect("JSON");
        let new = NewEvent { time: Timestamp::default(), kind: "agent.note".into(), session: None, data };
        new.at(Seq::new(*seq))
    };
    ToViewer::Events { log: log(), events: seqs.iter().map(event).collect() }
}

fn gap(from: Option<u64>, to: Option<u64>, reason: GapReason) -> ToViewer {
    ToViewer::Gap { log: log(), from: from.map(Seq::new), to: to.map(Seq::new), reason }
}

fn error(code: ErrorCode, log: Option<LogId>, retry_after_ms: Option<u64>) -> ToViewer {
    ToViewer::Error { code, message: "as the test says".to_owned(), log, retry_after_ms }
}

fn closed(code: CloseCode) -> Loss {
    Loss::Closed(code, "as the test says".to_owned())
}
