//! The `gastown-wrapper` binary: a wrapper and nothing else.

use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser;
use gastown_wrapper::{GuardArgs, Options, Shutdown, guard, run, run_to_end};

/// Run one coding agent and connect it to a relay
#[derive(Debug, Parser)]
#[command(version)]
#[command(after_help = "\
The token comes from GASTOWN_WRAPPER_TOKEN or --token-file. The first SIGTERM lets the turn that runs end, the second one
does not.

Exit codes: 0 done, 20 the agent failed, 21 superseded by a newer wrapper, 22 refused by the relay, 23 gave up.")]
struct Arguments {
    #[command(flatten)]
    options: Options,
}

/// Run a command and leave no process of it behind: what a wrapper starts itself as
#[derive(Debug, Parser)]
struct Guarded {
    #[command(flatten)]
    args: GuardArgs,
}

fn main() -> anyhow::Result<ExitCode> {
    // No subcommand: beside one, options that are needed would have to be optional.
    if std::env::args_os().nth(1).is_some_and(|word| word == "guard") {
        let Guarded { args } = Guarded::parse_from(std::env::args_os().skip(1));
        let code = guard(&args).context("the command cannot be run")?;
        return Ok(ExitCode::from(code));
    }
    let Arguments { options } = Arguments::parse();
    // What the agent's server writes to its stderr is logged under `agent`.
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info,agent=debug"));
    let log = options.log.clone();
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(move || log.clone()).init();
    // One thread: an event is little work, and handing it from thread to thread costs more than that (docs/performance.md).
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    run_to_end(runtime.context("the runtime cannot be started")?, wrap(options))
}

async fn wrap(options: Options) -> anyhow::Result<ExitCode> {
    let (trigger, shutdown) = Shutdown::new();
    tokio::select! {
        ended = run(options, shutdown) => Ok(ExitCode::from(ended?.code())),
        failed = trigger.follow_signals() => {
            failed.context("signals cannot be followed")?;
            unreachable!("signals are followed until the process ends")
        }
    }
}
