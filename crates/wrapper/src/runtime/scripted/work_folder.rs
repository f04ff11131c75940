//! Runs tools in the work folder: the part of a scripted agent that is not scripted.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use serde_json::json;
use tokio::{
    io::AsyncReadExt as _,
    process::{Child, Command},
    sync::mpsc,
    time::{Instant, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

use super::tool::{Call, Outcome, Tool};
use crate::runtime::shape::diff::FileChange;

/// Bytes of a tool's output that are kept.
const OUTPUT_BYTES: usize = 30_000;
/// Files that a search looks at.
const SEARCH_FILES: usize = 2_000;
/// How long what a command left running may hold its output open.
const AFTER_EXIT: Duration = Duration::from_millis(200);

/// Runs `$1` with its errors in its output. The pipe on the shell's stdin is the life of this process: when it closes, because
/// the wrapper ended the tool or was killed itself, everything in the shell's process group is killed.
const SHELL: &str = r#"exec 3<&0 </dev/null 2>&1
(cat <&3; kill -KILL 0) >/dev/null 2>&1 &
watch=$!
(eval "$1") 3<&-
code=$?
kill "$watch" 2>/dev/null
exit "$code""#;

/// News of a tool.
#[derive(Debug)]
pub(crate) enum News {
    /// What it has written so far.
    Output { call: u64, output: String },
    /// It ended.
    Done { call: u64, outcome: Outcome, change: Option<FileChange> },
}

/// Runs a tool in `directory` to its end, or until it is cancelled; says then that it ended. Nothing of it runs on.
pub(crate) async fn run(
    directory: PathBuf,
    call: Call,
    news: mpsc::Sender<News>,
    cancelled: CancellationToken,
) {
    let number = call.number;
    let (outcome, change) = match call.tool {
        Tool::Bash { command, description, timeout_ms } => {
            let shell =
                Shell { directory: &directory, description, limit: Duration::from_millis(timeout_ms) };
            (shell.run(&command, number, &news, &cancelled).await, None)
        }
        tool @ (Tool::Write { .. }
        | Tool::Edit { .. }
        | Tool::Read { .. }
        | Tool::Grep { .. }
        | Tool::Glob { .. }) => {
            let done = tokio::task::spawn_blocking(move || on_files(&directory, &tool)).await;
            done.unwrap_or_else(|error| (Outcome::Failed(error.to_string()), None))
        }
    };
    // The interpreter may be gone: then nobody asks.
    let _ = news.send(News::Done { call: number, outcome, change }).await;
}

struct Shell<'a> {
    directory: &'a Path,
    description: String,
    limit: Duration,
}

impl Shell<'_> {
    async fn run(
        &self,
        command: &str,
        call: u64,
        news: &mpsc::Sender<News>,
        cancelled: &CancellationToken,
    ) -> Outcome {
        let mut child = match self.spawn(command) {
            Ok(child) => child,
            Err(error) => return Outcome::Failed(format!("the shell cannot be started: {error}")),
        };
        let life = child.stdin.take();
        let mut stdout = child.stdout.take().expect("stdout is a pipe");
        let mut output = Output::default();
        let mut buffer = vec![0; 8 * 1024];
        let mut deadline = Instant::now() + self.limit;
        let mut exit = None;
        let mut ended = None;
        loop {
            tokio::select! {
                read = stdout.read(&mut buffer) => match read {
                    Ok(0) | Err(_) => break,
                    Ok(length) => {
                        output.push(&buffer[..length]);
                        let output = output.text();
                        if news.send(News::Output { call, output }).await.is_err() {
                            ended = Some("the agent is gone");
                            break;
                        }
                    }
                },
                status = child.wait(), if exit.is_none() => {
                    exit = Some(status);
                    deadline = Instant::now() + AFTER_EXIT;
                }
                () = sleep_until(deadline) => {
                    ended = exit.is_none().then_some("the command took too long and was ended");
                    break;
                }
                () = cancelled.cancelled() => {
                    ended = Some("the command was ended");
                    break;
                }
            }
        }
        let code = match exit {
            Some(status) => status.ok().and_then(|status| status.code()),
            None if ended.is_none() => child.wait().await.ok().and_then(|status| status.code()),
            None => None,
        };
        end_group(&mut child, life).await;
        let mut text = output.text();
        if let Some(why) = ended {
            text.push_str(&format!("\n\n<shell_metadata>\n{why}\n</shell_metadata>"));
        }
        let metadata = json!({
            "output": text, "exit": code, "description": self.description, "truncated": output.truncated,
        });
        Outcome::Completed { output: text, metadata }
    }

    fn spawn(&self, command: &str) -> std::io::Result<Child> {
        Command::new("sh")
            .args(["-c", SHELL, "sh", command])
            .current_dir(self.directory)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into()))
            .env("HOME", self.directory)
            .env("LANG", "C.UTF-8")
            .env("TERM", "xterm-256color")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
    }
}

/// Closes the pipe that keeps the shell alive and kills what is left of its group.
async fn end_group(child: &mut Child, life: Option<tokio::process::ChildStdin>) {
    let group = child.id().and_then(|id| i32::try_from(id).ok()).and_then(rustix::process::Pid::from_raw);
    if let Some(group) = group {
        // It may be gone by itself.
        let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
    }
    drop(life);
    let _ = timeout(Duration::from_secs(5), child.wait()).await;
}

/// What a command has written, as much of it as is kept.
#[derive(Default)]
struct Output {
    bytes: Vec<u8>,
    truncated: bool,
}

impl Output {
    fn push(&mut self, bytes: &[u8]) {
        let room = OUTPUT_BYTES - self.bytes.len();
        self.truncated |= bytes.len() > room;
        self.bytes.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    /// As text; a character that has not come whole is left out.
    fn text(&self) -> String {
        let mut text = String::new();
        for chunk in self.bytes.utf8_chunks() {
            text.push_str(chunk.valid());
            let whole = chunk.invalid().len() > 1
                || !std::ptr::eq(chunk.invalid().as_ptr_range().end, self.bytes.as_ptr_range().end);
            if !chunk.invalid().is_empty() && whole {
                text.push(char::REPLACEMENT_CHARACTER);
            }
        }
        if self.truncated {
            text.push_str("\n\n(the rest of the output was left out)");
        }
        text
    }
}

/// Runs a tool that reads or writes files.
fn on_files(directory: &Path, tool: &Tool) -> (Outcome, Option<FileChange>) {
    let done = match tool {
        Tool::Write { path, content } => write(directory, path, content),
        Tool::Edit { path, old, new } => edit(directory, path, old, new),
        Tool::Read { path } => read(directory, path),
        Tool::Grep { pattern, path } => grep(directory, pattern, path.as_deref()),
        Tool::Glob { pattern } => Ok((glob(directory, pattern), None)),
        Tool::Bash { .. } => Err("a command is no file tool".to_owned()),
    };
    done.unwrap_or_else(|error| (Outcome::Failed(error), None))
}

type Done = Result<(Outcome, Option<FileChange>), String>;

fn write(directory: &Path, path: &str, content: &str) -> Done {
    let file = directory.join(path);
    let before = std::fs::read_to_string(&file).ok();
    if let Some(folder) = file.parent() {
        std::fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    }
    std::fs::write(&file, content).map_err(|error| format!("{}: {error}", file.display()))?;
    let metadata =
        json!({ "diagnostics": {}, "filepath": file, "exists": before.is_some(), "truncated": false });
    let outcome = Outcome::Completed { output: "Wrote file successfully.".to_owned(), metadata };
    Ok((outcome, Some(FileChange { path: path.to_owned(), before, after: content.to_owned() })))
}

fn edit(directory: &Path, path: &str, old: &str, new: &str) -> Done {
    let file = directory.join(path);
    let before = std::fs::read_to_string(&file).map_err(|_| format!("File {} not found", file.display()))?;
    match before.matches(old).count() {
        1 => {}
        0 => return Err("Could not find oldString in the file.".to_owned()),
        many => {
            return Err(format!("Found {many} matches for oldString. Provide more of the lines around it."));
        }
    }
    let after = before.replacen(old, new, 1);
    std::fs::write(&file, &after).map_err(|error| format!("{}: {error}", file.display()))?;
    let metadata = json!({ "diagnostics": {}, "truncated": false });
    let outcome = Outcome::Completed { output: "Edit applied successfully.".to_owned(), metadata };
    Ok((outcome, Some(FileChange { path: path.to_owned(), before: Some(before), after })))
}

fn read(directory: &Path, path: &str) -> Done {
    let file = directory.join(path);
    let text = std::fs::read_to_string(&file).map_err(|_| format!("File not found: {}", file.display()))?;
    let numbered: String =
        text.lines().zip(1..).map(|(line, number)| format!("{number}: {line}\n")).collect();
    let output = format!(
        "<path>{}</path>\n<type>file</type>\n<content>\n{numbered}\n(End of file - total {} lines)\n</content>",
        file.display(),
        text.lines().count()
    );
    let preview: Vec<&str> = text.lines().take(20).collect();
    let metadata = json!({ "preview": preview.join("\n"), "truncated": false, "loaded": [] });
    Ok((Outcome::Completed { output, metadata }, None))
}

fn grep(directory: &Path, pattern: &str, path: Option<&str>) -> Done {
    let mut output = String::new();
    let mut matches = 0;
    for file in files(&directory.join(path.unwrap_or("."))) {
        let Ok(text) = std::fs::read_to_string(&file) else { continue };
        let lines: Vec<(usize, &str)> =
            (1..).zip(text.lines()).filter(|(_, line)| line.contains(pattern)).collect();
        if lines.is_empty() {
            continue;
        }
        matches += lines.len();
        output.push_str(&format!("\n{}:\n", file.display()));
        for (number, line) in lines {
            output.push_str(&format!("  Line {number}: {line}\n"));
        }
    }
    let output =
        if matches == 0 { "No files found".to_owned() } else { format!("Found {matches} matches{output}") };
    Ok((Outcome::Completed { output, metadata: json!({ "matches": matches, "truncated": false }) }, None))
}

fn glob(directory: &Path, pattern: &str) -> Outcome {
    let found: Vec<String> = files(directory)
        .into_iter()
        .filter(|file| {
            let below = file.strip_prefix(directory).unwrap_or(file);
            let names: Vec<&str> = below.iter().filter_map(|name| name.to_str()).collect();
            let wanted: Vec<&str> = pattern.split('/').collect();
            fits_path(&wanted, &names)
        })
        .map(|file| file.display().to_string())
        .collect();
    let metadata = json!({ "count": found.len(), "truncated": false });
    let output = if found.is_empty() { "No files found".to_owned() } else { found.join("\n") };
    Outcome::Completed { output, metadata }
}

/// Every file below a folder (or the file itself), in order, without hidden ones.
fn files(path: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![path.components().collect::<PathBuf>()];
    while let Some(path) = folders.pop() {
        if path.is_file() {
            found.push(path);
            continue;
        }
        let Ok(entries) = std::fs::read_dir(&path) else { continue };
        let hidden =
            |path: &Path| path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        folders.extend(
            entries.flatten().map(|entry| entry.path()).filter(|path| !hidden(path) && !path.is_symlink()),
        );
        if found.len() > SEARCH_FILES {
            break;
        }
    }
    found.sort();
    found
}

fn fits_path(pattern: &[&str], names: &[&str]) -> bool {
    match (pattern.split_first(), names.split_first()) {
        (None, None) => true,
        (Some((&"**", rest)), None) => fits_path(rest, names),
        (Some((&"**", rest)), Some((_, below))) => fits_path(rest, names) || fits_path(pattern, below),
        (Some((wanted, rest)), Some((name, below))) => {
            fits(wanted.as_bytes(), name.as_bytes()) && fits_path(rest, below)
        }
        (None, Some(_)) | (Some(_), None) => false,
    }
}

fn fits(pattern: &[u8], name: &[u8]) -> bool {
    match (pattern.split_first(), name.split_first()) {
        (None, None) => true,
        (Some((b'*', rest)), None) => fits(rest, name),
        (Some((b'*', rest)), Some((_, below))) => fits(rest, name) || fits(pattern, below),
        (Some((b'?', rest)), Some((_, below))) => fits(rest, below),
        (Some((wanted, rest)), Some((letter, below))) => wanted == letter && fits(rest, below),
        (None, Some(_)) | (Some(_), None) => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[tokio::test]
    async fn a_command_streams_its_output_and_tells_its_exit_code() {
        let folder = tempfile::tempdir().unwrap();
        let news = bash(folder.path(), "echo one; echo two >&2; exit 3", 60_000).await;
        let (output, metadata) = completed(&news);
        assert_eq!(output, "one\ntwo\n");
        assert_eq!(metadata["exit"], 3);
        assert!(
            news.iter().any(|news| matches!(news, News::Output { output, .. } if output.starts_with("one")))
        );
    }

    #[tokio::test]
    async fn a_cancelled_command_leaves_nothing_running() {
        let folder = tempfile::tempdir().unwrap();
        let (sender, mut news) = mpsc::channel(64);
        let cancelled = CancellationToken::new();
        let command = "sleep 600 & echo $!; wait".to_owned();
        let tool = Tool::Bash { command, description: String::new(), timeout_ms: 600_000 };
        let call = Call { number: 1, tool };
        let running = tokio::spawn(run(folder.path().to_owned(), call, sender, cancelled.clone()));
        let Some(News::Output { output, .. }) = news.recv().await else {
            panic!("the command says its child's id")
        };
        cancelled.cancel();
        running.await.unwrap();
        assert!(gone(output.trim()).await, "process {output} is still there");
    }

    #[tokio::test]
    async fn p16_a_command_dies_with_the_pipe_that_its_wrapper_holds() {
        let folder = tempfile::tempdir().unwrap();
        let shell =
            Shell { directory: folder.path(), description: String::new(), limit: Duration::from_secs(600) };
        let mut child = shell.spawn("sleep 600 & echo $!; wait").unwrap();
        let mut output = [0; 32];
        let length = child.stdout.as_mut().unwrap().read(&mut output).await.unwrap();
        drop(child.stdin.take());
        child.wait().await.unwrap();
        assert!(gone(std::str::from_utf8(&output[..length]).unwrap().trim()).await);
    }

    #[tokio::test]
    async fn a_command_that_takes_too_long_is_ended_and_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let news = bash(folder.path(), "echo begun; sleep 600", 300).await;
        let (output, metadata) = completed(&news);
        assert!(output.starts_with("begun\n") && output.contains("took too long"), "{output}");
        assert_eq!(metadata["exit"], Value::Null);
    }

    #[tokio::test]
    async fn the_wrapper_token_is_not_in_a_command_s_environment() {
        let folder = tempfile::tempdir().unwrap();
        let news = bash(folder.path(), "env", 60_000).await;
        let (output, _) = completed(&news);
        let names: Vec<&str> = output.lines().filter_map(|line| line.split('=').next()).collect();
        assert!(names.contains(&"PATH") && names.contains(&"HOME"));
        assert!(!names.iter().any(|name| name.contains("CARGO") || name.contains("GASTOWN")), "{names:?}");
    }

    #[test]
    fn long_output_is_cut_and_a_broken_character_waits_for_its_rest() {
        let mut output = Output::default();
        output.push("caf\u{e9}".as_bytes().split_at(4).0);
        assert_eq!(output.text(), "caf");
        output.push(&[0xa9, b'!']);
        assert_eq!(output.text(), "café!");
        output.push(&vec![b'x'; OUTPUT_BYTES]);
        assert!(output.truncated && output.text().len() < OUTPUT_BYTES + 100);
    }

    #[test]
    fn files_are_written_edited_read_and_found() {
        let folder = tempfile::tempdir().unwrap();
        let on = |tool: Tool| on_files(folder.path(), &tool);
        let (_, change) = on(Tool::Write { path: "src/a.rs".into(), content: "one\ntwo\n".into() });
        assert_eq!(
            change,
            Some(FileChange { path: "src/a.rs".into(), before: None, after: "one\ntwo\n".into() })
        );
        let (_, change) = on(Tool::Edit { path: "src/a.rs".into(), old: "two".into(), new: "2".into() });
        assert_eq!(change.unwrap().before.as_deref(), Some("one\ntwo\n"));
        assert_eq!(std::fs::read_to_string(folder.path().join("src/a.rs")).unwrap(), "one\n2\n");
        let output = |tool: Tool| match on(tool).0 {
            Outcome::Completed { output, .. } => output,
            Outcome::Failed(error) => error,
        };
        assert!(output(Tool::Read { path: "src/a.rs".into() }).contains("1: one\n2: 2\n"));
        assert!(
            output(Tool::Grep { pattern: "one".into(), path: Some("src".into()) }).contains("Line 1: one")
        );
        assert!(output(Tool::Glob { pattern: "**/*.rs".into() }).ends_with("src/a.rs"));
        assert_eq!(output(Tool::Glob { pattern: "*.md".into() }), "No files found");
        let failed = output(Tool::Edit { path: "src/a.rs".into(), old: "three".into(), new: String::new() });
        assert!(failed.contains("Could not find"), "{failed}");
        assert!(output(Tool::Read { path: "none".into() }).starts_with("File not found"));
    }

    async fn bash(directory: &Path, command: &str, timeout_ms: u64) -> Vec<News> {
        let (sender, mut receiver) = mpsc::channel(1024);
        let tool = Tool::Bash { command: command.to_owned(), description: "d".to_owned(), timeout_ms };
        run(directory.to_owned(), Call { number: 1, tool }, sender, CancellationToken::new()).await;
        let mut news = Vec::new();
        while let Some(one) = receiver.recv().await {
            news.push(one);
        }
        news
    }

    fn completed(news: &[News]) -> (&str, &Value) {
        match news.last() {
            Some(News::Done { outcome: Outcome::Completed { output, metadata }, .. }) => (output, metadata),
            other => panic!("{other:?}"),
        }
    }

    /// Waits until there is no such process, or it is only waiting to be reaped.
    async fn gone(process: &str) -> bool {
        let until = Instant::now() + Duration::from_secs(10);
        while Instant::now() < until {
            match std::fs::read_to_string(format!("/proc/{process}/stat")) {
                Ok(stat) if !stat.contains(") Z ") => tokio::task::yield_now().await,
                Ok(_) | Err(_) => return true,
            }
        }
        false
    }
}
