//! The past of an agent, played again from a moment on: a page of its own for each who asks.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use protocol::{Epoch, LogId, Seq, Timestamp, frame::ToViewer};
use tokio::{sync::watch, time::sleep};
use tokio_util::task::AbortOnDropHandle;

use super::{
    board::{Board, encode},
    lock,
    viewer::Source,
};
use crate::{
    dashboard::{
        page::{regions, scrub::Speed},
        part::Scope,
        past::{Past, Scene},
        timeline::Timeline,
        transcript,
        tree::Node,
    },
    limits::REPLAYS,
};

/// The longest wait for what comes next: nobody watches an agent wait for a night.
const PAUSE: Duration = Duration::from_secs(2);
/// Changes that are nearer than this are shown together.
const FRAME: Duration = Duration::from_millis(100);

/// What a replay is made of, as a pure machine: which scene comes next, and after how long.
#[derive(Debug)]
pub(crate) struct Player {
    past: Past,
    speed: Speed,
    now: Timestamp,
    to_come: BTreeSet<Timestamp>,
}

impl Player {
    /// A player that stands at a position; nothing of a log that does not reach back to it.
    pub(crate) fn new(past: Past, from: Seq, speed: Speed) -> Option<(Self, Scene)> {
        let scene = past.at(from)?;
        let to_come = past.changes_after(scene.time);
        Some((Self { past, speed, now: scene.time, to_come }, scene))
    }

    /// The next scene, and how long to wait before it is shown; nothing at the end of the log.
    pub(crate) fn next(&mut self) -> Option<(Duration, Scene)> {
        let first = self.to_come.pop_first()?;
        let with_it = self.to_come.iter().take_while(|later| self.wait(first, **later) < FRAME);
        let next = with_it.last().copied().unwrap_or(first);
        self.to_come = self.to_come.split_off(&next);
        self.to_come.remove(&next);
        let wait = self.wait(self.now, next).min(PAUSE);
        self.now = next;
        Some((wait, self.past.by(next)?))
    }

    fn wait(&self, from: Timestamp, until: Timestamp) -> Duration {
        until.since(from) / self.speed.factor()
    }
}

/// The replays that run, by who watches them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Replays(Arc<Mutex<BTreeMap<String, usize>>>);

/// Room for one replay, until it is dropped.
#[derive(Debug)]
pub(crate) struct Room {
    replays: Replays,
    watcher: String,
}

impl Replays {
    /// Room for one more, if whoever watches has not too many already.
    pub(crate) fn room(&self, watcher: &str) -> Option<Room> {
        let mut running = lock(&self.0);
        let count = running.entry(watcher.to_owned()).or_default();
        if *count >= REPLAYS {
            return None;
        }
        *count += 1;
        drop(running);
        Some(Room { replays: self.clone(), watcher: watcher.to_owned() })
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let mut running = lock(&self.replays.0);
        if let Some(count) = running.get_mut(&self.watcher) {
            *count -= 1;
            if *count == 0 {
                running.remove(&self.watcher);
            }
        }
    }
}

/// A replay that is watched.
pub(crate) struct Replay {
    stage: Arc<Stage>,
    _room: Room,
    /// It plays for as long as this is held.
    _play: AbortOnDropHandle<()>,
}

struct Stage {
    log: LogId,
    board: Mutex<Board>,
    /// The number of the newest scene.
    changed: watch::Sender<u64>,
}

impl Replay {
    /// Plays until the handle is dropped or the log is at its end; nothing of a log that does not reach back to `from`.
    pub(crate) fn begin(
        room: Room,
        past: Past,
        from: Seq,
        speed: Speed,
        scope: Scope,
        timeline: Timeline,
        epoch: Epoch,
    ) -> Option<Self> {
        let (mut player, first) = Player::new(past, from, speed)?;
        let log = LogId::Agent(scope.agent.clone());
        let mut cache = transcript::Cache::default();
        let mut show = move |scene| regions::past(scene, &scope, &timeline, Some(speed), &mut cache);
        let number = Seq::new(1);
        let board = Board::new(log.clone(), epoch, number, number, show(first));
        let stage =
            Arc::new(Stage { log, board: Mutex::new(board), changed: watch::Sender::new(number.get()) });
        let on_stage = Arc::clone(&stage);
        let play = async move {
            while let Some((wait, scene)) = player.next() {
                sleep(wait).await;
                on_stage.show(show(scene));
            }
            on_stage.end();
        };
        Some(Self { stage, _room: room, _play: AbortOnDropHandle::new(tokio::spawn(play)) })
    }
}

impl Stage {
    fn show(&self, regions: Vec<Node>) {
        let number = *self.changed.borrow() + 1;
        lock(&self.board).publish(regions, Seq::new(number), Seq::ZERO);
        self.changed.send_replace(number);
    }

    /// From here on it would be the present.
    fn end(&self) {
        let ended = ToViewer::Ended { log: self.log.clone(), reason: "replayed".to_owned() };
        let number = *self.changed.borrow() + 1;
        lock(&self.board).announce(Seq::new(number), encode(&ended));
        self.changed.send_replace(number);
    }
}

impl Source for Replay {
    async fn ready(&self) {}

    fn changes(&self) -> watch::Receiver<u64> {
        self.stage.changed.subscribe()
    }

    fn with_board<T>(&self, look: impl FnOnce(&Board) -> T) -> T {
        look(&lock(&self.stage.board))
    }

    fn standing(&self) -> Vec<bytes::Bytes> {
        Vec::new()
    }
}

#[cfg(test)]
mod tests {
    use protocol::{NewEvent, RawData};

    use super::*;

    #[test]
    fn p20_as_many_run_for_one_as_the_limit_says_and_each_that_ends_makes_room() {
        let replays = Replays::default();
        let mut rooms = (0..REPLAYS).map(|_| replays.room("operator").unwrap()).collect::<Vec<_>>();
        assert!(replays.room("operator").is_none());
        assert!(replays.room("somebody else").is_some());
        rooms.pop();
        assert!(replays.room("operator").is_some());
        rooms.clear();
        assert!(lock(&replays.0).is_empty());
    }

    #[test]
    fn it_goes_as_fast_as_it_went_or_ten_times_as_fast() {
        let log = || past(&[0, 500, 1_500]);
        assert_eq!(waits(log(), Speed::Once), [500, 1_000]);
        assert_eq!(waits(log(), Speed::TenTimes), [50, 100]);
    }

    #[test]
    fn a_night_is_two_seconds_and_what_comes_at_once_is_shown_at_once() {
        let night = 9 * 3_600_000;
        let log = past(&[0, night, night + 20, night + 99, night + 250]);
        assert_eq!(waits(log, Speed::Once), [2_000, 151]);
    }

    #[test]
    fn it_ends_with_all_that_the_log_holds() {
        for speed in [Speed::Once, Speed::TenTimes] {
            let (mut player, first) = Player::new(past(&[0, 10, 20, 3_000]), Seq::new(2), speed).unwrap();
            assert_eq!(first.seq, Seq::new(2));
            let mut last = first.seq;
            while let Some((_, scene)) = player.next() {
                assert!(scene.seq > last);
                last = scene.seq;
            }
            assert_eq!(last, Seq::new(4));
        }
    }

    #[test]
    fn a_log_that_does_not_reach_back_is_not_played() {
        assert!(Player::new(past(&[]), Seq::new(1), Speed::Once).is_none());
    }

    fn waits(past: Past, speed: Speed) -> Vec<u128> {
        let (mut player, _) = Player::new(past, Seq::new(1), speed).unwrap();
        std::iter::from_fn(|| player.next()).map(|(wait, _)| wait.as_millis()).collect()
    }

    /// A log with an event at each of these times.
    fn past(times: &[i64]) -> Past {
        let event = |(at, ms): (u64, &i64)| {
            let data = RawData::of(&serde_json::json!({ "file": "a" })).unwrap();
            let time = Timestamp::from_unix_ms(*ms);
            Arc::new(NewEvent { time, kind: "file.edited".into(), session: None, data }.at(Seq::new(at)))
        };
        Past::of((1..).zip(times).map(event).collect())
    }
}
