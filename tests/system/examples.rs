//! The examples, run to their end as a reader would run them.

use std::{path::Path, process::Stdio};

use tokio::{process::Command, time::timeout};

use crate::support::server::{GASTOWN, PATIENCE};

#[tokio::test]
async fn the_relay_can_be_mounted_in_somebody_elses_service() {
    run("embed_in_axum").await;
}

#[tokio::test]
async fn the_client_resumes_where_it_was() {
    run("resuming_client").await;
}

#[tokio::test]
async fn a_store_can_be_brought_along() {
    run("custom_store").await;
}

async fn run(example: &str) {
    let binary =
        Path::new(GASTOWN).parent().expect("the binary lies in a folder").join("examples").join(example);
    let child = Command::new(&binary).stdin(Stdio::null()).kill_on_drop(true).output();
    let output = timeout(PATIENCE, child).await.expect("the example ends").expect("the example starts");
    let (printed, errors) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{example}: {}\n{printed}\n{errors}", output.status);
    assert!(!printed.trim().is_empty(), "{example} says what it saw");
}
