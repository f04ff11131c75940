//! Whoever is told to end, and whatever an agent leaves running.

use std::time::Duration;

use rustix::process::{Pid, Signal};
use tokio::time::Instant;

use super::{
    Fault, NO_ORPHAN, fault,
    tried::{Tried, is_closed, slow_text},
};
use crate::{
    real_agents::text_of,
    support::process::{NO_AGENT, NOBODY, Role, gone_within, lives, send},
};

pub(super) const FAULTS: &[Fault] = &[
    fault!(
        "SIGTERM of the wrapper while a turn runs",
        "sent in the middle of a text",
        "the text is said to its end; then `agent.exited`, and nothing of the agent is left",
        wrapper,
    ),
    fault!(
        "SIGTERM of the town while a turn runs",
        "sent in the middle of a text, and started again",
        "`gastown up` exits with 0 within 10 s and leaves no process; the text that was shown stays and is closed; the agent \
         is started again by itself",
        town,
    ),
    fault!(
        "An agent forks daemons, and is stopped",
        "one in a session of its own, one whose parent is gone, one without environment that ignores TERM",
        "they live while the agent does, and none is left when it is stopped",
        daemons_stopped,
    ),
    fault!(
        "An agent forks daemons, and its wrapper is killed",
        "the same daemons; SIGKILL of the wrapper",
        "none is left",
        daemons_killed,
    ),
];

async fn wrapper(tried: &mut Tried) {
    tried.prompt("[[brief]] tell me").await;
    tried.agent.viewer.until("it speaks", |view| text_of(view).contains("This takes")).await;
    send(tried.processes.only(Role::Wrapper), Signal::TERM);
    tried.until_agent_says("agent.exited").await;
    let text = text_of(&tried.agent.viewer.view);
    assert!(text.ends_with("five, six, seven."), "it is said to its end: {text}");
    tried.until_stopped().await;
    tried.processes.settle(NO_AGENT).await;
    tried.request_start().await;
    tried.agent.ready_again().await;
}

async fn town(tried: &mut Tried) {
    tried.stream_slowly().await;
    let shown = slow_text(&tried.agent.viewer.view);
    let began = Instant::now();
    let status = tried.agent.gastown.terminate().await;
    assert!(
        status.success() && began.elapsed() <= Duration::from_secs(10),
        "{status} after {:?}",
        began.elapsed()
    );
    tried.processes.settle(NOBODY).await;
    tried.agent.gastown.start_again().await;
    tried.agent.viewer.until("the text is kept and closed", |view| is_closed(view, &shown)).await;
    tried.agent.ready_again().await;
    tried.wrapper_is_back().await;
}

async fn daemons_stopped(tried: &mut Tried) {
    let hidden = begin_daemons(tried).await;
    tried.stop().await;
    assert!(!lives(hidden), "the one without environment is gone too");
    tried.request_start().await;
    tried.agent.ready_again().await;
}

async fn daemons_killed(tried: &mut Tried) {
    let hidden = begin_daemons(tried).await;
    let all = [tried.processes.of_the_agent(), vec![hidden]].concat();
    send(tried.processes.only(Role::Wrapper), Signal::KILL);
    gone_within(NO_ORPHAN, &all).await;
    tried.agent.ready_again().await;
}

/// Lets the agent begin daemons. Gives back the one that no environment tells of.
async fn begin_daemons(tried: &mut Tried) -> Pid {
    let dir = tried.work_disk.path().to_owned();
    // One of an earlier run of this is not to be taken for it.
    let _ = std::fs::remove_file(dir.join("daemon"));
    tried.prompt(&format!("[[daemons dir={}]] begin them", dir.display())).await;
    tried.agent.turn_over().await;
    let pid = std::fs::read_to_string(dir.join("daemon")).expect("the daemon says its pid");
    let pid = Pid::from_raw(pid.trim().parse().expect("a number")).expect("a pid");
    assert!(lives(pid), "it lives while the agent does");
    pid
}
