//! kill −9 of each process while text streams, under a running viewer: the viewer ends with the fold of the store,
//! nothing twice, nothing lost that was shown, and the text of the broken-off part preserved and marked.

use protocol::{model::PartBody, view::SessionView};
use serde_json::json;

use crate::{
    real_agents::{Agent, messages_of, text_of},
    support::{
        agent_server::{Server, on_both_servers},
        process::{kill9, running},
        viewer::Viewer,
    },
};

on_both_servers!(
    p1_p2_p10_the_server_is_killed_while_text_streams,
    p1_p2_p16_the_wrapper_is_killed_while_text_streams,
    p2_p7_the_agent_server_is_killed_while_text_streams,
);

async fn p1_p2_p10_the_server_is_killed_while_text_streams(server: Server) {
    let mut agent = start(server).await;
    agent.stream_slowly().await;
    let before = agent.streamed();
    agent.gastown.kill9().await;
    agent.gastown.start_again().await;
    agent.viewer.until("the text goes on", |view| slow_text(view).len() > before.len() + 40).await;
    let after = agent.streamed();
    assert!(after.starts_with(&before), "the text goes on where it was:\n{before}\n{after}");
    agent.abort().await;
    agent.agrees_with_its_server().await;
    agent.history_holds().await;
}

async fn p1_p2_p16_the_wrapper_is_killed_while_text_streams(server: Server) {
    let mut agent = start(server).await;
    agent.stream_slowly().await;
    let before = agent.streamed();
    let state_dir = agent.gastown.state_dir(&agent.id).display().to_string();
    let wrappers = running(&["wrapper", "--state-dir", &state_dir]);
    let [wrapper] = wrappers[..] else { panic!("one wrapper, not {wrappers:?}") };
    let old_server = agent.truth().pid;
    kill9(wrapper);
    agent
        .viewer
        .until_event("another run takes over", |event| event.kind.as_ref() == "wrapper.resumed")
        .await;
    agent.viewer.until("the broken-off part is marked", |view| is_interrupted(view, &before)).await;
    agent.ready_again().await;
    assert_ne!(agent.truth().pid, old_server, "the old agent server went with its wrapper");
    agent.turn("[[plain]] go on").await;
    agent.last_turn_agrees().await;
    agent.history_holds().await;
}

async fn p2_p7_the_agent_server_is_killed_while_text_streams(server: Server) {
    let mut agent = start(server).await;
    agent.stream_slowly().await;
    let before = agent.streamed();
    let pid = agent.truth().pid;
    kill9(rustix::process::Pid::from_raw(pid).expect("a pid"));
    agent.viewer.until("the broken-off part is marked", |view| is_interrupted(view, &before)).await;
    agent.ready_again().await;
    agent.turn("[[plain]] go on").await;
    agent.last_turn_agrees().await;
    agent.history_holds().await;
}

/// Without snapshots: kilo keeps theirs behind a lock that outlives a killed server, waits a minute for it, and asks.
async fn start(server: Server) -> Agent {
    Agent::start_with(server, false).await
}

impl Agent {
    async fn stream_slowly(&mut self) {
        self.prompt("[[slow]] take your time").await;
        self.viewer.until("text streams in", |view| slow_text(view).len() > 60).await;
    }

    fn streamed(&self) -> String {
        slow_text(&self.viewer.view)
    }

    async fn abort(&mut self) {
        let taken = self.command(json!({ "type": "abort" })).await;
        assert_eq!(taken["ok"], json!(true), "{taken}");
        self.turn_over().await;
    }

    /// The newest message and the one it answers are what the server has. (Of what was broken off, only the log has
    /// the text: servers store a part when it ends.)
    async fn last_turn_agrees(&mut self) {
        let root = self.root().expect("a session");
        let truth = self.truth();
        let mut seq = self.viewer.view.seq();
        loop {
            let theirs = truth.messages(&root).await;
            let ours = messages_of(&self.viewer.view, &root);
            if ours.len() >= 2 && ours[ours.len() - 2..] == theirs[theirs.len() - 2..] {
                return;
            }
            self.viewer.until("the last turn agrees with the server", |view| view.seq() > seq).await;
            seq = self.viewer.view.seq();
        }
    }

    async fn history_holds(self) {
        let client = self.gastown.client();
        let Self { viewer, gastown, .. } = self;
        Viewer::assert_history_holds(&client, vec![viewer]).await;
        drop(gastown);
    }
}

/// The text of the newest assistant's message.
fn slow_text(view: &SessionView) -> String {
    let text = text_of(view);
    text.rsplit("take your time").next().unwrap_or_default().trim_start().to_owned()
}

/// Whether a part that begins with this text says that it was interrupted.
fn is_interrupted(view: &SessionView, text: &str) -> bool {
    view.sessions().iter().flat_map(|session| session.messages()).any(|message| {
        message.parts().any(|part| {
            let PartBody::Text(body) = part.body() else { return false };
            body.text.starts_with(text.trim_end()) && part.to_json()["metadata"]["interrupted"] == json!(true)
        })
    })
}
