//! `agent-server.json`: where the agent is, for operators, and what a wrapper that was killed left behind, for the next one.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::{Value, json};

use super::process::AgentProcess;
use crate::process_tree::Tree;

const FILE: &str = "agent-server.json";

/// The file, for as long as the agent runs.
#[derive(Debug)]
pub(super) struct Record {
    path: PathBuf,
}

impl Record {
    /// Writes it, for its owner's eyes only. An agent runs without it too: if it cannot be written, the log says so.
    pub(super) fn write(
        state_dir: &Path,
        process: &AgentProcess,
        session: &str,
        how_to_reach_it: &Value,
    ) -> Option<Self> {
        let mut record = json!({
            "pid": process.pid(), "guard_pid": process.guard_pid(), "session": session, "mark": process.mark(),
        });
        if let (Value::Object(record), Value::Object(more)) = (&mut record, how_to_reach_it) {
            record.extend(more.clone());
        }
        let path = state_dir.join(FILE);
        match replace(&path, &record.to_string()) {
            Ok(()) => Some(Self { path }),
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "cannot say where the agent server is");
                None
            }
        }
    }

    /// Ends what is left of an agent whose wrapper and guard were killed both.
    pub(super) async fn end_what_is_left(state_dir: &Path, grace: Duration) {
        let path = state_dir.join(FILE);
        let Ok(text) = fs::read_to_string(&path) else { return };
        let record: Value = serde_json::from_str(&text).unwrap_or_default();
        if let Some(mark) = record["mark"].as_str() {
            Tree::new(None, Some(mark.to_owned())).end(grace).await;
        }
        let _ = fs::remove_file(path);
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// A reader sees the old file or the new one, whole; and never one that others may read.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    let draft = path.with_extension("json.new");
    let _ = fs::remove_file(&draft);
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?.write_all(text.as_bytes())?;
    fs::rename(draft, path)
}
