//! SIGTERM: the server and everything it started end in order, and nothing that was acked is lost.

use serde_json::json;

use crate::support::{
    process::running,
    server::{Gastown, log_of},
    viewer::Viewer,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p15_p16_a_terminated_server_leaves_nothing_and_loses_nothing() {
    let mut gastown = Gastown::up(&[]).await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let agent = gastown
        .start_agent(json!({
            "name": "amber", "role": "polecat", "directory": folder.path(), "start": true,
            "runtime": {
                "kind": "scripted", "scenario": concat!(env!("CARGO_MANIFEST_DIR"), "/demo/feature.json"), "speed": "20",
            },
        }))
        .await;
    let mut viewer = Viewer::of(&gastown.client(), log_of(&agent));
    viewer.until("the agent asks", |view| !view.pending().is_empty()).await;

    let status = gastown.terminate().await;
    assert!(status.success(), "{status}");
    let data_dir = gastown.data_dir().display().to_string();
    assert_eq!(running(&[&data_dir]), [], "nothing is left behind");

    // The same viewer goes on where it was when the server is back.
    gastown.start_again().await;
    viewer.until_event("the agent starts again", |event| event.kind.as_ref() == "agent.started").await;
    Viewer::assert_history_holds(&gastown.client(), vec![viewer]).await;
}
