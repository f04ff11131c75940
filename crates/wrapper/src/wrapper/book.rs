//! What the wrapper has said: every event goes through here, into the wrapper's own fold and into the outbox.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use protocol::{NewEvent, view::SessionView};
use serde::Serialize;

use super::RunError;
use crate::{
    Clock, Moment, asked,
    outbox::Outbox,
    redact::Redactor,
    trim::{self, Cut},
};

/// How long after the disk failed it is tried again.
const DISK_RETRY: Duration = Duration::from_secs(1);

/// Bytes of payloads in the fold: an agent says more than that in days, and what is compared with its server is newer.
const PAYLOADS: usize = 2 * 1024 * 1024;
/// Events from one look at that to the next.
const LOOK_EVERY: u64 = 256;

/// The fold of what was emitted, and the way out.
#[derive(Debug)]
pub(super) struct Book {
    view: SessionView,
    outbox: Outbox,
    clock: Clock,
    /// What is in no event of the wrapper's own.
    secrets: Redactor,
    /// Where the whole of what is cut is kept: the work folder, and the folder in it.
    keep_in: Option<(PathBuf, PathBuf)>,
    /// Events that the disk did not take.
    refused: Vec<NewEvent>,
    retry: Option<Moment>,
    /// What was said since the log began to be read again.
    meanwhile: Option<Vec<NewEvent>>,
}

impl Book {
    /// Goes on from what an earlier run said.
    pub(super) fn new(view: SessionView, outbox: Outbox, clock: Clock, secrets: Redactor) -> Self {
        let (refused, retry, meanwhile) = (Vec::new(), None, None);
        Self { view, outbox, clock, secrets, keep_in: None, refused, retry, meanwhile }
    }

    /// Keeps the whole of what is too long for an event in a folder of the work folder.
    pub(super) fn keep_output(&mut self, work: &Path, folder: &Path) -> Result<(), RunError> {
        let path = work.join(folder);
        let made = std::fs::create_dir_all(&path).and_then(|()| path.canonicalize());
        match made {
            Ok(real) if real.starts_with(work) => {
                self.keep_in = Some((work.to_owned(), folder.to_owned()));
                Ok(())
            }
            Ok(_) => {
                let source = io::Error::new(io::ErrorKind::InvalidInput, "it is not in the work folder");
                Err(RunError::Directory { path, source })
            }
            Err(source) => Err(RunError::Directory { path, source }),
        }
    }

    /// What was said by now.
    pub(super) fn view(&self) -> &SessionView {
        &self.view
    }

    /// The log is about to be read: what is said from here on may be missing from it.
    pub(super) fn begin_recall(&mut self) {
        self.meanwhile = Some(Vec::new());
    }

    /// The log was read, and this is its fold; `None` if it could not be.
    pub(super) fn recalled(&mut self, fold: Option<SessionView>) {
        let meanwhile = self.meanwhile.take().unwrap_or_default();
        let Some(fold) = fold else { return };
        self.view = fold;
        for event in meanwhile {
            self.view.apply(&event.at(self.view.seq().next()));
        }
    }

    /// Says these events. Returns when they survive the wrapper's death; while the outbox is full that may take a while.
    pub(super) async fn emit(&mut self, mut events: Vec<NewEvent>) {
        for event in &mut events {
            self.secrets.event(event);
            asked::put_into(event, &self.view);
            for cut in trim::fit(event, self.keep_in.as_ref().map(|(_, folder)| folder.as_path())) {
                self.keep(cut).await;
            }
            self.view.apply(&event.clone().at(self.view.seq().next()));
            if self.view.seq().get().is_multiple_of(LOOK_EVERY) {
                self.view.keep_within(PAYLOADS);
            }
        }
        if let Some(meanwhile) = &mut self.meanwhile {
            meanwhile.extend(events.iter().cloned());
        }
        self.refused.extend(events);
        if self.retry.is_none() {
            self.push().await;
        }
    }

    /// Says an event of the wrapper's own.
    pub(super) async fn say(&mut self, kind: &str, data: &impl Serialize) {
        let event = NewEvent::of(self.clock.timestamp(), kind, data)
            .expect("payloads of the wrapper's own serialise");
        self.emit(vec![event]).await;
    }

    /// Events that wait for the relay, and their bytes.
    pub(super) fn depth(&self) -> (u64, u64) {
        self.outbox.depth()
    }

    /// Whether the disk does not take what was said: nothing more is to be read from the agent until it does.
    pub(super) fn is_stuck(&self) -> bool {
        self.retry.is_some()
    }

    /// Does what is due.
    pub(super) async fn handle_timeout(&mut self, now: Moment) {
        if self.retry.is_some_and(|due| due <= now) {
            self.push().await;
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) is to be called.
    pub(super) fn due(&self) -> Option<Moment> {
        self.retry
    }

    /// An event stands without the file that its mark names: if that cannot be written, the log says so.
    async fn keep(&self, Cut { file, text }: Cut) {
        let Some((work, folder)) = &self.keep_in else { return };
        let path = work.join(folder).join(file);
        if let Err(error) = tokio::fs::write(&path, text).await {
            tracing::warn!(path = %path.display(), %error, "a whole output cannot be kept");
        }
    }

    async fn push(&mut self) {
        self.retry = None;
        if self.refused.is_empty() {
            return;
        }
        match self.outbox.push(self.refused.clone()).await {
            Ok(()) => self.refused.clear(),
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "the outbox does not take events");
                self.retry = Some(self.clock.now() + DISK_RETRY);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::{outbox::OutboxLimits, testing::event};

    #[tokio::test]
    async fn the_whole_of_what_is_cut_stays_in_the_file_that_its_mark_names() {
        let (dir, work) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let work = work.path().canonicalize().unwrap();
        let outbox = Outbox::open(dir.path(), OutboxLimits::default()).unwrap();
        let mut book = Book::new(SessionView::default(), outbox, Clock::start(), Redactor::default());
        book.keep_output(&work, Path::new(".gastown/output")).unwrap();
        let long = "line\n".repeat(100_000);
        let url = format!("data:image/png;base64,{}", "A".repeat(400_000));
        let tool = |state: Value| json!({ "type": "tool", "tool": "write", "callID": "c", "state": state });
        for (whole, at, part) in [
            (&long, "/state/output", tool(json!({ "status": "completed", "input": {}, "output": long }))),
            (
                &long,
                "/state/input/content",
                tool(json!({ "status": "running", "input": { "content": long } })),
            ),
            (
                &url,
                "/state/attachments/0/url",
                tool(json!({ "status": "completed", "attachments": [{ "url": url }] })),
            ),
            (&url, "/url", json!({ "type": "file", "mime": "image/png", "url": url })),
            (&long, "/text", json!({ "type": "text", "text": long })),
        ] {
            let mut part = part;
            for (name, id) in [("id", "p"), ("messageID", "m"), ("sessionID", "s")] {
                part[name] = json!(id);
            }
            let data = json!({ "sessionID": "s", "part": part }).to_string();
            book.emit(vec![event("message.part.updated", &data)]).await;
            let shown = book.view().part("m", "p").unwrap().to_json();
            let cut = shown.pointer(at).and_then(Value::as_str).unwrap();
            assert!(cut.len() < whole.len() && cut.contains(&format!("{} bytes", whole.len())), "{at}");
            let (_, named) = cut.split_once("whole in ").unwrap();
            let (file, _) = named.split_once(']').unwrap();
            assert_eq!(&std::fs::read_to_string(work.join(file)).unwrap(), whole, "{at}");
        }
    }

    #[tokio::test]
    async fn an_agent_that_runs_for_days_is_kept_within_a_bound() {
        let dir = tempfile::tempdir().unwrap();
        let outbox = Outbox::open(dir.path(), OutboxLimits::default()).unwrap();
        let mut book = Book::new(SessionView::default(), outbox, Clock::start(), Redactor::default());
        let text = "x".repeat(16 * 1024);
        for n in 1..=2 * LOOK_EVERY {
            let part = format!(
                r#"{{"sessionID":"s","part":{{"id":"p","messageID":"m{n:04}","sessionID":"s","type":"text","text":"{text}"}}}}"#
            );
            book.emit(vec![event("message.part.updated", &part)]).await;
        }
        let messages = book.view().roots()[0].messages();
        assert!(messages.len() * text.len() <= PAYLOADS, "{}", messages.len());
        assert_eq!(messages.last().map(|message| &**message.id()), Some("m0512"));
    }
}
