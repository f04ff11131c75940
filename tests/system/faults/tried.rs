//! An agent that is tried with faults, and what must be true of it after each.

use std::path::PathBuf;

use protocol::{Event, LogId, view::SessionView};
use rustix::process::{Pid, Signal};
use serde_json::{Value, json};
use tokio::{process::Child, time::timeout};

use crate::{
    oracle::Viewer as ViewerHistory,
    real_agents::{Agent, Place, comparable, messages_of, parts_of, text_of},
    support::{
        agent_server::Server,
        process::{NO_AGENT, NOBODY, ONE_AGENT, Processes, send, until},
        server::{PATIENCE, log_of},
        small_disk::SmallDisk,
        viewer::{Viewer, stored, wrapper_is_back},
    },
};

/// Room on each of the two disks.
const MEBIBYTES: u64 = 24;

/// An agent on a real server, whose outbox and work folder lie on small disks of their own, without snapshots: kilo keeps
/// those behind a lock that outlives a killed server, waits a minute for it, and asks.
pub(crate) struct Tried {
    pub(super) agent: Agent,
    pub(super) processes: Processes,
    /// What the agent server is started with: a script that does what [`before_start`](Self::before_start) says first.
    launcher: PathBuf,
    /// What the town says.
    journal: Viewer,
    numbers: usize,
    /// A wrapper that no town knows of.
    pub(super) stranger: Option<Child>,
    pub(super) outbox_disk: SmallDisk,
    pub(super) work_disk: SmallDisk,
}

impl Tried {
    pub(super) async fn start(server: Server) -> Self {
        let home = tempfile::Builder::new().prefix("home-").tempdir().expect("a temporary folder");
        let (outbox_disk, work_disk) = (SmallDisk::mount(MEBIBYTES), SmallDisk::mount(MEBIBYTES));
        let launcher = home.path().join("launcher");
        let binary = server.binary().display().to_string();
        let script = format!(
            "#!/bin/sh\n[ -f '{0}.before' ] && . '{0}.before'\nexec '{binary}' \"$@\"\n",
            launcher.display()
        );
        put_program(&launcher, &script);
        let processes = Processes::of_home(home.path());
        let place = Place {
            runtime: json!({ "kind": server.runtime(), "agent_bin": launcher }),
            snapshots: false,
            home,
            directory: Some(work_disk.path().to_owned()),
            outbox: Some(outbox_disk.path().to_owned()),
        };
        let agent = Agent::start_at(server, place).await;
        let journal = Viewer::of(&agent.gastown.client(), LogId::Town("main".parse().expect("a town")));
        let mut tried =
            Self { agent, processes, launcher, journal, numbers: 0, stranger: None, outbox_disk, work_disk };
        tried.is_sound().await;
        tried
    }

    /// After each fault: the agent takes a prompt in its session and answers it; what a viewer folds is what the agent server has, and what broke
    /// off is kept; no process, zombie or open file is left over; and the viewer was given what the log holds.
    pub(super) async fn is_sound(&mut self) {
        self.prompt("[[plain]] go on").await;
        self.agent.turn_over().await;
        assert_eq!(self.agent.viewer.view.roots().len(), 1, "the session is the first one");
        self.agrees_with_its_server().await;
        self.processes.settle(ONE_AGENT).await;
        self.history_holds().await;
    }

    /// At the end: the town is told to end, and nothing of it is left.
    pub(super) async fn ends(mut self) {
        if let Some(mut stranger) = self.stranger.take() {
            let pid = stranger.id().and_then(|pid| Pid::from_raw(pid.cast_signed())).expect("it runs");
            send(pid, Signal::TERM);
            timeout(PATIENCE, stranger.wait()).await.expect("it ends").expect("it can be waited for");
        }
        let status = self.agent.gastown.terminate().await;
        assert!(status.success(), "{status}");
        self.processes.settle(NOBODY).await;
    }

    /// The number of the newest prompt, and so of the file that it may speak of.
    pub(super) fn last_number(&self) -> usize {
        self.numbers
    }

    /// The number of the next one.
    pub(super) fn number(&self) -> usize {
        self.numbers + 1
    }

    /// The file that `[[perm n=…]]` deletes.
    pub(super) fn victim(&self, number: usize) -> PathBuf {
        self.work_disk.path().join(format!("victim-{number}.txt"))
    }

    /// Prompts the agent, with a number so that no two prompts are the same.
    pub(super) async fn prompt(&mut self, text: &str) {
        self.numbers += 1;
        self.agent.prompt(&format!("{}. {text}", self.numbers)).await;
    }

    pub(super) async fn stream_slowly(&mut self) {
        self.prompt("[[slow]] take your time").await;
        let prompt = format!("{}. [[slow]] take your time", self.numbers);
        let streams = |view: &SessionView| text_of(view).contains(&prompt) && slow_text(view).len() > 60;
        self.agent.viewer.until("text streams in", streams).await;
    }

    pub(super) async fn abort(&mut self) {
        let taken = self.agent.command(json!({ "type": "abort" })).await;
        assert_eq!(taken["ok"], json!(true), "{taken}");
        self.agent.turn_over().await;
    }

    /// What the agent server's launcher does before it becomes the agent server, from the next start on.
    pub(super) fn before_start(&self, script: &str) {
        std::fs::write(self.launcher.with_extension("before"), script).expect("the home folder is there");
    }

    /// Takes the agent server's program away, or brings it back.
    pub(super) fn program_is_there(&self, is_there: bool) {
        let away = self.launcher.with_extension("away");
        let (from, to) = if is_there { (&away, &self.launcher) } else { (&self.launcher, &away) };
        std::fs::rename(from, to).expect("the launcher is there");
    }

    /// Has the town end it; `drain` leaves it the turn that runs.
    pub(super) async fn request_end(&self, drain: bool) {
        let body = json!({ "drain": drain });
        self.agent.gastown.api("POST", &format!("/agents/{}/stop", self.agent.id), Some(body)).await;
    }

    pub(super) async fn request_start(&self) {
        self.agent.gastown.api("POST", &format!("/agents/{}/start", self.agent.id), Some(json!({}))).await;
    }

    /// Stops the agent, and sees that nothing of it is left.
    pub(super) async fn stop(&mut self) {
        self.request_end(false).await;
        self.until_stopped().await;
        self.processes.settle(NO_AGENT).await;
    }

    /// Waits until the town knows the agent as stopped.
    pub(super) async fn until_stopped(&mut self) {
        self.until_town_says("town.agent.stopped").await;
    }

    /// Waits until the town says this next.
    pub(super) async fn until_town_says(&mut self, kind: &str) -> Event {
        self.journal.until_event(&format!("the town says {kind}"), |event| event.kind.as_ref() == kind).await
    }

    /// Waits until the agent's log says this next.
    pub(super) async fn until_agent_says(&mut self, kind: &str) -> Value {
        let what = format!("the log says {kind}");
        let event = self.agent.viewer.until_event(&what, |event| event.kind.as_ref() == kind).await;
        event.data.parse().expect("it is JSON")
    }

    /// Waits until the relay has the agent's wrapper again.
    pub(super) async fn wrapper_is_back(&self) {
        wrapper_is_back(&self.agent.gastown.client(), log_of(&self.agent.id)).await;
    }

    /// Waits until the relay knows the agent's wrapper in this state.
    pub(super) async fn until_wrapper_is(&self, state: &str) {
        let path = format!("/agents/{}", self.agent.id);
        let is_so = async {
            while self.agent.gastown.api("GET", &path, None).await["presence"]["state"] != *state {
                tokio::task::yield_now().await;
            }
        };
        timeout(PATIENCE, is_so).await.unwrap_or_else(|_| panic!("the wrapper is not {state}"));
    }

    /// The generation of the newest wrapper.
    pub(super) fn generation(&self) -> u64 {
        let kept = std::fs::read_to_string(self.agent.state_dir.join("generation")).expect("it keeps it");
        kept.trim().parse().expect("a number")
    }

    /// Waits until the wrapper writes this into its log.
    pub(super) async fn until_wrapper_logs(&self, text: &str) {
        let log = self.agent.state_dir.join("wrapper.log");
        until(&format!("the wrapper logs {text:?}"), || {
            let said = std::fs::read_to_string(&log).unwrap_or_default();
            if said.contains(text) { Ok(()) } else { Err(said) }
        })
        .await;
    }

    /// Reads on until the fold is what the agent server has, less what broke off.
    async fn agrees_with_its_server(&mut self) {
        let root = self.agent.root().expect("a session");
        loop {
            let seq = self.agent.viewer.view.seq();
            let theirs = self.agent.truth().messages(&root).await;
            let theirs = comparable(&theirs, self.agent.server);
            let ours = comparable(&messages_of(&self.agent.viewer.view, &root), self.agent.server);
            let Err(difference) = agree(&ours, &theirs) else { return };
            let what = format!("the fold agrees with the server; it differs in {difference}");
            self.agent.viewer.until(&what, |view| view.seq() > seq).await;
        }
    }

    /// What the viewer was given so far is what the log holds.
    async fn history_holds(&mut self) {
        let (client, log) = (self.agent.gastown.client(), log_of(&self.agent.id));
        loop {
            let mut history = stored(&client, &log).await;
            let head = history.stored.last().expect("there are events").seq;
            self.agent.viewer.until_seq(head).await;
            if self.agent.viewer.view.seq() > head {
                continue;
            }
            history.viewers = vec![ViewerHistory { stayed: true, ..self.agent.viewer.history.clone() }];
            return history.verdict().unwrap_or_else(|broken| panic!("{broken}"));
        }
    }
}

/// The text after the newest prompt that asks for a slow one.
pub(super) fn slow_text(view: &SessionView) -> String {
    text_of(view).rsplit("take your time").next().unwrap_or_default().trim_start().to_owned()
}

/// Whether the newest text is this one or a longer one, and says that it was interrupted.
pub(super) fn is_interrupted(view: &SessionView, text: &str) -> bool {
    newest_text(view, text).is_some_and(|part| part["metadata"]["interrupted"] == json!(true))
}

/// Whether the newest text is this one or a longer one, and has an end.
pub(super) fn is_closed(view: &SessionView, text: &str) -> bool {
    newest_text(view, text).is_some_and(|part| !part["time"]["end"].is_null())
}

/// The newest part that is a text, if it begins with this one.
fn newest_text(view: &SessionView, beginning: &str) -> Option<Value> {
    let part = parts_of(view).into_iter().rfind(|part| part.kind() == "text")?.to_json();
    part["text"].as_str().is_some_and(|text| text.starts_with(beginning.trim_end())).then_some(part)
}

/// Whether the fold has what the server has. Of a message that broke off a server keeps what had ended: there the fold may have
/// more, never less.
fn agree(ours: &[Value], theirs: &[Value]) -> Result<(), String> {
    if ours.len() != theirs.len() {
        return Err(format!("the number of messages: {} here, {} there", ours.len(), theirs.len()));
    }
    for (ours, theirs) in ours.iter().zip(theirs).filter(|(ours, theirs)| ours != theirs) {
        if !broke_off(ours) {
            return Err(format!("a message: {ours} here, {theirs} there"));
        }
        let parts = |message: &Value| message["parts"].as_array().cloned().unwrap_or_default();
        let kept = parts(ours);
        for part in parts(theirs) {
            let same = kept.iter().find(|kept| kept["id"] == part["id"]);
            if !same.is_some_and(|kept| *kept == part || has_more(kept, &part)) {
                return Err(format!("a part of a message that broke off: {same:?} here, {part} there"));
            }
        }
    }
    Ok(())
}

/// The wrapper closed this message in the server's stead (§3).
fn broke_off(message: &Value) -> bool {
    message.pointer("/info/error/data/message").is_some_and(|said| said == "interrupted")
}

/// The wrapper closed this part in the server's stead, and nothing that was shown is missing.
fn has_more(kept: &Value, part: &Value) -> bool {
    let text = |part: &Value| part["text"].as_str().unwrap_or_default().to_owned();
    let is_closed =
        kept["metadata"]["interrupted"] == json!(true) || kept["state"]["error"] == json!("interrupted");
    is_closed && text(kept).starts_with(&text(part))
}

pub(super) fn put_program(path: &std::path::Path, script: &str) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::write(path, script).expect("the home folder is there");
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).expect("it is ours");
}
