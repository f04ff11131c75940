//! `gastown abort`.

use clap::Args;
use protocol::{AgentId, Command};

use super::{
    Exit,
    server::{Server, ServerArgs, agent_id},
};

/// Break off the turn that an agent works on
#[derive(Debug, Args)]
#[command(after_help = "The agent stays: it waits for the next prompt. To end it: gastown agent stop NAME")]
pub(super) struct Abort {
    /// The agent
    #[arg(value_parser = agent_id, value_name = "AGENT")]
    agent: AgentId,
    #[command(flatten)]
    server: ServerArgs,
}

impl Abort {
    pub(super) async fn run(self) -> anyhow::Result<Exit> {
        Server::find(&self.server)?.command(&self.agent, Command::Abort).await?;
        Ok(Exit::Done)
    }
}
