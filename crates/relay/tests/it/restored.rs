//! What readers and wrappers see of a store that was lost and restored from a backup.

use gastown_relay::server::RelayConfig;
use serde_json::{Value, json};
use store::{SqliteOptions, SqliteStore, backup, restore};

use crate::support::{Server, append, texts, within};

#[tokio::test]
async fn p3_a_cursor_of_before_the_restore_gets_a_gap_and_the_log_anew() {
    let restored = Restored::new().await;
    let cursor = format!("after=3&epoch={}", restored.epoch);
    let page = restored.server.get(&format!("/v1/agents/a1/events?{cursor}")).await;
    let page: Value = within(page.json()).await.unwrap();
    assert_eq!(page["gap"], json!({ "reason": "epoch" }));
    assert_ne!(page["epoch"], restored.epoch.as_str());
    assert_eq!(page["events"].as_array().unwrap().len(), 2);
    let mut stream = restored.server.stream(&format!("/v1/agents/a1/stream?{cursor}")).await;
    let frames = stream.until("live").await;
    let gap = frames.iter().find(|frame| frame["type"] == "gap").unwrap();
    assert_eq!(gap["reason"], "epoch");
    assert_eq!(texts(&frames), ["one", "two"]);
}

#[tokio::test]
async fn p5_a_wrapper_that_was_acked_beyond_the_backup_goes_on() {
    let Restored { server, .. } = Restored::new().await;
    let mut wrapper = server.stream_as("/v1/ingest", Some(&server.wrapper_token("a1", 1))).await;
    let mut hello = crate::support::hello("a1", "p1", 1);
    hello["next"] = json!(4);
    wrapper.send(&hello).await;
    // It was acked through 3.
    let welcome = wrapper.next().await;
    assert_eq!((&welcome["type"], &welcome["acked"]), (&json!("welcome"), &json!(2)));
    let mut lost = append(3, &["four"]);
    let dropped = json!({
        "time": lost["events"][0]["time"], "type": "wrapper.events_dropped",
        "data": { "from": 3, "to": 3, "reason": "lost_by_relay" },
    });
    lost["events"].as_array_mut().unwrap().insert(0, dropped);
    wrapper.send(&lost).await;
    let ack = wrapper.next().await;
    assert_eq!((&ack["type"], &ack["through"]), (&json!("ack"), &json!(4)), "{ack}");
}

/// A relay over a store that was copied after two events of a wrapper, had a third acked, was lost and restored.
struct Restored {
    server: Server,
    epoch: String,
    _directory: tempfile::TempDir,
}

impl Restored {
    async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (path, copy) = (directory.path().join("events.db"), directory.path().join("copy.db"));
        let open = || SqliteStore::open(&path, SqliteOptions::default()).unwrap();
        let server = Server::with(open(), RelayConfig::default()).await;
        let mut wrapper = server.wrapper("a1", "p1", 1).await;
        wrapper.send(&append(1, &["one", "two"])).await;
        assert_eq!(wrapper.next().await["through"], 2);
        backup(&path, &copy, |_, _| {}).unwrap();
        wrapper.send(&append(3, &["three"])).await;
        assert_eq!(wrapper.next().await["through"], 3);
        let page: Value = within(server.get("/v1/agents/a1/events").await.json()).await.unwrap();
        server.stop().await;
        let epoch = page["epoch"].as_str().unwrap().to_owned();
        for name in ["events.db", "events.db-wal", "events.db-shm"] {
            let _ = std::fs::remove_file(directory.path().join(name));
        }
        // Whoever serves the last answer may hold the store a moment longer than the relay.
        while let Err(store::OpenError::Locked { .. }) = restore(&copy, &path, |_, _| {}) {
            tokio::task::yield_now().await;
        }
        Self { server: Server::with(open(), RelayConfig::default()).await, epoch, _directory: directory }
    }
}
