//! Real opencode and kilo servers, started by the wrapper and driven by the scripted model, offline: after each turn the
//! viewer's fold is what the server itself answers about its session.

mod acp;
mod after_turn;
mod features;

use std::path::{Path, PathBuf};

use protocol::{
    AgentId,
    agent::State,
    model::{PartBody, ToolState},
    view::{Lifecycle, PartView, SessionView},
};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{
    agent_server::{Server, Truth, on_both_servers},
    scripted_model::ScriptedModel,
    server::{Gastown, log_of},
    viewer::Viewer,
};

on_both_servers!(
    p10_a_plain_answer_and_reasoning,
    p10_tools_that_edit_files,
    p10_permissions_once_always_and_rejected,
    p10_a_question_answered_and_one_declined,
    p10_a_turn_aborted_in_the_middle,
    p10_a_sub_agent,
    p10_another_session_of_the_server_is_not_shown,
    a_second_prompt_waits_for_the_first_turn,
);

async fn p10_a_plain_answer_and_reasoning(server: Server) {
    let mut agent = Agent::start(server).await;
    agent.turn("[[plain]] hi").await;
    agent.agrees_with_its_server().await;
    assert!(agent.text().contains("🚀"), "the text came through whole");
    agent.turn("[[reason]] why").await;
    agent.agrees_with_its_server().await;
    assert!(agent.parts().iter().any(|part| part.kind() == "reasoning"), "the reasoning is shown");
}

async fn p10_tools_that_edit_files(server: Server) {
    let mut agent = Agent::start_with_snapshots(server).await;
    let dir = agent.directory().display().to_string();
    agent.turn(&format!("[[tools dir={dir}]] build it")).await;
    agent.agrees_with_its_server().await;
    assert!(agent.directory().join("calc.py").exists(), "the tool wrote the file");
    let tools = agent.tools();
    for tool in ["bash", "write", "edit", "read", "todowrite"] {
        assert!(tools.iter().any(|(name, _)| name == tool), "no {tool} among {tools:?}");
    }
    let root = agent.root().expect("a session");
    assert!(
        !agent.viewer.view.session(&root).expect("it is there").todos().is_empty(),
        "the todo list is shown"
    );
}

async fn p10_permissions_once_always_and_rejected(server: Server) {
    let mut agent = Agent::start(server).await;
    for (n, reply) in ["once", "reject", "always"].into_iter().enumerate() {
        let file = agent.directory().join(format!("victim-{n}.txt"));
        std::fs::write(&file, "x").expect("the work folder is there");
        agent.prompt(&format!("[[perm n={n}]] delete it")).await;
        let id = agent.asked("permission").await;
        let taken = agent.command(json!({ "type": "permission", "id": id, "reply": reply })).await;
        assert_eq!(taken["ok"], json!(true), "{taken}");
        agent.turn_over().await;
        assert_eq!(file.exists(), reply == "reject", "{reply} decides what happens to the file");
        let again = agent.command(json!({ "type": "permission", "id": id, "reply": "once" })).await;
        assert_eq!(again["error"]["code"], json!("already_answered"), "{again}");
        agent.agrees_with_its_server().await;
    }
    // What was allowed always is not asked again.
    std::fs::write(agent.directory().join("victim-9.txt"), "x").expect("the work folder is there");
    agent.turn("[[perm n=9]] delete it").await;
    assert!(!agent.directory().join("victim-9.txt").exists(), "it was deleted without a question");
    agent.agrees_with_its_server().await;
}

async fn p10_a_question_answered_and_one_declined(server: Server) {
    let mut agent = Agent::start(server).await;
    agent.prompt("[[ask]] which one?").await;
    let id = agent.asked("question").await;
    let taken = agent.command(json!({ "type": "question", "id": id, "answers": [["SQLite"]] })).await;
    assert_eq!(taken["ok"], json!(true), "{taken}");
    agent.turn_over().await;
    agent.agrees_with_its_server().await;
    agent.prompt("[[ask]] and now?").await;
    let id = agent.asked("question").await;
    let taken = agent.command(json!({ "type": "question_reject", "id": id })).await;
    assert_eq!(taken["ok"], json!(true), "{taken}");
    agent.turn_over().await;
    agent.agrees_with_its_server().await;
}

async fn p10_a_turn_aborted_in_the_middle(server: Server) {
    let mut agent = Agent::start(server).await;
    agent.prompt("[[slow]] take your time").await;
    agent.viewer.until("text streams in", |view| text_of(view).len() > 150).await;
    let taken = agent.command(json!({ "type": "abort" })).await;
    assert_eq!(taken["ok"], json!(true), "{taken}");
    agent.turn_over().await;
    agent.agrees_with_its_server().await;
    assert!(agent.text().len() > 40, "the text of the aborted turn is kept");
    agent.turn("[[plain]] go on").await;
    agent.agrees_with_its_server().await;
}

async fn p10_a_sub_agent(server: Server) {
    let mut agent = Agent::start(server).await;
    let dir = agent.directory().display().to_string();
    agent.turn(&format!("[[subagent dir={dir}]] delegate")).await;
    agent.agrees_with_its_server().await;
    let root = agent.root().expect("a session");
    let children = agent.viewer.view.session(&root).expect("it is there").children();
    assert_eq!(children.len(), 1, "the sub-agent's session hangs below the root");
    let child = children[0].id().to_string();
    agent.session_agrees(&child).await;
}

async fn p10_another_session_of_the_server_is_not_shown(server: Server) {
    let mut agent = Agent::start(server).await;
    agent.turn("[[plain]] hi").await;
    let truth = agent.truth();
    let query = format!("?directory={}", agent.directory().display());
    let other = truth.post(&format!("/session{query}"), &json!({ "title": "somebody else's" })).await;
    let other = other["id"].as_str().expect("a session").to_owned();
    let words = json!({ "parts": [{ "type": "text", "text": "[[plain]] not for you" }] });
    truth.post(&format!("/session/{other}/message{query}"), &words).await;
    agent.turn("[[plain]] still here").await;
    agent.agrees_with_its_server().await;
    assert!(agent.viewer.view.session(&other).is_none(), "the other session is not the agent's");
}

async fn a_second_prompt_waits_for_the_first_turn(server: Server) {
    let mut agent = Agent::start(server).await;
    agent.prompt("[[two n=1]] first").await;
    agent.prompt("[[plain]] second").await;
    agent
        .viewer
        .until("both are answered", |view| {
            let text = text_of(view);
            text.contains("Session 1 is done.") && text.contains("🚀")
        })
        .await;
    agent.turn_over().await;
    agent.agrees_with_its_server().await;
}

/// An agent on a real server, with a viewer of its log.
pub(crate) struct Agent {
    pub(crate) gastown: Gastown,
    pub(crate) id: AgentId,
    pub(crate) viewer: Viewer,
    pub(crate) server: Server,
    /// Where its wrapper keeps its state.
    pub(crate) state_dir: PathBuf,
    pub(crate) model: ScriptedModel,
    place: Place,
    work_folder: WorkFolder,
}

/// What an agent is started with.
pub(crate) struct Place {
    pub(crate) runtime: Value,
    /// Whether its server keeps snapshots of the work folder. Kilo asks whether to go on without if one takes long, as on a
    /// busy machine.
    pub(crate) snapshots: bool,
    pub(crate) home: TempDir,
    /// The folder that becomes its work folder; without one, a temporary one.
    pub(crate) directory: Option<PathBuf>,
    /// The folder that becomes its outbox; without one, it lies in the town's data folder.
    pub(crate) outbox: Option<PathBuf>,
}

enum WorkFolder {
    Own(TempDir),
    Given(PathBuf),
}

impl Place {
    fn of(server: Server) -> Self {
        Self::new(json!({ "kind": server.runtime(), "agent_bin": server.binary() }))
    }

    fn new(runtime: Value) -> Self {
        let home = tempfile::tempdir().expect("a temporary folder");
        Self { runtime, snapshots: false, home, directory: None, outbox: None }
    }
}

impl Agent {
    pub(crate) async fn start(server: Server) -> Self {
        Self::start_at(server, Place::of(server)).await
    }

    async fn start_with_snapshots(server: Server) -> Self {
        Self::start_at(server, Place { snapshots: true, ..Place::of(server) }).await
    }

    pub(crate) async fn start_at(server: Server, place: Place) -> Self {
        let model = ScriptedModel::start().await;
        let work_folder = match &place.directory {
            Some(directory) => {
                begin_repository(directory);
                WorkFolder::Given(directory.clone())
            }
            None => WorkFolder::Own(work_folder()),
        };
        let environment = server.environment(place.home.path(), model.url(), place.snapshots);
        let gastown = Gastown::up(&environment).await;
        if let Some(outbox) = &place.outbox {
            let state_dir = gastown.data_dir().join("agents/toast");
            std::fs::create_dir_all(&state_dir).expect("the data folder is there");
            std::os::unix::fs::symlink(outbox, state_dir.join("outbox")).expect("nothing is there yet");
        }
        let id = gastown
            .start_agent(json!({
                "name": "Toast", "role": "polecat", "directory": work_folder.path(), "start": true,
                "runtime": place.runtime,
            }))
            .await;
        let viewer = Viewer::of(&gastown.client(), log_of(&id));
        let state_dir = gastown.state_dir(&id);
        let mut agent = Self { gastown, id, viewer, server, state_dir, model, place, work_folder };
        agent.ready_again().await;
        agent
    }

    fn directory(&self) -> &Path {
        self.work_folder.path()
    }

    /// The home folder of its server, which is in the environment of every process of this test.
    pub(crate) fn home(&self) -> &Path {
        self.place.home.path()
    }

    pub(crate) fn truth(&self) -> Truth {
        Truth::of(&self.state_dir)
    }

    pub(crate) async fn prompt(&mut self, text: &str) {
        self.gastown.prompt(&self.id, text).await;
        // The turn begins when its message is in the log, so that its end is not mistaken for that of the one before.
        let marker = text.to_owned();
        self.viewer.until("the prompt is in the log", |view| text_of(view).contains(&marker)).await;
    }

    pub(crate) async fn turn(&mut self, text: &str) {
        self.prompt(text).await;
        self.turn_over().await;
    }

    /// Waits until its agent server is up.
    pub(crate) async fn ready_again(&mut self) {
        self.viewer.until_event("the agent starts", |event| event.kind.as_ref() == "agent.started").await;
    }

    /// Waits until the agent is idle and every prompt has its answer.
    pub(crate) async fn turn_over(&mut self) {
        self.viewer
            .until("the turn is over", |view| {
                view.agent().lifecycle == Lifecycle::Running(State::Idle)
                    && view.roots().iter().all(|session| !session.is_turn_open())
            })
            .await;
    }

    pub(crate) async fn command(&self, command: Value) -> Value {
        self.gastown.command(&self.id, command).await.1
    }

    /// Waits for an open permission or question, and gives its id.
    pub(crate) async fn asked(&mut self, kind: &str) -> String {
        let prefix = format!("{kind}/");
        let open = |view: &SessionView| {
            view.pending().iter().find_map(|ask| ask.key().as_str().strip_prefix(&prefix).map(str::to_owned))
        };
        self.viewer.until(&format!("a {kind} is asked"), |view| open(view).is_some()).await;
        open(&self.viewer.view).expect("it is open")
    }

    pub(crate) fn root(&self) -> Option<String> {
        self.viewer.view.roots().first().map(|session| session.id().to_string())
    }

    fn parts(&self) -> Vec<PartView> {
        parts_of(&self.viewer.view)
    }

    fn text(&self) -> String {
        text_of(&self.viewer.view)
    }

    fn tools(&self) -> Vec<(String, ToolState)> {
        let tool = |part: &PartView| {
            let PartBody::Tool(tool) = part.body() else { return None };
            Some((tool.tool.to_string(), tool.state.clone()))
        };
        self.parts().iter().filter_map(tool).collect()
    }

    pub(crate) async fn agrees_with_its_server(&mut self) {
        let root = self.root().expect("a root session");
        self.session_agrees(&root).await;
    }

    /// Reads on until the fold of a session is what the server answers about it: messages, parts and their order.
    /// Servers change messages after a turn has ended (a user's message gets its diffs), with an event each time.
    async fn session_agrees(&mut self, session: &str) {
        let truth = self.truth();
        let mut theirs = truth.messages(session).await;
        let mut seq = self.viewer.view.seq();
        loop {
            let ours = comparable(&messages_of(&self.viewer.view, session), self.server);
            if ours == comparable(&theirs, self.server) {
                return;
            }
            let difference = difference(&ours, &comparable(&theirs, self.server));
            let what = format!("the fold agrees with the server; it differs in {difference}");
            self.viewer.until(&what, |view| view.seq() > seq).await;
            seq = self.viewer.view.seq();
            theirs = truth.messages(session).await;
        }
    }
}

impl WorkFolder {
    fn path(&self) -> &Path {
        match self {
            Self::Own(folder) => folder.path(),
            Self::Given(folder) => folder,
        }
    }
}

fn work_folder() -> TempDir {
    let folder = tempfile::Builder::new().prefix("work-").tempdir().expect("a temporary folder");
    begin_repository(folder.path());
    folder
}

/// A git repository whose first commit is its own: servers take two with the same first commit for one project.
fn begin_repository(folder: &Path) {
    std::fs::write(folder.join("README.md"), format!("{}\n", folder.display())).expect("it is writable");
    git(folder, &["init"]);
    git(folder, &["add", "README.md"]);
    git(folder, &["commit", "-m", "Begin"]);
}

/// What `git` says in this folder.
pub(crate) fn git(folder: &Path, arguments: &[&str]) -> String {
    let settings = ["user.name=Gastown", "user.email=gastown@localhost", "init.defaultBranch=main"];
    let output = std::process::Command::new("git")
        .args(settings.iter().flat_map(|setting| ["-c", setting]))
        .args(arguments)
        .current_dir(folder)
        .output()
        .expect("git is there");
    assert!(output.status.success(), "git {arguments:?}: {output:?}");
    String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
}

pub(crate) fn messages_of(view: &SessionView, session: &str) -> Vec<Value> {
    let Some(session) = view.session(session) else { return Vec::new() };
    let message = |message: &&protocol::view::MessageView| {
        let info: Value = message.raw_info().map_or(Value::Null, |info| info.parse().expect("it is JSON"));
        json!({ "info": info, "parts": message.parts().map(PartView::to_json).collect::<Vec<_>>() })
    };
    session.messages().iter().map(message).collect()
}

pub(crate) fn text_of(view: &SessionView) -> String {
    let text = |part: &PartView| {
        let PartBody::Text(text) = part.body() else { return None };
        Some(text.text.to_string())
    };
    parts_of(view).iter().filter_map(text).collect::<Vec<_>>().join("\n")
}

pub(crate) fn parts_of(view: &SessionView) -> Vec<PartView> {
    let messages = view.sessions().into_iter().flat_map(|session| session.messages());
    messages.flat_map(|message| message.parts().cloned()).collect()
}

/// Messages without what a server leaves out when it is asked, though its events have it: kilo does not repeat a tool's
/// `metadata.diff`, whose text stands in `metadata.filediff.patch` too.
pub(crate) fn comparable(messages: &[Value], server: Server) -> Vec<Value> {
    let mut messages = messages.to_vec();
    if server == Server::Kilo {
        let parts = messages.iter_mut().filter_map(|message| message["parts"].as_array_mut()).flatten();
        for metadata in parts.filter_map(|part| part.pointer_mut("/state/metadata")?.as_object_mut()) {
            metadata.remove("diff");
        }
    }
    messages
}

/// The first place where two lists of messages differ.
fn difference(ours: &[Value], theirs: &[Value]) -> String {
    if ours.len() != theirs.len() {
        return format!("the number of messages: {} here, {} there", ours.len(), theirs.len());
    }
    let differing = ours.iter().zip(theirs).find(|(ours, theirs)| ours != theirs);
    let Some((ours, theirs)) = differing else { return "nothing".to_owned() };
    if ours["info"] != theirs["info"] {
        return format!("a message: {} here, {} there", ours["info"], theirs["info"]);
    }
    let (a, b) = (ours["parts"].as_array().expect("parts"), theirs["parts"].as_array().expect("parts"));
    match a.iter().zip(b).find(|(ours, theirs)| ours != theirs) {
        Some((ours, theirs)) => format!("a part: {ours} here, {theirs} there"),
        None => format!("the number of parts: {} here, {} there", a.len(), b.len()),
    }
}
