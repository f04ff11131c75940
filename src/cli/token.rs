//! `gastown token`.

use clap::Args;
use relay::DataDirArgs;
use worker::operator_token;

use super::{Exit, print, progress::say, server::TOKEN_FILE};

/// Show where the operator's token is, or the token itself; make it if there is none
#[derive(Debug, Args)]
#[command(after_help = "\
The token opens everything in the town: keep it like a password.

Examples:
  gastown token
  curl -H \"Authorization: Bearer $(gastown token --show)\" localhost:4280/api/towns/main/agents")]
pub(super) struct Token {
    /// Print the token instead of its place
    #[arg(long)]
    show: bool,
    #[command(flatten)]
    data_dir: DataDirArgs,
}

impl Token {
    pub(super) fn run(&self) -> anyhow::Result<Exit> {
        let data_dir = self.data_dir.path()?;
        let (token, is_new) = operator_token(&data_dir)?;
        if is_new {
            say("the token was made just now\n");
        }
        let path = data_dir.join(TOKEN_FILE);
        let line = if self.show { token.expose().to_owned() } else { path.display().to_string() };
        print(&format!("{line}\n"))?;
        Ok(Exit::Done)
    }
}
