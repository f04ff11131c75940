//! A page that viewers follow, as a pure machine: what they are sent when they join and when it changes.
//!
//! A change is encoded once. A viewer has a place in the newest frames and nothing else here; one that falls behind them
//! joins again.

use std::collections::VecDeque;

use bytes::Bytes;
use protocol::{
    Cursor, Epoch, LogId, Seq,
    frame::{PatchOp, ToViewer},
};

use crate::dashboard::tree::{self, Node};

/// Frames kept for viewers that are a little behind.
const FRAMES: usize = 256;
/// Bytes of frames kept.
const FRAME_BYTES: usize = 1024 * 1024;

/// A page and its newest changes.
#[derive(Debug)]
pub(crate) struct Board {
    log: LogId,
    epoch: Epoch,
    seq: Seq,
    /// Cursors below it are given everything: what was removed up to it is not known any more.
    floor: Seq,
    regions: Vec<Node>,
    frames: VecDeque<(Seq, Bytes)>,
    bytes: usize,
    /// The number of the first frame that is kept; the place of a viewer is the number of its next frame.
    first: u64,
}

/// A viewer's place among the frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place(u64);

impl Board {
    /// A page of a log at a position.
    pub(crate) fn new(log: LogId, epoch: Epoch, seq: Seq, floor: Seq, regions: Vec<Node>) -> Self {
        Self { log, epoch, seq, floor, regions, frames: VecDeque::new(), bytes: 0, first: 0 }
    }

    /// The page as it is.
    pub(crate) fn regions(&self) -> &[Node] {
        &self.regions
    }

    /// Where it is in its log.
    pub(crate) fn cursor(&self) -> Cursor {
        Cursor { epoch: self.epoch.clone(), seq: self.seq }
    }

    /// The page as it is by `seq`; `removed` is the position of the last removal in the log.
    pub(crate) fn publish(&mut self, mut regions: Vec<Node>, seq: Seq, removed: Seq) {
        let ops: Vec<PatchOp> = self
            .regions
            .iter()
            .zip(&mut regions)
            .flat_map(|(old, new)| {
                tree::stamp(old, new, seq);
                tree::diff(old, new)
            })
            .collect();
        self.floor = self.floor.max(removed);
        (self.regions, self.seq) = (regions, seq);
        if !ops.is_empty() {
            self.announce(seq, self.patch(ops));
        }
    }

    /// Another page in place of this one: another epoch, or a fold that began anew.
    pub(crate) fn restart(&mut self, epoch: Epoch, seq: Seq, regions: Vec<Node>) {
        (self.epoch, self.seq, self.floor, self.regions) = (epoch, seq, seq, regions);
        let ops = self.regions.iter().flat_map(tree::whole).collect();
        let subscribed = self.subscribed();
        self.announce(seq, subscribed);
        self.announce(seq, self.patch(ops));
    }

    /// A frame for everyone who follows.
    pub(crate) fn announce(&mut self, seq: Seq, frame: Bytes) {
        self.bytes += frame.len();
        self.frames.push_back((seq, frame));
        while self.frames.len() > FRAMES || self.bytes > FRAME_BYTES && self.frames.len() > 1 {
            if let Some((_, frame)) = self.frames.pop_front() {
                self.bytes -= frame.len();
                self.first += 1;
            }
        }
    }

    /// What a viewer is sent that holds the page as of `cursor`, and its place from then on.
    pub(crate) fn join(&self, cursor: Option<&Cursor>) -> (Vec<Bytes>, Place) {
        let known = cursor.filter(|cursor| {
            cursor.epoch == self.epoch && cursor.seq >= self.floor && cursor.seq <= self.seq
        });
        let ops: Vec<PatchOp> = self
            .regions
            .iter()
            .flat_map(|region| match known {
                Some(cursor) => tree::since(region, cursor.seq),
                None => tree::whole(region),
            })
            .collect();
        let live = ToViewer::Live { log: self.log.clone(), head: self.seq };
        let mut frames = vec![self.subscribed()];
        if !ops.is_empty() {
            frames.push(self.patch(ops));
        }
        frames.push(encode(&live));
        (frames, self.end())
    }

    /// The frames after a place, with the position that the page shows after them; nothing if the place is so far back
    /// that they are gone.
    pub(crate) fn after(&self, place: Place) -> Option<(Vec<Bytes>, Place)> {
        let skip = usize::try_from(place.0.checked_sub(self.first)?).ok()?;
        Some((self.frames.iter().skip(skip).map(|(_, frame)| frame.clone()).collect(), self.end()))
    }

    fn end(&self) -> Place {
        Place(self.first + self.frames.len() as u64)
    }

    fn subscribed(&self) -> Bytes {
        encode(&ToViewer::Subscribed {
            log: self.log.clone(),
            epoch: self.epoch.clone(),
            floor: self.floor,
            head: self.seq,
        })
    }

    fn patch(&self, ops: Vec<PatchOp>) -> Bytes {
        encode(&ToViewer::Patch { log: self.log.clone(), seq: self.seq, ops })
    }
}

/// A frame as it is sent.
pub(crate) fn encode(frame: &ToViewer) -> Bytes {
    serde_json::to_vec(frame).expect("a frame serialises: its keys are strings").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_encoded_once_for_everyone() {
        let mut board = board();
        let (_, place) = board.join(None);
        board.publish(regions("two", 2), Seq::new(2), Seq::ZERO);
        let (one, _) = board.after(place).unwrap();
        let (other, _) = board.after(place).unwrap();
        assert_eq!(one.len(), 1);
        assert_eq!(one[0].as_ptr(), other[0].as_ptr());
        assert_eq!(
            std::str::from_utf8(&one[0]).unwrap(),
            r#"{"type":"patch","log":"agent/a","seq":2,"ops":[["replace","x","two"]]}"#
        );
    }

    #[test]
    fn who_joins_with_the_newest_cursor_is_sent_no_change() {
        let board = board();
        let (frames, _) = board.join(Some(&board.cursor()));
        assert_eq!(kinds(&frames), ["subscribed", "live"]);
    }

    #[test]
    fn who_joins_with_an_older_cursor_is_sent_what_changed_since() {
        let mut board = board();
        let old = board.cursor();
        board.publish(regions("two", 2), Seq::new(2), Seq::ZERO);
        let (frames, _) = board.join(Some(&old));
        assert_eq!(kinds(&frames), ["subscribed", "patch", "live"]);
    }

    #[test]
    fn p3_other_epochs_and_cursors_ahead_get_the_whole_page() {
        let board = board();
        for cursor in [
            Cursor { epoch: Epoch::new("other"), seq: Seq::new(1) },
            Cursor { epoch: Epoch::new("e"), seq: Seq::new(9) },
        ] {
            let (frames, _) = board.join(Some(&cursor));
            assert_eq!(kinds(&frames), ["subscribed", "patch", "live"], "{cursor}");
        }
    }

    #[test]
    fn p8_who_is_too_far_behind_is_told_to_join_again() {
        let mut board = board();
        let (_, place) = board.join(None);
        for n in 2..FRAMES as u64 + 4 {
            board.publish(regions(&n.to_string(), n), Seq::new(n), Seq::ZERO);
        }
        assert_eq!(board.after(place), None);
        assert!(board.frames.len() <= FRAMES);
    }

    #[test]
    fn p12_large_frames_are_not_hoarded() {
        let mut board = board();
        for n in 2..10 {
            board.publish(regions(&"x".repeat(FRAME_BYTES / 3 + n), n as u64), Seq::new(n as u64), Seq::ZERO);
        }
        assert!(board.bytes <= FRAME_BYTES);
    }

    fn board() -> Board {
        Board::new("agent/a".parse().unwrap(), Epoch::new("e"), Seq::new(1), Seq::ZERO, regions("one", 1))
    }

    fn regions(html: &str, seq: u64) -> Vec<Node> {
        vec![Node::leaf("x", Seq::new(seq), html)]
    }

    fn kinds(frames: &[Bytes]) -> Vec<String> {
        frames
            .iter()
            .map(|frame| {
                serde_json::from_slice::<serde_json::Value>(frame).unwrap()["type"]
                    .as_str()
                    .unwrap()
                    .to_owned()
            })
            .collect()
    }
}
