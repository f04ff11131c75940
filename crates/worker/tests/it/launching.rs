//! The local launcher, with shell scripts as wrappers.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

use gastown_worker::{Adoption, LaunchError, LaunchSpec, Launcher as _, LocalLauncher, WrapperProcess};
use protocol::Timestamp;
use relay::auth::Secret;
use town::{Command, Registration, Repository, Request, Role, Runtime, RuntimeKind, Town, WrapperExit};

use crate::support::in_time;

#[tokio::test]
async fn a_wrapper_gets_its_options_as_arguments_and_its_token_by_environment() {
    let folder = tempfile::tempdir().unwrap();
    let launcher = launcher(&folder, r#"echo "$@"; echo "token=$GASTOWN_WRAPPER_TOKEN""#);
    let mut process = launcher.launch(spec()).await.unwrap();
    assert_eq!(end(&mut *process).await, WrapperExit::Finished);
    let log = log(&folder);
    let state = folder.path().join("toast");
    assert_eq!(
        log,
        format!(
            "--town main --agent toast --generation 1 --relay http://127.0.0.1:1 --runtime scripted --dir / \
             --state-dir {} --scenario /s.json --repeat\ntoken=secret-token\n",
            state.display()
        )
    );
}

#[tokio::test]
async fn an_agent_with_a_repository_gets_a_work_tree_that_its_commits_leave() {
    let folder = tempfile::tempdir().unwrap();
    let launcher = launcher(&folder, r#"echo "$@""#);
    let mut spec = spec();
    let repository =
        Repository::at("https://example.org/app.git").with_branch("trunk").with_token_file("/token");
    spec.agent.repository = Some(repository);
    end(&mut *launcher.launch(spec).await.unwrap()).await;
    let rigs = folder.path().with_file_name("rigs");
    let expected = format!(
        "--git https://example.org/app.git --rigs {} --base-branch trunk --git-token-file /token --auto-commit",
        rigs.display()
    );
    assert!(log(&folder).contains(&expected), "{}", log(&folder));
}

#[tokio::test]
async fn p19_the_token_is_on_no_command_line() {
    let folder = tempfile::tempdir().unwrap();
    let launcher = launcher(&folder, "echo up; tr '\\0' ' ' < /proc/$$/cmdline; echo");
    let mut process = launcher.launch(spec()).await.unwrap();
    end(&mut *process).await;
    assert!(log(&folder).contains("--agent toast") && !log(&folder).contains("secret-token"));
}

#[tokio::test]
async fn the_exit_code_says_how_a_wrapper_ended_and_its_last_words_why() {
    let folder = tempfile::tempdir().unwrap();
    for (code, expected) in [
        (0, WrapperExit::Finished),
        (21, WrapperExit::Superseded),
        (20, WrapperExit::Unusable { reason: "the wrapper cannot run this agent: no kilo on PATH".into() }),
        (22, WrapperExit::Unusable { reason: "the wrapper cannot run this agent: no kilo on PATH".into() }),
        (7, WrapperExit::Crashed { reason: "the wrapper ended with exit status: 7: no kilo on PATH".into() }),
    ] {
        let launcher = launcher(&folder, &format!("echo working; echo 'no kilo on PATH' >&2; exit {code}"));
        let mut process = launcher.launch(spec()).await.unwrap();
        assert_eq!(end(&mut *process).await, expected);
        assert_eq!(end(&mut *process).await, expected, "it may be asked again");
    }
}

#[tokio::test]
async fn a_wrapper_is_in_a_process_group_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let launcher = launcher(&folder, r#"echo "$$ $(cut -d' ' -f5 /proc/$$/stat)""#);
    let mut process = launcher.launch(spec()).await.unwrap();
    end(&mut *process).await;
    let log = log(&folder);
    let (pid, group) = log.trim().split_once(' ').unwrap();
    assert_eq!(pid, group);
}

#[tokio::test]
async fn a_wrapper_ends_when_it_is_asked_to_and_when_it_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    let ready = Pipe::make(&folder);
    let script =
        |trap: &str| format!("trap '{trap}' TERM; : > {}; while :; do sleep 0.05; done", ready.0.display());
    let polite = launcher(&folder, &script("exit 0"));
    let mut process = polite.launch(spec()).await.unwrap();
    ready.opened().await;
    process.terminate().await;
    assert_eq!(end(&mut *process).await, WrapperExit::Finished);
    process.terminate().await;

    let stubborn = launcher(&folder, &script(""));
    let mut process = stubborn.launch(spec()).await.unwrap();
    ready.opened().await;
    process.terminate().await;
    process.kill().await;
    let WrapperExit::Crashed { reason } = end(&mut *process).await else { panic!("it was killed") };
    assert!(reason.contains("signal: 9"), "{reason}");
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_wrapper_that_lives_is_found_again_and_one_that_is_dead_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let launcher = launcher(&folder, "exec sleep 1000");
    assert!(matches!(launcher.adopt(&id(), 1).await, Adoption::Gone), "there never was one");
    let process = launcher.launch(spec()).await.unwrap();
    // A worker that dies does not wait for its children: another launcher stands for the next worker.
    assert!(matches!(launcher.adopt(&id(), 2).await, Adoption::Gone), "another generation");
    let Adoption::Found(mut adopted) = launcher.adopt(&id(), 1).await else { panic!("it lives") };
    adopted.terminate().await;
    let exit = tokio::spawn(async move {
        let mut process = process;
        process.wait().await
    });
    assert!(matches!(end(&mut *adopted).await, WrapperExit::Crashed { .. }));
    in_time("its end", exit).await.unwrap();
    assert!(matches!(launcher.adopt(&id(), 1).await, Adoption::Gone));
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn an_older_wrapper_is_ended_before_the_next_one_starts() {
    let folder = tempfile::tempdir().unwrap();
    let launcher = launcher(&folder, "echo up; exec sleep 1000");
    let mut older = launcher.launch(spec()).await.unwrap();
    let next = LaunchSpec { generation: 2, ..spec() };
    // The older one is reaped meanwhile, as its task does.
    let (launched, _) = tokio::join!(launcher.launch(next), older.wait());
    let mut newer = launched.unwrap();
    newer.kill().await;
    end(&mut *newer).await;
}

#[tokio::test]
async fn a_command_that_is_not_there_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let launcher = LocalLauncher::new(vec!["/no/such/wrapper".into()], folder.path().to_owned());
    let error = launcher.launch(spec()).await.unwrap_err();
    assert!(
        matches!(&error, LaunchError::Spawn { command, .. } if command == Path::new("/no/such/wrapper")),
        "{error}"
    );
}

#[tokio::test]
async fn what_is_forgotten_leaves_no_files() {
    let folder = tempfile::tempdir().unwrap();
    let launcher = launcher(&folder, "exit 0");
    let mut process = launcher.launch(spec()).await.unwrap();
    end(&mut *process).await;
    launcher.forget(&id()).await.unwrap();
    assert!(!folder.path().join("toast").exists());
    launcher.forget(&id()).await.unwrap();
}

/// A launcher whose wrappers run this script.
fn launcher(folder: &tempfile::TempDir, script: &str) -> LocalLauncher {
    let command: [OsString; 4] = ["/bin/sh".into(), "-c".into(), script.into(), "wrapper".into()];
    LocalLauncher::new(command.into(), folder.path().to_owned())
}

fn spec() -> LaunchSpec {
    let mut town = Town::new("main".parse().unwrap());
    let registration = Registration {
        name: "toast".into(),
        role: Role::Polecat,
        runtime: Runtime::of(RuntimeKind::Scripted).with_scenario("/s.json").repeated(),
        directory: "/".into(),
        repository: None,
    };
    let request = Request::by("operator", Command::Register { registration, start: true });
    for event in town.decide(Timestamp::from_unix_ms(0), &request).unwrap() {
        town.evolve(&event);
    }
    LaunchSpec {
        town: town.id().clone(),
        agent: town.agent(&id()).unwrap().clone(),
        generation: 1,
        relay: "http://127.0.0.1:1".into(),
        token: Secret::new("secret-token"),
        config: protocol::config::TownConfig::default(),
    }
}

fn id() -> protocol::AgentId {
    "toast".parse().unwrap()
}

async fn end(process: &mut dyn WrapperProcess) -> WrapperExit {
    in_time("the wrapper ends", process.wait()).await
}

fn log_path(folder: &tempfile::TempDir) -> PathBuf {
    folder.path().join("toast/wrapper.log")
}

fn log(folder: &tempfile::TempDir) -> String {
    std::fs::read_to_string(log_path(folder)).unwrap()
}

/// A named pipe that a script opens when it has come so far.
struct Pipe(PathBuf);

impl Pipe {
    fn make(folder: &tempfile::TempDir) -> Self {
        let path = folder.path().join("ready");
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        Self(path)
    }

    /// Waits until it was opened at the other end, and closed.
    async fn opened(&self) {
        in_time("the wrapper comes so far", tokio::fs::read(&self.0)).await.unwrap();
    }
}
