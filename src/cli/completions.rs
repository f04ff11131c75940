//! `gastown completions`.

use clap::{Args, Command};
use clap_complete::{Shell, generate};

use super::{Exit, print};

/// Print a completion script for a shell
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  gastown completions bash > ~/.local/share/bash-completion/completions/gastown
  gastown completions zsh  > ~/.zfunc/_gastown
  gastown completions fish > ~/.config/fish/completions/gastown.fish")]
pub(super) struct Completions {
    /// The shell
    shell: Shell,
}

impl Completions {
    pub(super) fn run(&self, command: &mut Command) -> anyhow::Result<Exit> {
        let mut script = Vec::new();
        generate(self.shell, command, "gastown", &mut script);
        print(&String::from_utf8_lossy(&script))?;
        Ok(Exit::Done)
    }
}
