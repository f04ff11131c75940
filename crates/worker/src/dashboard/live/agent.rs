//! One agent's live page, as a pure machine: it takes what its log delivers and holds the pages that came of it.

use std::collections::BTreeMap;

use protocol::{
    AgentId, Epoch, LogId, Seq, Timestamp,
    frame::{GapReason, ToViewer, WrapperPresence},
    view::NoticeBody,
};
use relay::Delivery;

use super::board::{Board, encode};
use crate::dashboard::{
    model::Model,
    page::{
        regions, scrub,
        shell::{self, Headline},
    },
    part::{Reader, Scope},
    transcript,
    tree::{ALWAYS, Node},
};

/// What is known of an agent.
#[derive(Debug)]
pub(crate) struct State {
    agent: AgentId,
    name: String,
    epoch: Option<Epoch>,
    floor: Seq,
    /// History has been folded up to the head: pages are complete.
    live: bool,
    model: Model,
    /// The position of the last removal folded.
    removed: Seq,
    presence: Option<(WrapperPresence, Timestamp)>,
    /// What stands at the top of every page of the town.
    headline: Headline,
    /// Pages by who reads them; made when there is a reader.
    pages: BTreeMap<Reader, Page>,
}

#[derive(Debug)]
struct Page {
    board: Board,
    cache: transcript::Cache,
}

impl State {
    /// Nothing is known yet.
    pub(crate) fn new(agent: &AgentId, name: &str) -> Self {
        Self {
            agent: agent.clone(),
            name: name.to_owned(),
            epoch: None,
            floor: Seq::ZERO,
            live: false,
            model: Model::default(),
            removed: Seq::ZERO,
            presence: None,
            headline: Headline::default(),
            pages: BTreeMap::new(),
        }
    }

    /// The fold.
    pub(crate) fn model(&self) -> &Model {
        &self.model
    }

    /// The wrapper's link.
    pub(crate) fn presence(&self) -> Option<(WrapperPresence, Timestamp)> {
        self.presence
    }

    /// Whether history has been folded.
    pub(crate) fn is_live(&self) -> bool {
        self.live
    }

    /// When [`take`](Self::take) is to be called although nothing was delivered: silence is news by then.
    pub(crate) fn next_deadline(&self) -> Option<Timestamp> {
        self.model.stall_deadline()
    }

    /// The page as this reader is shown it.
    pub(crate) fn board(&mut self, reader: Reader) -> &Board {
        if !self.pages.contains_key(&reader) {
            let mut cache = transcript::Cache::default();
            let regions = self.render(reader, &mut cache);
            let epoch = self.epoch.clone().unwrap_or_else(|| Epoch::new("none"));
            let board = Board::new(
                LogId::Agent(self.agent.clone()),
                epoch,
                self.model.view.seq(),
                self.floor.max(self.removed),
                regions,
            );
            self.pages.insert(reader, Page { board, cache });
        }
        &self.pages[&reader].board
    }

    /// Takes deliveries, and renders what came of them once.
    pub(crate) fn take(&mut self, deliveries: &[Delivery], headline: Headline, now: Timestamp) {
        self.headline = headline;
        let mut anew = false;
        for delivery in deliveries {
            match delivery {
                Delivery::Subscribed { epoch, floor, .. } => {
                    if self.epoch.as_ref() != Some(epoch) {
                        anew = true;
                        self.epoch = Some(epoch.clone());
                    }
                    self.floor = *floor;
                }
                Delivery::Event(event) => self.model.apply(event),
                Delivery::Gap { from, to, reason } => {
                    anew = true;
                    self.gap(*from, *to, *reason);
                }
                Delivery::Live { .. } => self.live = true,
                Delivery::Presence { wrapper, since } => {
                    self.presence = Some((*wrapper, *since));
                    let frame = ToViewer::Presence { log: self.log(), wrapper: *wrapper, since: *since };
                    self.announce(&frame);
                }
                Delivery::Ended { reason } => {
                    let frame = ToViewer::Ended { log: self.log(), reason: reason.clone() };
                    self.announce(&frame);
                }
                _ => {}
            }
        }
        self.model.look_at(now);
        self.removed = self.model.view.removed().map(|(_, removed)| removed.seq).fold(self.removed, Seq::max);
        if self.live {
            self.publish(anew);
        }
    }

    fn gap(&mut self, from: Option<Seq>, to: Option<Seq>, reason: GapReason) {
        let time = self.model.view.time().unwrap_or_default();
        self.model.restart_after_gap(NoticeBody::Gap { from, to, reason }, time);
    }

    fn publish(&mut self, anew: bool) {
        let mut pages = std::mem::take(&mut self.pages);
        for (reader, page) in &mut pages {
            if anew {
                page.cache = transcript::Cache::default();
            }
            let regions = self.render(*reader, &mut page.cache);
            let seq = self.model.view.seq();
            match &self.epoch {
                Some(epoch) if anew => page.board.restart(epoch.clone(), seq, regions),
                Some(_) | None => page.board.publish(regions, seq, self.removed),
            }
        }
        self.pages = pages;
    }

    fn render(&self, reader: Reader, cache: &mut transcript::Cache) -> Vec<Node> {
        let scope = self.scope(reader);
        let mut regions = regions::all(&self.model, &scope, cache);
        let title = shell::title(&regions::title(&self.name, &self.model, reader));
        regions.push(Node::leaf("title", ALWAYS, title.into_string()));
        if reader != Reader::Guest {
            regions.push(scrub::speed(&self.agent, &self.model.timeline, None));
            regions.extend(shell::headline(self.headline));
        }
        regions
    }

    /// What every part of this reader's page needs to know.
    pub(crate) fn scope(&self, reader: Reader) -> Scope {
        Scope { agent: self.agent.clone(), reader, directory: self.model.directory() }
    }

    /// The log that it shows.
    pub(crate) fn log(&self) -> LogId {
        LogId::Agent(self.agent.clone())
    }

    fn announce(&mut self, frame: &ToViewer) {
        let (seq, frame) = (self.model.view.seq(), encode(frame));
        for page in self.pages.values_mut() {
            page.board.announce(seq, frame.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use protocol::{NewEvent, RawData};

    use super::*;

    #[test]
    fn p3_another_epoch_replaces_the_page_without_a_reload() {
        let mut state = State::toast();
        state.take(
            &[subscribed("one"), delta(1, "old"), Delivery::Live { head: Seq::new(1) }],
            Headline::default(),
            Timestamp::default(),
        );
        let (_, place) = state.board(Reader::Steers).join(None);
        state.take(
            &[gap(GapReason::Epoch), subscribed("two"), delta(1, "new")],
            Headline::default(),
            Timestamp::default(),
        );
        let (frames, _) = state.board(Reader::Steers).after(place).unwrap();
        let frames: Vec<ToViewer> =
            frames.iter().map(|frame| serde_json::from_slice(frame).unwrap()).collect();
        let [ToViewer::Subscribed { epoch, .. }, ToViewer::Patch { ops, .. }] = &frames[..] else {
            panic!("{frames:?}")
        };
        assert_eq!(epoch.as_str(), "two");
        let page = format!("{ops:?}");
        assert!(
            page.contains("new") && page.contains("The log began anew") && !page.contains(">old<"),
            "{page}"
        );
    }

    #[test]
    fn readers_who_may_not_steer_have_a_page_of_their_own() {
        let mut state = State::toast();
        state.take(
            &[subscribed("one"), delta(1, "x"), Delivery::Live { head: Seq::new(1) }],
            Headline::default(),
            Timestamp::default(),
        );
        let has_dock = |board: &Board| board.regions().iter().any(|region| &*region.id == "dock");
        assert!(has_dock(state.board(Reader::Steers)));
        assert!(!has_dock(state.board(Reader::Reads)));
    }

    impl State {
        fn toast() -> Self {
            Self::new(&"toast".parse().unwrap(), "Toast")
        }
    }

    fn subscribed(epoch: &str) -> Delivery {
        Delivery::Subscribed { epoch: Epoch::new(epoch), floor: Seq::ZERO, head: Seq::ZERO }
    }

    fn gap(reason: GapReason) -> Delivery {
        Delivery::Gap { from: None, to: None, reason }
    }

    fn delta(seq: u64, text: &str) -> Delivery {
        let data = serde_json::json!({ "sessionID": "s", "messageID": "m", "partID": "p", "field": "text", "delta": text });
        let event = NewEvent {
            time: Timestamp::from_unix_ms(0),
            kind: "message.part.delta".into(),
            session: Some("s".into()),
            data: RawData::of(&data).unwrap(),
        };
        Delivery::Event(Arc::new(event.at(Seq::new(seq))))
    }
}
