//! Disks that are full.

use protocol::{
    model::{PartBody, ToolState},
    view::SessionView,
};

use super::{
    Fault, fault,
    tried::{Tried, slow_text},
};
use crate::real_agents::parts_of;

pub(super) const FAULTS: &[Fault] = &[
    fault!(
        "The disk of the outbox is full",
        "filled to the last byte while text streams, and given room again",
        "the wrapper says so and reads no further; then the text goes on, whole",
        outbox,
    ),
    fault!(
        "The disk of the work folder is full",
        "filled to the last byte, and the agent told to write a file; then given room, and told again",
        "the tool call ends with an error, and the turn with an answer; the second file is written",
        work_folder,
    ),
];

async fn outbox(tried: &mut Tried) {
    tried.stream_slowly().await;
    let before = slow_text(&tried.agent.viewer.view);
    let ballast = tried.outbox_disk.fill();
    // Whatever the outbox had room for comes; then nothing does.
    tried.until_wrapper_logs("the outbox does not take events").await;
    std::fs::remove_file(ballast).expect("it is ours");
    let more = |view: &SessionView| slow_text(view).len() > before.len() + 200;
    tried.agent.viewer.until("the text goes on", more).await;
    assert!(slow_text(&tried.agent.viewer.view).starts_with(&before), "where it was");
    tried.abort().await;
}

async fn work_folder(tried: &mut Tried) {
    let dir = tried.work_disk.path().display().to_string();
    let ballast = tried.work_disk.fill();
    let n = tried.number();
    tried.prompt(&format!("[[fill dir={dir} n={n}]] write")).await;
    tried.agent.turn_over().await;
    assert!(
        matches!(newest_tool(&tried.agent.viewer.view), Some(ToolState::Error(_))),
        "it could not be written"
    );
    std::fs::remove_file(ballast).expect("it is ours");
    let n = tried.number();
    tried.prompt(&format!("[[fill dir={dir} n={n}]] write")).await;
    tried.agent.turn_over().await;
    let written = std::fs::metadata(tried.work_disk.path().join(format!("report-{n}.txt")));
    assert!(written.is_ok_and(|file| file.len() > 500), "it was written");
}

fn newest_tool(view: &SessionView) -> Option<ToolState> {
    let newest = parts_of(view).into_iter().rfind(|part| part.kind() == "tool")?;
    let PartBody::Tool(tool) = newest.body() else { return None };
    Some(tool.state.clone())
}
