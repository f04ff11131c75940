//! `gastown logs`.

use clap::Args;
use protocol::{AgentId, Command};

use super::{
    Exit,
    paint::clean,
    print,
    server::{Server, ServerArgs, agent_id},
};

/// Show the last lines of an agent's wrapper, with what the agent's server wrote to its stderr
#[derive(Debug, Args)]
#[command(after_help = "\
The wrapper keeps its last 200 lines and shows them over its link, whatever machine it is on. Lines of the agent's server have \
the word agent before them. Secrets are not in them.")]
pub(super) struct Logs {
    /// The agent
    #[arg(value_parser = agent_id, value_name = "AGENT")]
    agent: AgentId,
    /// So many lines at most
    #[arg(short = 'n', long, value_name = "N")]
    lines: Option<u32>,
    #[command(flatten)]
    server: ServerArgs,
}

impl Logs {
    pub(super) async fn run(self) -> anyhow::Result<Exit> {
        let asked = Command::Logs { lines: self.lines };
        let answer = Server::find(&self.server)?.command(&self.agent, asked).await?;
        let lines = answer.data.as_ref().and_then(|data| data["lines"].as_array()).into_iter().flatten();
        let text: String =
            lines.filter_map(|line| line.as_str()).map(|line| format!("{}\n", clean(line))).collect();
        print(&text)?;
        Ok(Exit::Done)
    }
}
