//! `gastown share`: links that show an agent to whoever has them.

use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use protocol::{AgentId, Timestamp};
use relay::client::Verb;
use serde::Deserialize;
use serde_json::json;

use super::{
    Exit,
    exit::Refusal,
    paint::clean,
    print,
    progress::say,
    server::{Server, ServerArgs, agent_id},
};

/// Show an agent to somebody: make a read-only link that expires, list links, take them back
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
#[command(after_help = "\
Whoever has the link sees this agent's log, live, and nothing else; they can neither answer nor prompt. It is printed \
once: it holds its secret.

Examples:
  gastown share toast                              good for a day
  gastown share toast --expires 2h --label review  what it is for, in the list
  gastown share list toast
  gastown share revoke toast 6f1c…                 streams that it opened end at once")]
pub(super) struct Share {
    #[command(subcommand)]
    subcommand: Option<Sub>,
    /// The agent
    #[arg(value_parser = agent_id, value_name = "AGENT", required = true)]
    agent: Option<AgentId>,
    /// How long it is good for: seconds, or a number with s, m, h or d
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = duration)]
    expires: Duration,
    /// What it is for
    #[arg(long, value_name = "TEXT")]
    label: Option<String>,
    /// Print the link with all that is known of it as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Debug, Subcommand)]
enum Sub {
    List(List),
    Revoke(Revoke),
}

/// List the links of an agent that are good
#[derive(Debug, Args)]
struct List {
    /// The agent
    #[arg(value_parser = agent_id, value_name = "AGENT")]
    agent: AgentId,
    /// Print them as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: ServerArgs,
}

/// Take a link back: it is good for nothing from then on
#[derive(Debug, Args)]
struct Revoke {
    /// The agent
    #[arg(value_parser = agent_id, value_name = "AGENT")]
    agent: AgentId,
    /// The link, as `gastown share list` shows its id; its beginning is enough
    #[arg(value_name = "LINK")]
    link: String,
    #[command(flatten)]
    server: ServerArgs,
}

impl Share {
    pub(super) async fn run(self) -> anyhow::Result<Exit> {
        match self.subcommand {
            Some(Sub::List(list)) => list.run().await,
            Some(Sub::Revoke(revoke)) => revoke.run().await,
            None => {
                let agent = self.agent.context("clap asks for the agent")?;
                let body = json!({ "expires_in_s": self.expires.as_secs(), "label": self.label });
                let server = Server::find(&self.server)?;
                let made = server.api(Verb::Post, &format!("agents/{agent}/shares"), Some(&body)).await?;
                print(&if self.json {
                    format!("{made}\n")
                } else {
                    format!("{}\n", made["url"].as_str().unwrap_or_default())
                })?;
                Ok(Exit::Done)
            }
        }
    }
}

impl List {
    async fn run(self) -> anyhow::Result<Exit> {
        let server = Server::find(&self.server)?;
        let links = server.api(Verb::Get, &format!("agents/{}/shares", self.agent), None).await?;
        if self.json {
            print(&format!("{links:#}\n"))?;
            return Ok(Exit::Done);
        }
        let links: Vec<Link> =
            serde_json::from_value(links).context("the server's list is not understood")?;
        let mut text = String::new();
        for Link { id, expires, label } in links {
            let label = clean(label.as_deref().unwrap_or_default());
            text.push_str(format!("{id}  until {expires}  {label}").trim_end());
            text.push('\n');
        }
        print(&text)?;
        Ok(Exit::Done)
    }
}

/// What of the worker's description goes into the list.
#[derive(Debug, Deserialize)]
struct Link {
    id: String,
    expires: Timestamp,
    label: Option<String>,
}

impl Revoke {
    async fn run(self) -> anyhow::Result<Exit> {
        let server = Server::find(&self.server)?;
        let route = format!("agents/{}/shares", self.agent);
        let links = server.api(Verb::Get, &route, None).await?;
        let links: Vec<Link> =
            serde_json::from_value(links).context("the server's list is not understood")?;
        let id = one(&links, &self.link)?;
        server.api(Verb::Delete, &format!("{route}/{id}"), None).await?;
        say(&format!("the link {id} is revoked, and what it opened has ended\n"));
        Ok(Exit::Done)
    }
}

/// The one link whose id begins so.
fn one<'a>(links: &'a [Link], beginning: &str) -> anyhow::Result<&'a str> {
    let mut found = links.iter().filter(|link| link.id.starts_with(beginning));
    match (found.next(), found.next()) {
        (Some(link), None) => Ok(&link.id),
        (None, _) => Err(Refusal::because(
            Exit::NotFound,
            format!(
                "no link begins with {beginning:?}: `gastown share list AGENT` shows those that are good"
            ),
        )),
        (Some(_), Some(_)) => Err(Refusal::because(
            Exit::Usage,
            format!("several links begin with {beginning:?}: give more of it"),
        )),
    }
}

/// `90`, `90s`, `15m`, `2h`, `7d`.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|unit: char| unit.is_ascii_alphabetic());
    let seconds = match &text[digits.len()..] {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => 0,
    };
    let count = digits.parse::<u64>().ok().filter(|_| seconds > 0);
    let whole = count.and_then(|count| count.checked_mul(seconds)).filter(|seconds| *seconds > 0);
    whole.map(Duration::from_secs).ok_or_else(|| "it is a number with s, m, h or d, such as 24h".to_owned())
}

#[cfg(test)]
mod tests {
    use super::{super::exit::exit_of, *};

    #[test]
    fn a_time_is_a_number_with_a_unit() {
        for (text, seconds) in [("90", 90), ("90s", 90), ("15m", 900), ("2h", 7_200), ("7d", 604_800)] {
            assert_eq!(duration(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for text in
            ["", "h", "0", "-1h", "1w", "1 h", "1.5h", "99999999999999999999d", "9999999999999999999d"]
        {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_link_is_known_by_the_beginning_of_its_id_if_that_is_one_links_alone() {
        let link = |id: &str| Link { id: id.to_owned(), expires: Timestamp::default(), label: None };
        let links = [link("abc1"), link("abd2")];
        assert_eq!(one(&links, "abc").unwrap(), "abc1");
        assert_eq!(exit_of(&one(&links, "ab").unwrap_err()), Exit::Usage);
        assert_eq!(exit_of(&one(&links, "x").unwrap_err()), Exit::NotFound);
    }
}
