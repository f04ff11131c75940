//! Agent servers that live, and whose port is open, and that do nothing.

use std::path::PathBuf;

use rustix::process::{Pid, Signal};
use serde_json::json;
use tokio::net::TcpStream;

use super::{
    Fault, fault,
    tried::{Tried, is_interrupted, slow_text},
};
use crate::support::process::{Role, lives, send, until};

pub(super) const FAULTS: &[Fault] = &[
    fault!(
        "The agent server hangs while text streams",
        "stopped (SIGSTOP) in the middle of a text, for good",
        "`agent.failed` says that it hangs; it is gone, the text that was shown stays and is marked as interrupted, and it \
     is started again",
        mid_stream,
    ),
    fault!(
        "The agent server wedges with its port open",
        "a plugin blocks its event loop in the middle of a text, for good: its process runs, and its port takes connections",
        "`agent.failed` says that it hangs; it is gone, the text that was shown stays and is marked as interrupted, and it \
     is started again",
        wedged,
    ),
    fault!(
        "The agent server falls silent for a while",
        "stopped (SIGSTOP) in the middle of a text, until its stream is given up, and let go on",
        "the stream is taken up again: the text is whole, from the same process",
        for_a_while,
    ),
    fault!(
        "The agent server hangs while it is idle, and is prompted",
        "stopped (SIGSTOP) while it is idle, for good; its port still takes connections",
        "whoever prompts is told that nobody knows whether it was taken; `agent.failed` says that it hangs, and it is started again",
        idle,
    ),
];

async fn mid_stream(tried: &mut Tried) {
    tried.stream_slowly().await;
    let shown = slow_text(&tried.agent.viewer.view);
    let server = tried.processes.only(Role::AgentServer);
    send(server, Signal::STOP);
    is_broken_off(tried, &shown).await;
    is_replaced(tried, server).await;
}

async fn wedged(tried: &mut Tried) {
    let plugin = Plugin::put(tried);
    tried.stop().await;
    tried.request_start().await;
    tried.agent.ready_again().await;
    tried.stream_slowly().await;
    let shown = slow_text(&tried.agent.viewer.view);
    let (server, url) = (tried.processes.only(Role::AgentServer), tried.agent.truth().url);
    send(server, Signal::USR2);
    plugin.until_it_blocks().await;
    let address = url.strip_prefix("http://").expect("a plain URL");
    TcpStream::connect(address).await.expect("its port takes connections");
    is_broken_off(tried, &shown).await;
    is_replaced(tried, server).await;
    plugin.take_away();
}

async fn for_a_while(tried: &mut Tried) {
    tried.stream_slowly().await;
    let shown = slow_text(&tried.agent.viewer.view);
    let server = tried.processes.only(Role::AgentServer);
    send(server, Signal::STOP);
    tried.until_wrapper_logs("silent").await;
    send(server, Signal::CONT);
    let more = |view: &protocol::view::SessionView| slow_text(view).len() > shown.len() + 100;
    tried.agent.viewer.until("the text goes on", more).await;
    assert!(slow_text(&tried.agent.viewer.view).starts_with(&shown), "where it was");
    assert_eq!(tried.processes.only(Role::AgentServer), server);
    tried.abort().await;
}

async fn idle(tried: &mut Tried) {
    let server = tried.processes.only(Role::AgentServer);
    send(server, Signal::STOP);
    let answer = tried.agent.command(json!({ "type": "prompt", "text": "[[plain]] are you there?" })).await;
    assert_eq!(answer["ok"], json!(false), "{answer}");
    is_replaced(tried, server).await;
}

async fn is_broken_off(tried: &mut Tried, shown: &str) {
    tried.agent.viewer.until("the text is kept and marked", |view| is_interrupted(view, shown)).await;
}

/// The agent server is said to hang, is gone, and another one is there.
async fn is_replaced(tried: &mut Tried, server: Pid) {
    let failed = tried.until_agent_says("agent.failed").await;
    assert!(failed["message"].as_str().is_some_and(|said| said.contains("hangs")), "{failed}");
    assert!(!lives(server), "it is gone");
    tried.agent.ready_again().await;
}

/// A plugin of the agent server that blocks its event loop at SIGUSR2, and tells that in a file first.
struct Plugin {
    file: PathBuf,
    mark: PathBuf,
}

impl Plugin {
    /// Puts it where the next start finds it.
    fn put(tried: &Tried) -> Self {
        let folder = tried.agent.home().join(".xdg-config").join(tried.agent.server.runtime()).join("plugin");
        let plugin = Self { file: folder.join("blocks.js"), mark: folder.join("blocked") };
        let script = format!(
            "import {{ writeFileSync }} from \"node:fs\"\n\
             export const Blocks = async () => {{\n\
             process.on(\"SIGUSR2\", () => {{ writeFileSync({:?}, \"\"); for (;;) Bun.sleepSync(60_000) }})\n\
             return {{}}\n}}\n",
            plugin.mark
        );
        std::fs::create_dir_all(folder).expect("the home folder is there");
        std::fs::write(&plugin.file, script).expect("the home folder is there");
        plugin
    }

    async fn until_it_blocks(&self) {
        until("the event loop is blocked", || if self.mark.exists() { Ok(()) } else { Err("no mark") }).await;
    }

    /// From the next start on.
    fn take_away(self) {
        std::fs::remove_file(self.file).expect("it is ours");
    }
}
