//! `gastown verify`.

use std::{
    io,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use clap::Args;
use relay::DataDirArgs;
use serde_json::{Value, json};
use store::Report;

use super::{
    Exit,
    exit::Refusal,
    paint::{Paint, Tone},
    print,
    progress::{self, say},
};

/// The stores that a data directory may have: of a town in one process, of a worker, of a relay.
pub(super) const STORES: [&str; 3] = ["gastown.db", "worker.db", "relay.db"];

/// Look through everything that is stored for damage
#[derive(Debug, Args)]
#[command(after_help = "\
Every event of every log is read and held against its checksum, its place and its log; the search index against the \
events. The server may run meanwhile, and waits for nothing. The exit code is 0 if all is well and 1 if not.

Examples:
  gastown verify
  gastown verify --json | jq '.[].findings[]'
  gastown verify --rebuild-search                the index is made anew when the server starts")]
pub(super) struct Verify {
    /// A single store, such as a backup [default: those of the data directory]
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    /// Print what was found as JSON
    #[arg(long)]
    json: bool,
    /// Have the search index made anew at the next start; the server must not run
    #[arg(long)]
    rebuild_search: bool,
    #[command(flatten)]
    data_dir: DataDirArgs,
}

impl Verify {
    pub(super) async fn run(self) -> anyhow::Result<Exit> {
        let files = match &self.file {
            Some(file) => vec![file.clone()],
            None => stores_in(&self.data_dir.path()?)?,
        };
        if self.rebuild_search {
            for file in &files {
                store::forget_search_index(file)?;
            }
            say("the search index is made anew when the server starts\n");
            return Ok(Exit::Done);
        }
        let mut reports = Vec::new();
        for file in files {
            let report = look_through(&file).await?;
            reports.push((file, report));
        }
        match self.json {
            true => print(&format!("{}\n", serde_json::to_string_pretty(&as_json(&reports))?))?,
            false => print(&as_text(&reports, Paint::of(&io::stdout())))?,
        }
        let is_sound = reports.iter().all(|(_, report)| report.findings.is_empty());
        Ok(if is_sound { Exit::Done } else { Exit::Failed })
    }
}

/// The stores of a data directory; that there is none is an error.
pub(super) fn stores_in(data_dir: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let files: Vec<_> = STORES.iter().map(|name| data_dir.join(name)).filter(|file| file.is_file()).collect();
    if files.is_empty() {
        let message = format!("there is no store in {}: which one, --data-dir DIR", data_dir.display());
        return Err(Refusal::because(Exit::NotFound, message));
    }
    Ok(files)
}

/// Looks through a store, beside the thread that shows how long it takes.
pub(super) async fn look_through(file: &Path) -> anyhow::Result<Report> {
    let what = format!("reading {}", file.display());
    let file = file.to_owned();
    let work = tokio::task::spawn_blocking(move || store::verify(&file, |_, _| {}));
    Ok(progress::shown(&what, work).await.context("the thread that reads the store panicked")??)
}

/// What was found, for people.
pub(super) fn as_text(reports: &[(PathBuf, Report)], paint: Paint) -> String {
    let mut text = String::new();
    for (file, report) in reports {
        let Report { logs, events, bytes, findings, .. } = report;
        let verdict = match findings.len() {
            0 => paint.paint(Tone::Good, "sound"),
            1 => paint.paint(Tone::Bad, "1 finding"),
            more => paint.paint(Tone::Bad, &format!("{more} findings")),
        };
        text.push_str(&format!(
            "{}: {logs} logs, {events} events, {bytes} bytes: {verdict}\n",
            file.display()
        ));
        for finding in findings {
            text.push_str(&format!(
                "  {}\n    → {}\n",
                paint.paint(Tone::Bad, &finding.to_string()),
                finding.advice()
            ));
        }
    }
    text
}

fn as_json(reports: &[(PathBuf, Report)]) -> Value {
    let report = |(file, report): &(PathBuf, Report)| {
        let findings = report.findings.iter().map(|finding| {
            let (log, seq) = finding.place();
            json!({ "what": finding.to_string(), "advice": finding.advice(), "log": log, "seq": seq })
        });
        json!({
            "file": file, "logs": report.logs, "events": report.events, "bytes": report.bytes,
            "findings": findings.collect::<Vec<_>>(),
        })
    };
    reports.iter().map(report).collect()
}
