//! The command line of the binary `gastown`: one module per subcommand.

mod abort;
mod agent;
mod agents;
mod answer;
mod backup;
mod completions;
mod config;
mod demo;
mod exit;
mod logs;
mod paint;
mod progress;
mod prompt;
mod record;
mod relay;
mod search;
mod server;
mod serving;
mod share;
mod signals;
mod token;
mod up;
mod verify;
mod watch;
mod wrapper;

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use anyhow::Context as _;
use clap::{ArgAction, CommandFactory as _, Parser, Subcommand};
pub use exit::Exit;
use tokio::runtime::{Builder, Runtime};
use tracing_subscriber::{EnvFilter, fmt::MakeWriter};

use self::{
    exit::exit_of,
    paint::{Paint, Tone},
};

/// Run fleets of coding agents; watch and steer them live
#[derive(Debug, Parser)]
#[command(name = "gastown", version, max_term_width = 100, disable_help_subcommand = true)]
#[command(after_help = format!("{EXAMPLES}\n\n{}", exit::HELP))]
struct Cli {
    /// Say more on stderr: -v what happens, -vv everything [env: GASTOWN_LOG]
    #[arg(short, long, action = ArgAction::Count, global = true, display_order = 900)]
    verbose: u8,
    #[command(subcommand)]
    subcommand: Sub,
}

const EXAMPLES: &str = "\
Examples:
  gastown demo                                   a whole town with scripted agents
  gastown up                                     the real thing, on http://127.0.0.1:4280
  gastown agent start toast --runtime opencode   an agent in this folder
  gastown prompt toast 'make the tests green'    give it work
  gastown watch toast                            see what it does, live";

#[derive(Debug, Subcommand)]
enum Sub {
    Demo(demo::Demo),
    Up(up::Up),
    Agent(agent::Agent),
    Agents(agents::Agents),
    Prompt(prompt::Prompt),
    Permit(answer::Permit),
    Answer(answer::Answer),
    Abort(abort::Abort),
    Logs(logs::Logs),
    Watch(watch::Watch),
    Record(record::Record),
    Share(share::Share),
    Config(config::Config),
    Search(search::SearchCommand),
    Backup(backup::Backup),
    Restore(backup::Restore),
    Verify(verify::Verify),
    Token(token::Token),
    Completions(completions::Completions),
    Worker(up::Worker),
    Relay(relay::Relay),
    Wrapper(Box<wrapper::Wrapper>),
    #[command(hide = true)]
    Guard(wrapper::Guard),
}

/// Runs the command line of this process; the code is one of [`Exit`], or the wrapper's own.
#[must_use]
pub fn run() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // What cannot be printed cannot be reported either.
            let _ = error.print();
            return if error.use_stderr() { Exit::Usage.into() } else { Exit::Done.into() };
        }
    };
    if let Sub::Wrapper(command) = &cli.subcommand {
        command.log(cli.verbose);
    } else {
        log_to_stderr(cli.verbose);
    }
    match execute(cli.subcommand) {
        Ok(code) => code,
        Err(error) => {
            let exit = exit_of(&error);
            if exit != Exit::Done {
                report(&error);
            }
            exit.into()
        }
    }
}

fn execute(subcommand: Sub) -> anyhow::Result<ExitCode> {
    let exit = match subcommand {
        Sub::Demo(command) => in_runtime(command.run()),
        Sub::Up(command) => in_runtime(command.run()),
        Sub::Worker(command) => in_runtime(command.run()),
        Sub::Relay(command) => run_in(::relay::runtime(), command.run()),
        Sub::Agent(command) => in_runtime(command.run()),
        Sub::Agents(command) => in_runtime(command.run()),
        Sub::Prompt(command) => in_runtime(command.run()),
        Sub::Permit(command) => in_runtime(command.run()),
        Sub::Answer(command) => in_runtime(command.run()),
        Sub::Abort(command) => in_runtime(command.run()),
        Sub::Logs(command) => in_runtime(command.run()),
        Sub::Watch(command) => in_runtime(command.run()),
        Sub::Record(command) => in_runtime(command.run()),
        Sub::Share(command) => in_runtime(command.run()),
        Sub::Config(command) => in_runtime(command.run()),
        Sub::Search(command) => in_runtime(command.run()),
        Sub::Backup(command) => in_runtime(command.run()),
        Sub::Restore(command) => in_runtime(command.run()),
        Sub::Verify(command) => in_runtime(command.run()),
        Sub::Token(command) => in_runtime(command.run()),
        Sub::Completions(command) => command.run(&mut Cli::command()),
        // Their exit codes are the wrapper's own.
        Sub::Wrapper(command) => return in_one_thread(command.run()),
        Sub::Guard(command) => return command.run(),
    };
    exit.map(Into::into)
}

fn in_runtime<T>(command: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    run_in(Builder::new_multi_thread().enable_all().build(), command)
}

/// An event is little work for a wrapper: to hand it from thread to thread costs more than that (docs/performance.md).
fn in_one_thread<T>(command: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    run_in(Builder::new_current_thread().enable_all().build(), command)
}

fn run_in<T>(
    runtime: io::Result<Runtime>,
    command: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<T> {
    ::wrapper::run_to_end(runtime.context("the threads that do the work cannot be started")?, command)
}

/// What the process says of itself goes to stderr; what a command was asked for goes to stdout.
fn log_to_stderr(verbose: u8) {
    let level = match verbose {
        0 => "warn",
        1 => "info",
        _ => "debug",
    };
    log_to(io::stderr, level);
}

/// Writes the log of this process there, from this level on unless GASTOWN_LOG says another one.
fn log_to(writer: impl for<'w> MakeWriter<'w> + Send + Sync + 'static, level: &str) {
    let filter = EnvFilter::try_from_env("GASTOWN_LOG").unwrap_or_else(|_| EnvFilter::new(level));
    let colour = Paint::of(&io::stderr()) == Paint::Colour;
    // A second subscriber can only come from a program that embeds this one, and then that one is wanted.
    let _ =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer).with_ansi(colour).try_init();
}

/// An error with its causes, each on a line of its own.
fn report(error: &anyhow::Error) {
    let mut stderr = io::stderr();
    let label = Paint::of(&stderr).paint(Tone::Bad, "error:");
    let mut text = format!("{label} {error}\n");
    for cause in error.chain().skip(1) {
        text.push_str(&format!("  because: {cause}\n"));
    }
    // What cannot be printed cannot be reported either.
    let _ = stderr.write_all(text.as_bytes());
}

/// Writes to stdout. A reader that has had enough (`| head`) is no error: the process is done.
fn print(text: &str) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
            Err(exit::Refusal::because(Exit::Done, "whoever read the output has gone"))
        }
        written => written.context("stdout cannot be written to"),
    }
}

#[cfg(test)]
mod tests;
