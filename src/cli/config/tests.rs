//! What people type, against a worker.

use clap::Parser;
use serde_json::json;
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use worker::WorkerConfig;

use super::{super::exit::exit_of, *};

#[derive(Debug, Parser)]
struct Line {
    #[command(flatten)]
    config: Config,
}

#[tokio::test]
async fn what_is_set_is_shown_with_where_it_is_set_and_unset_again() {
    let town = Running::start().await;
    town.register("Toast", "polecat").await;
    let nothing = "nothing is set for the town: `gastown config set --help` shows what can be\n";
    assert_eq!(town.types(&["show"]).await.unwrap(), nothing);

    for (line, said) in [
        (&["set", "model", "a/b"][..], "model is a/b for the town, from the next turn on\n"),
        (
            &["set", "env.API_KEY", "canary"],
            "env.API_KEY is set for the town; it applies at the next start\n",
        ),
        (
            &["set", "--role", "polecat", "autoCommit", "true"],
            "autoCommit is true for the role polecat, from the next turn on\n",
        ),
        (
            &["set", "--agent", "Toast", "tools.bash", "false"],
            "tools.bash is false for toast, from the next turn on\n",
        ),
        (&["set", "model", "c/d", "--agent", "toast"], "model is c/d for toast, from the next turn on\n"),
    ] {
        assert_eq!(town.types(line).await.unwrap(), said);
    }
    let lines = [
        "KEY          VALUE  SET FOR",
        "autoCommit   true   the role polecat",
        "env.API_KEY  ***    the town",
        "model        c/d    toast",
        "tools.bash   false  toast",
    ];
    assert_eq!(town.types(&["show", "--agent", "toast"]).await.unwrap(), lines.join("\n") + "\n");
    let role = town.types(&["show", "--role", "polecat"]).await.unwrap();
    assert!(
        role.contains("autoCommit   true   the role polecat\n") && role.contains("a/b    the town\n"),
        "{role}"
    );
    let shown: Value =
        serde_json::from_str(&town.types(&["show", "--agent", "toast", "--json"]).await.unwrap()).unwrap();
    assert_eq!(
        (&shown["config"]["tools"], &shown["from"]["env.API_KEY"]),
        (&json!({ "bash": false }), &json!("town"))
    );

    for (line, said) in [
        (
            &["unset", "model", "--agent", "toast"][..],
            "model is a/b for toast, as for the town, from the next turn on\n",
        ),
        (&["unset", "model", "--agent", "toast"], "model is not set for toast: it is set for the town\n"),
        (
            &["unset", "env.API_KEY"],
            "env.API_KEY is no longer set for the town; it applies at the next start\n",
        ),
        (&["unset", "env.API_KEY"], "env.API_KEY is not set for the town\n"),
    ] {
        assert_eq!(town.types(line).await.unwrap(), said);
    }
    town.stop().await;
}

#[tokio::test]
async fn who_is_not_there_has_no_config() {
    let town = Running::start().await;
    let error = town.types(&["set", "model", "a/b", "--agent", "nobody"]).await.unwrap_err();
    assert_eq!(exit_of(&error), Exit::NotFound);
    assert!(error.to_string().contains("nobody"), "{error}");
    town.stop().await;
}

#[tokio::test]
async fn what_is_wrong_is_told_before_a_server_is_asked() {
    let nowhere = tempfile::tempdir().unwrap();
    let error = types(nowhere.path(), &["set", "autoCommit", "canary"]).await.unwrap_err();
    assert_eq!(exit_of(&error), Exit::Usage);
    assert_eq!(error.to_string(), "`autoCommit` of the config is to be true or false");
    for (line, said) in [
        (&["set", "autocommit", "true"][..], "did you mean autoCommit?"),
        (&["unset", "env"], "env.API_KEY"),
        (&["show", "--role", "cook"], "mayor, polecat"),
        (&["show", "--role", "crew", "--agent", "toast"], "cannot be used with"),
    ] {
        let error = Line::try_parse_from([&["config"], line].concat()).unwrap_err().to_string();
        assert!(error.contains(said), "{error}");
    }
}

/// A worker without agents that run.
struct Running {
    folder: tempfile::TempDir,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Running {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let running = worker::start(WorkerConfig::new(folder.path()), listener).await.unwrap();
        let stop = CancellationToken::new();
        let stopped = stop.clone().cancelled_owned();
        let task = tokio::spawn(async move { running.run_until(stopped).await.unwrap() });
        Self { folder, stop, task }
    }

    async fn register(&self, name: &str, role: &str) {
        let Sub::Show(show) = parsed(self.folder.path(), &["show"]).subcommand else { unreachable!("show") };
        let server = Server::find(&show.server).unwrap();
        let agent = json!({ "name": name, "role": role, "runtime": { "kind": "opencode" }, "directory": self.folder.path() });
        server.api(Verb::Post, "agents", Some(&agent)).await.unwrap();
    }

    async fn types(&self, line: &[&str]) -> anyhow::Result<String> {
        types(self.folder.path(), line).await
    }

    async fn stop(self) {
        self.stop.cancel();
        self.task.await.unwrap();
    }
}

async fn types(data_dir: &std::path::Path, line: &[&str]) -> anyhow::Result<String> {
    parsed(data_dir, line).text().await
}

fn parsed(data_dir: &std::path::Path, line: &[&str]) -> Config {
    let data_dir = ["--data-dir", data_dir.to_str().unwrap()];
    Line::try_parse_from([&["config"], line, &data_dir].concat()).unwrap().config
}
