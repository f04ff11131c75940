//! `gastown wrapper` and `gastown guard`: what the worker starts for each agent.

use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;
use wrapper::{GuardArgs, Options, Shutdown, guard, run};

/// Run one agent and connect it to a relay (the worker does this for you)
#[derive(Debug, Args)]
#[command(after_help = "\
The token comes from GASTOWN_WRAPPER_TOKEN or --token-file. The first SIGTERM lets the turn that runs end, the second \
one does not.

Exit codes: 0 done, 20 the agent failed, 21 superseded by a newer wrapper, 22 refused by the relay, 23 gave up.")]
pub(super) struct Wrapper {
    #[command(flatten)]
    options: Options,
}

/// Run a command and leave no process of it behind
#[derive(Debug, Args)]
pub(super) struct Guard {
    #[command(flatten)]
    args: GuardArgs,
}

impl Wrapper {
    /// Its last lines are asked for when something is wrong, so that more is in them than in a command's: what the agent's server
    /// writes to its stderr, too, under `agent`.
    pub(super) fn log(&self, verbose: u8) {
        let log = self.options.log.clone();
        let level = if verbose > 1 { "debug" } else { "info,agent=debug" };
        super::log_to(move || log.clone(), level);
    }

    pub(super) async fn run(self) -> anyhow::Result<ExitCode> {
        let (trigger, shutdown) = Shutdown::new();
        tokio::select! {
            ended = run(self.options, shutdown) => Ok(ExitCode::from(ended?.code())),
            failed = trigger.follow_signals() => {
                failed.context("signals cannot be followed")?;
                unreachable!("signals are followed until the process ends")
            }
        }
    }
}

impl Guard {
    /// Without a runtime: nothing here may start threads, since it watches over processes.
    pub(super) fn run(&self) -> anyhow::Result<ExitCode> {
        let code = guard(&self.args).context("the command cannot be run")?;
        Ok(ExitCode::from(code))
    }
}
