//! `gastown prompt`.

use std::io::Read as _;

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use protocol::{AgentId, Command, Delivery};

use super::{
    Exit,
    exit::Refusal,
    server::{Server, ServerArgs, agent_id},
};

/// Give an agent work, or tell it something
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  gastown prompt toast 'make the tests green'
  git diff | gastown prompt toast -                          the prompt comes from stdin
  gastown prompt toast --delivery interrupt 'stop: wrong branch'")]
pub(super) struct Prompt {
    /// The agent
    #[arg(value_parser = agent_id, value_name = "AGENT")]
    agent: AgentId,
    /// What to tell it; `-` reads it from stdin
    #[arg(required = true, num_args = 1.., value_name = "TEXT")]
    text: Vec<String>,
    /// When it is told, if it is at work
    #[arg(long, value_enum, default_value_t = When::Queue)]
    delivery: When,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum When {
    /// After this turn
    Queue,
    /// At the next step of this turn
    Boundary,
    /// At once: the turn is broken off
    Interrupt,
}

impl Prompt {
    pub(super) async fn run(self) -> anyhow::Result<Exit> {
        let text = read_text(&self.text)?;
        let delivery = match self.delivery {
            When::Queue => Delivery::Queue,
            When::Boundary => Delivery::Boundary,
            When::Interrupt => Delivery::Interrupt,
        };
        let prompt = protocol::Prompt { text: Some(text), delivery, ..protocol::Prompt::default() };
        Server::find(&self.server)?.command(&self.agent, Command::Prompt(prompt)).await?;
        Ok(Exit::Done)
    }
}

/// The words of the command line, or stdin for a single `-`.
fn read_text(words: &[String]) -> anyhow::Result<String> {
    let text = if words == ["-"] {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).context("the prompt cannot be read from stdin")?;
        text
    } else {
        words.join(" ")
    };
    if text.trim().is_empty() {
        return Err(Refusal::because(Exit::Usage, "the prompt is empty"));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::{super::exit::exit_of, *};

    #[test]
    fn words_are_joined_and_an_empty_prompt_is_refused() {
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        assert_eq!(read_text(&words(&["make", "it", "so"])).unwrap(), "make it so");
        assert_eq!(exit_of(&read_text(&words(&[" "])).unwrap_err()), Exit::Usage);
    }
}
