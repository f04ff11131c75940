//! `gastown token`.

use anyhow::Context as _;
use clap::Args;

use super::{
    Exit,
    exit::Refusal,
    print,
    server::{DataDirArgs, TOKEN_FILE},
};

/// Show where the operator's token is, or the token itself
#[derive(Debug, Args)]
#[command(after_help = "\
The token opens everything in the town: keep it like a password. `gastown up` makes it at its first start.

Examples:
  gastown token                                              where it is
  curl -H \"Authorization: Bearer $(gastown token --show)\" http://127.0.0.1:4280/api/towns/main/agents")]
pub(super) struct Token {
    /// Print the token instead of its place
    #[arg(long)]
    show: bool,
    #[command(flatten)]
    data_dir: DataDirArgs,
}

impl Token {
    pub(super) fn run(&self) -> anyhow::Result<Exit> {
        let path = self.data_dir.path()?.join(TOKEN_FILE);
        let token = match std::fs::read_to_string(&path) {
            Ok(token) => token,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let message = format!(
                    "there is no token in {}: `gastown up` makes it at its first start",
                    path.display()
                );
                return Err(Refusal::because(Exit::NotFound, message));
            }
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
        };
        let line = if self.show { token.trim().to_owned() } else { path.display().to_string() };
        print(&format!("{line}\n"))?;
        Ok(Exit::Done)
    }
}
