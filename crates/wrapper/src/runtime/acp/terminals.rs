//! Commands that run for the agent (`terminal/*`), each under a guard of its own, so that none of them outlives the wrapper.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Deserialize;
use serde_json::{Value, json};
use tokio::{io::AsyncReadExt as _, process::ChildStdout, sync::mpsc, time::Instant};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    files,
    rpc::{INTERNAL_ERROR, INVALID_PARAMS, RpcError},
};
use crate::runtime::process::{AgentProcess, Launch};

/// Terminals that one agent may have at once.
const TERMINALS: usize = 32;
/// Bytes of output that are kept of one, if the agent names no limit of its own below it.
const OUTPUT: usize = 1024 * 1024;
/// How long what a command writes may wait to be shown with what it writes next: all of it is shown each time.
const UNSEEN: Duration = Duration::from_millis(150);
/// Between TERM and KILL.
const GRACE: Duration = Duration::from_secs(2);

/// The terminals of one agent.
#[derive(Debug)]
pub(super) struct Terminals {
    guard: Vec<OsString>,
    folder: PathBuf,
    environment: Vec<(OsString, OsString)>,
    open: BTreeMap<String, Terminal>,
    count: u64,
    /// When what was not shown yet is to be.
    due: Option<Instant>,
    news: mpsc::Sender<News>,
    tasks: TaskTracker,
}

/// What a terminal says.
#[derive(Debug)]
pub(super) enum News {
    /// Bytes that its command wrote.
    Wrote(String, Vec<u8>),
    /// Its command is gone.
    Ended(String),
}

#[derive(Debug)]
struct Terminal {
    process: AgentProcess,
    output: Vec<u8>,
    limit: usize,
    truncated: bool,
    /// It wrote something that was not shown.
    unseen: bool,
    ended: bool,
    /// The agent knows it no more; it is here for those who wait for its end.
    released: bool,
    /// Requests of `terminal/wait_for_exit`.
    waiting: Vec<Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Create {
    command: String,
    #[serde(default)]
    args: Vec<String>,
    #[serde(default)]
    env: Vec<Variable>,
    cwd: Option<String>,
    output_byte_limit: Option<usize>,
}

#[derive(Deserialize)]
struct Variable {
    name: String,
    value: String,
}

impl Terminals {
    /// None yet. `news` is told what they do.
    pub(super) fn new(
        guard: Vec<OsString>,
        folder: &Path,
        environment: Vec<(OsString, OsString)>,
        news: mpsc::Sender<News>,
    ) -> Self {
        Self {
            guard,
            folder: folder.to_owned(),
            environment,
            open: BTreeMap::new(),
            count: 0,
            due: None,
            news,
            tasks: TaskTracker::new(),
        }
    }

    /// `terminal/create`.
    pub(super) fn create(&mut self, params: &Value) -> Result<Value, RpcError> {
        let create =
            Create::deserialize(params).map_err(|error| RpcError::new(INVALID_PARAMS, error.to_string()))?;
        if self.open.len() >= TERMINALS {
            return Err(RpcError::new(INTERNAL_ERROR, format!("{TERMINALS} terminals are open already")));
        }
        self.count += 1;
        let id = format!("term_{}", self.count);
        // One stream, in the order of writing, as a terminal has it. A command with blanks and no arguments is a line for a shell.
        let script =
            if create.args.is_empty() { r#"exec 2>&1; eval "$1""# } else { r#"exec 2>&1; exec "$@""# };
        let words = ["sh", "-c", script, "sh"].map(OsString::from);
        let rest = std::iter::once(create.command).chain(create.args).map(OsString::from);
        let mut environment = self.environment.clone();
        environment
            .extend(create.env.into_iter().map(|Variable { name, value }| (name.into(), value.into())));
        let launch = Launch {
            guard: &self.guard,
            command: &words.into_iter().chain(rest).collect::<Vec<_>>(),
            stdin: None,
            directory: &files::folder_inside(&self.folder, create.cwd.as_deref())?,
            environment: &environment,
            grace: GRACE,
        };
        let (news, name) = (self.news.clone(), id.clone());
        let process = AgentProcess::start(&launch, |stdout| follow(stdout, name, news))
            .map_err(|error| RpcError::new(INTERNAL_ERROR, error.message))?;
        self.watch(&id, process.gone());
        let limit = create.output_byte_limit.unwrap_or(OUTPUT).min(OUTPUT);
        let terminal = Terminal {
            process,
            output: Vec::new(),
            limit,
            truncated: false,
            unseen: false,
            ended: false,
            released: false,
            waiting: Vec::new(),
        };
        self.open.insert(id.clone(), terminal);
        Ok(json!({ "terminalId": id }))
    }

    /// `terminal/output`.
    pub(super) fn output(&self, params: &Value) -> Result<Value, RpcError> {
        let (_, terminal) = self.named(params)?;
        let mut result = json!({ "output": terminal.text(), "truncated": terminal.truncated });
        if terminal.ended {
            result["exitStatus"] = terminal.exit_status();
        }
        Ok(result)
    }

    /// `terminal/wait_for_exit`: answered now, or with [`Terminals::ended`].
    pub(super) fn wait_for_exit(
        &mut self,
        request: &Value,
        params: &Value,
    ) -> Option<Result<Value, RpcError>> {
        let id = match self.named(params) {
            Ok((id, terminal)) if terminal.ended => return Some(Ok(self.open[&id].exit_status())),
            Ok((id, _)) => id,
            Err(error) => return Some(Err(error)),
        };
        self.open.get_mut(&id)?.waiting.push(request.clone());
        None
    }

    /// `terminal/kill`: the command is to end, what it wrote stays.
    pub(super) fn kill(&mut self, params: &Value) -> Result<Value, RpcError> {
        let (id, _) = self.named(params)?;
        if let Some(terminal) = self.open.get_mut(&id) {
            terminal.process.end();
        }
        Ok(json!({}))
    }

    /// `terminal/release`: its command is to end, and nobody asks for it any more but who waits for that already.
    pub(super) fn release(&mut self, params: &Value) -> Result<Value, RpcError> {
        let (id, terminal) = self.named(params)?;
        if terminal.ended {
            self.open.remove(&id);
        } else if let Some(terminal) = self.open.get_mut(&id) {
            terminal.released = true;
            terminal.output = Vec::new();
            terminal.process.end();
        }
        Ok(json!({}))
    }

    /// Takes what a command wrote, which is to be [shown](Self::unseen) when it is [due](Self::due).
    pub(super) fn wrote(&mut self, id: &str, bytes: &[u8]) {
        let Some(terminal) = self.open.get_mut(id).filter(|terminal| !terminal.released) else { return };
        terminal.unseen = true;
        self.due.get_or_insert_with(|| Instant::now() + UNSEEN);
        terminal.output.extend_from_slice(bytes);
        if let Some(over) = terminal.output.len().checked_sub(terminal.limit).filter(|over| *over > 0) {
            // The beginning goes, at a character's edge, as ACP wants it.
            let edge = |at: &usize| terminal.output.get(*at).is_none_or(|byte| byte & 0xc0 != 0x80);
            let cut = (over..terminal.output.len()).find(edge).unwrap_or(terminal.output.len());
            terminal.output.drain(..cut);
            terminal.truncated = true;
        }
    }

    /// When there is something to be shown.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// The terminals that wrote something since this was asked last, with all that is kept of it.
    pub(super) fn unseen(&mut self) -> Vec<(String, String)> {
        self.due = None;
        let unseen = self.open.iter_mut().filter(|(_, terminal)| terminal.unseen);
        let show = |(id, terminal): (&String, &mut Terminal)| {
            terminal.unseen = false;
            (id.clone(), terminal.text())
        };
        unseen.map(show).collect()
    }

    /// All that is kept of what a command wrote; nothing if it wrote nothing yet.
    pub(super) fn text(&self, id: &str) -> Option<String> {
        self.open.get(id).map(Terminal::text).filter(|text| !text.is_empty())
    }

    /// A command is gone. Returns who waited for that, and with what to answer them.
    pub(super) fn ended(&mut self, id: &str) -> Option<(Vec<Value>, Value)> {
        let terminal = self.open.get_mut(id)?;
        terminal.ended = true;
        let told = (std::mem::take(&mut terminal.waiting), terminal.exit_status());
        if terminal.released {
            self.open.remove(id);
        }
        Some(told)
    }

    /// Ends them all, and waits until they are gone. Nobody may listen to their news any more.
    pub(super) async fn stop(&mut self) {
        for terminal in self.open.values_mut() {
            terminal.process.end();
        }
        for terminal in self.open.values_mut() {
            terminal.process.stop().await;
        }
        self.tasks.close();
        self.tasks.wait().await;
    }

    fn named(&self, params: &Value) -> Result<(String, &Terminal), RpcError> {
        let id = params["terminalId"].as_str().unwrap_or_default();
        let open = self.open.get(id).filter(|terminal| !terminal.released);
        let found = open.map(|terminal| (id.to_owned(), terminal));
        found.ok_or_else(|| RpcError::new(INVALID_PARAMS, format!("there is no terminal {id:?}")))
    }

    fn watch(&self, id: &str, gone: CancellationToken) {
        let (news, id) = (self.news.clone(), id.to_owned());
        self.tasks.spawn(async move {
            gone.cancelled().await;
            // Nobody listens any more when the agent itself is being ended.
            let _ = news.send(News::Ended(id)).await;
        });
    }
}

impl Terminal {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.output).into_owned()
    }

    fn exit_status(&self) -> Value {
        match self.process.exit_code() {
            Some(code) if code > 128 => json!({ "exitCode": code, "signal": (code - 128).to_string() }),
            code => json!({ "exitCode": code, "signal": null }),
        }
    }
}

/// Hands on what a command writes. A full channel slows the command down.
async fn follow(mut stdout: ChildStdout, id: String, news: mpsc::Sender<News>) -> std::io::Result<()> {
    let mut bytes = vec![0; 8192];
    loop {
        let read = stdout.read(&mut bytes).await?;
        if read == 0 || news.send(News::Wrote(id.clone(), bytes[..read].to_vec())).await.is_err() {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_is_written_is_shown_150_ms_later_with_what_came_since() {
        let (_folder, mut terminals) = terminals();
        let id = open(&mut terminals, &json!({ "command": "make" }));
        assert_eq!(terminals.due(), None);
        let due = Instant::now() + Duration::from_millis(150);
        terminals.wrote(&id, b"one ");
        tokio::time::advance(Duration::from_millis(100)).await;
        terminals.wrote(&id, b"two");
        assert_eq!(terminals.due(), Some(due), "counted from the first");
        assert_eq!(terminals.unseen(), [(id, "one two".to_owned())]);
        assert_eq!((terminals.due(), terminals.unseen()), (None, vec![]));
    }

    #[tokio::test]
    async fn the_end_of_an_output_is_kept_within_its_limit_from_a_character_on() {
        let (_folder, mut terminals) = terminals();
        let id = open(&mut terminals, &json!({ "command": "make", "outputByteLimit": 6 }));
        for (written, output, truncated) in [("ééé", "ééé", false), ("end", "éend", true)] {
            terminals.wrote(&id, written.as_bytes());
            let said = terminals.output(&json!({ "terminalId": id })).unwrap();
            assert_eq!((&said["output"], &said["truncated"]), (&json!(output), &json!(truncated)));
        }
        let unlimited = open(&mut terminals, &json!({ "command": "make", "outputByteLimit": u32::MAX }));
        terminals.wrote(&unlimited, &vec![b'x'; OUTPUT + 1]);
        assert_eq!(terminals.text(&unlimited).unwrap().len(), OUTPUT);
    }

    #[tokio::test]
    async fn there_are_so_many_terminals_and_no_more_until_one_is_released() {
        let (_folder, mut terminals) = terminals();
        let first = open(&mut terminals, &json!({ "command": "make" }));
        for _ in 1..TERMINALS {
            open(&mut terminals, &json!({ "command": "make" }));
        }
        let refused = terminals.create(&json!({ "command": "make" })).unwrap_err();
        assert_eq!(refused.message, "32 terminals are open already");
        terminals.ended(&first);
        terminals.release(&json!({ "terminalId": first })).unwrap();
        open(&mut terminals, &json!({ "command": "make" }));
    }

    #[tokio::test]
    async fn a_terminal_is_in_the_work_folder() {
        let (_folder, mut terminals) = terminals();
        let refused = terminals.create(&json!({ "command": "make", "cwd": "/" })).unwrap_err();
        assert!(refused.message.contains("is not in the work folder"), "{refused}");
    }

    fn open(terminals: &mut Terminals, params: &Value) -> String {
        terminals.create(params).unwrap()["terminalId"].as_str().unwrap().to_owned()
    }

    /// Terminals whose commands end at once and say nothing.
    fn terminals() -> (TempDir, Terminals) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().canonicalize().unwrap();
        let terminals = Terminals::new(vec!["true".into()], &path, Vec::new(), mpsc::channel(64).0);
        (folder, terminals)
    }
}
