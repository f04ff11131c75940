//! `gastown config`: what agents are run with, and where it is set.

use std::{collections::BTreeMap, io::Read as _};

use anyhow::Context as _;
use clap::{Args, Subcommand};
use protocol::{AgentId, config::ConfigKey};
use relay::client::Verb;
use serde::Deserialize;
use serde_json::Value;
use town::Role;

use super::{
    Exit,
    exit::Refusal,
    paint::clean,
    print,
    server::{Server, ServerArgs, agent_id},
};

/// Show and change what agents are run with: model, instructions, tools, environment, what is done after a turn
#[derive(Debug, Args)]
#[command(after_help = "\
What is set for an agent wins over what is set for its role, and that over what is set for the town.

Keys:
  model               the model that answers: provider/model
  variant             its variant, such as its effort
  system              more instructions
  tools.NAME          whether the agent has this tool: true or false
  autoCommit          commit what a turn changed: true or false
  upstreamBranch      the remote's branch that commits are pushed to
  condenseOnComplete  have the agent condense its session after a turn: true or false
  env.NAME            a variable of the agent server's environment; it is kept as a secret

A change counts from an agent's next turn on, one of env from its next start on.

Examples:
  gastown config set model anthropic/claude-sonnet-4-5
  gastown config set env.ANTHROPIC_API_KEY - < key.txt        a secret, from stdin
  gastown config set --role polecat autoCommit true
  gastown config set --agent toast tools.bash false
  gastown config show --agent toast                           what it is run with, and where that is set")]
pub(super) struct Config {
    #[command(subcommand)]
    subcommand: Sub,
}

#[derive(Debug, Subcommand)]
enum Sub {
    Show(Show),
    Set(Set),
    Unset(Unset),
}

/// Show what agents are run with, each value with where it is set; secrets are not shown
#[derive(Debug, Args)]
struct Show {
    #[command(flatten)]
    whose: Whose,
    /// Print it as JSON: `config` (what is set here), `resolved` (what comes of all layers), `from`
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: ServerArgs,
}

/// Set a key
#[derive(Debug, Args)]
struct Set {
    #[command(flatten)]
    whose: Whose,
    /// Which one, such as `autoCommit`, `tools.bash` or `env.API_KEY`
    #[arg(value_name = "KEY")]
    key: ConfigKey,
    /// Its value; `-` reads it from stdin, for secrets
    #[arg(value_name = "VALUE")]
    value: String,
    #[command(flatten)]
    server: ServerArgs,
}

/// Take a key away: what is set below it counts again
#[derive(Debug, Args)]
struct Unset {
    #[command(flatten)]
    whose: Whose,
    /// Which one, such as `autoCommit`, `tools.bash` or `env.API_KEY`
    #[arg(value_name = "KEY")]
    key: ConfigKey,
    #[command(flatten)]
    server: ServerArgs,
}

/// Whose config; without either that of the town.
#[derive(Debug, Args)]
struct Whose {
    /// This agent's [default: the town's]
    #[arg(long, value_parser = agent_id, value_name = "AGENT", conflicts_with = "role")]
    agent: Option<AgentId>,
    /// That of all agents of a role: mayor, polecat, refinery, witness or crew
    #[arg(long, value_name = "ROLE")]
    role: Option<Role>,
}

impl Config {
    pub(super) async fn run(self) -> anyhow::Result<Exit> {
        print(&self.text().await?)?;
        Ok(Exit::Done)
    }

    /// Does it; what is to be printed.
    async fn text(&self) -> anyhow::Result<String> {
        match &self.subcommand {
            Sub::Show(command) => command.text().await,
            Sub::Set(command) => command.text().await,
            Sub::Unset(command) => command.text().await,
        }
    }
}

impl Show {
    async fn text(&self) -> anyhow::Result<String> {
        let server = Server::find(&self.server)?;
        let shown = server.api(Verb::Get, &self.whose.route(), None).await?;
        if self.json {
            return Ok(format!("{shown:#}\n"));
        }
        Ok(table(&read(shown)?, &self.whose))
    }
}

impl Set {
    async fn text(&self) -> anyhow::Result<String> {
        let patch = self.key.set(&self.value()?).map_err(|error| usage(&error))?;
        let server = Server::find(&self.server)?;
        let shown = patched(&server, &self.whose, patch).await?;
        // What was read from stdin is not to be seen.
        let is = if self.key.is_env() { "set".to_owned() } else { shown.resolved_value(&self.key) };
        Ok(format!("{} is {} for {}{}\n", self.key, clean(&is), self.whose, counts(&self.key)))
    }

    fn value(&self) -> anyhow::Result<String> {
        if self.value != "-" {
            return Ok(self.value.clone());
        }
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).context("the value cannot be read from stdin")?;
        Ok(text.trim_end_matches(['\r', '\n']).to_owned())
    }
}

impl Unset {
    async fn text(&self) -> anyhow::Result<String> {
        let server = Server::find(&self.server)?;
        let before = read(server.api(Verb::Get, &self.whose.route(), None).await?)?;
        let Self { key, whose, .. } = self;
        if !before.sets(key) {
            return Ok(match before.from.get(&key.to_string()) {
                Some(layer) => format!("{key} is not set for {whose}: it is set for {}\n", layer_name(layer)),
                None => format!("{key} is not set for {whose}\n"),
            });
        }
        let shown = patched(&server, whose, key.unset()).await?;
        Ok(match shown.from.get(&key.to_string()) {
            Some(layer) => {
                let value = shown.resolved_value(key);
                format!(
                    "{key} is {} for {whose}, as for {}{}\n",
                    clean(&value),
                    layer_name(layer),
                    counts(key)
                )
            }
            None => format!("{key} is no longer set for {whose}{}\n", counts(key)),
        })
    }
}

impl Whose {
    fn route(&self) -> String {
        match (&self.agent, self.role) {
            (Some(agent), _) => format!("agents/{agent}/config"),
            (None, Some(role)) => format!("roles/{role}/config"),
            (None, None) => "config".to_owned(),
        }
    }
}

impl std::fmt::Display for Whose {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (&self.agent, self.role) {
            (Some(agent), _) => write!(f, "{agent}"),
            (None, Some(role)) => f.write_str(&layer_name(&format!("role/{role}"))),
            (None, None) => f.write_str(&layer_name("town")),
        }
    }
}

/// The worker's description of a layer.
#[derive(Debug, Deserialize)]
struct Shown {
    /// What is set in it.
    config: Value,
    /// What comes of it and those below it.
    resolved: Value,
    /// Where each key of that is set.
    from: BTreeMap<String, String>,
}

impl Shown {
    fn sets(&self, key: &ConfigKey) -> bool {
        value_of(&self.config, &key.to_string()).is_some()
    }

    fn resolved_value(&self, key: &ConfigKey) -> String {
        value_of(&self.resolved, &key.to_string()).unwrap_or_default()
    }
}

async fn patched(
    server: &Server,
    whose: &Whose,
    patch: serde_json::Map<String, Value>,
) -> anyhow::Result<Shown> {
    read(server.api(Verb::Patch, &whose.route(), Some(&Value::Object(patch))).await?)
}

fn read(shown: Value) -> anyhow::Result<Shown> {
    serde_json::from_value(shown).context("the server's config is not understood")
}

/// A value, as somebody would set it.
fn value_of(config: &Value, key: &str) -> Option<String> {
    let value = match key.split_once('.') {
        Some((group, name)) => config.get(group)?.get(name)?,
        None => config.get(key)?,
    };
    Some(match (key, value) {
        ("model", Value::Object(model)) => {
            let part = |name: &str| model.get(name).and_then(Value::as_str).unwrap_or_default();
            format!("{}/{}", part("providerID"), part("modelID"))
        }
        (_, Value::String(text)) => text.clone(),
        (_, value) => value.to_string(),
    })
}

/// A layer, in words: `town`, `role/polecat`, `agent/toast`.
fn layer_name(layer: &str) -> String {
    match layer.split_once('/') {
        Some(("role", role)) => format!("the role {role}"),
        Some((_, name)) => name.to_owned(),
        None => format!("the {layer}"),
    }
}

/// When a change counts.
fn counts(key: &ConfigKey) -> &'static str {
    if key.is_env() { "; it applies at the next start" } else { ", from the next turn on" }
}

fn usage(error: &protocol::config::ConfigError) -> anyhow::Error {
    Refusal::because(Exit::Usage, error.to_string())
}

/// One line for each key.
fn table(shown: &Shown, whose: &Whose) -> String {
    if shown.from.is_empty() {
        return format!("nothing is set for {whose}: `gastown config set --help` shows what can be\n");
    }
    let mut rows = vec![["KEY".to_owned(), "VALUE".to_owned(), "SET FOR".to_owned()]];
    for (key, layer) in &shown.from {
        let value = value_of(&shown.resolved, key).unwrap_or_default().replace(['\n', '\t'], " ");
        rows.push([key, &value, &layer_name(layer)].map(|cell| clean(cell).into_owned()));
    }
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let (keys, values) = (width(0), width(1));
    let mut text = String::new();
    for [key, value, layer] in &rows {
        text.push_str(&format!("{key:keys$}  {value:values$}  {layer}\n"));
    }
    text
}

#[cfg(test)]
mod tests;
