//! `gastown token`: the operator's token, and those of users.

use std::{str::FromStr, time::Duration};

use anyhow::Context as _;
use clap::{Args, Subcommand};
use protocol::Timestamp;
use relay::{DataDirArgs, client::Verb};
use serde::Deserialize;
use serde_json::{Value, json};
use town::Scope;
use worker::operator_token;

use super::{
    Exit,
    exit::Refusal,
    paint::clean,
    print,
    progress::say,
    server::{Server, ServerArgs, TOKEN_FILE},
    share::duration,
};

/// Show where the operator's token is, or the token itself; make, list and revoke tokens of users
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
#[command(after_help = "\
The operator's token opens everything in the town: keep it like a password. Whoever else is to get
in is given a token of their own, for as much as they need:
  read    see every agent of the town
  steer   and prompt them, answer them, end their turns
  admin   and do whatever the operator can

Examples:
  gastown token                                    where the operator's token is
  gastown token create ann --scope read            to sign in with, or as GASTOWN_TOKEN
  gastown token create ci --scope steer --expires 30d
  gastown token list
  gastown token revoke ann                         it, and all that it opened, ends at once
  curl -H \"Authorization: Bearer $(gastown token --show)\" localhost:4280/api/towns/main/agents")]
pub(super) struct Token {
    #[command(subcommand)]
    subcommand: Option<Sub>,
    /// Print the token instead of its place
    #[arg(long)]
    show: bool,
    #[command(flatten)]
    data_dir: DataDirArgs,
}

#[derive(Debug, Subcommand)]
enum Sub {
    Create(Create),
    List(List),
    Revoke(Revoke),
}

/// Make a token for somebody or something else; it is printed once
#[derive(Debug, Args)]
struct Create {
    /// Whose it is, or what it is for: letters, digits, `.`, `_`, `-` and `@`
    #[arg(value_name = "NAME")]
    name: String,
    /// What it is good for: read, steer or admin
    #[arg(long, value_name = "SCOPE")]
    scope: Scope,
    /// How long it is good for: a number with s, m, h or d, or `never` if it has no end
    #[arg(long, value_name = "TIME", default_value = "90d")]
    expires: Life,
    /// Print the token with all that is known of it as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: ServerArgs,
}

/// List the tokens that are good, without their secrets
#[derive(Debug, Args)]
struct List {
    /// Print them as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: ServerArgs,
}

/// Take a token back: the browsers, tickets and streams that it opened end at once
#[derive(Debug, Args)]
struct Revoke {
    /// Its name
    #[arg(value_name = "NAME")]
    name: String,
    #[command(flatten)]
    server: ServerArgs,
}

impl Token {
    pub(super) async fn run(self) -> anyhow::Result<Exit> {
        match self.subcommand {
            Some(Sub::Create(create)) => create.run().await,
            Some(Sub::List(list)) => list.run().await,
            Some(Sub::Revoke(revoke)) => revoke.run().await,
            None => {
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
    }
}

impl Create {
    async fn run(self) -> anyhow::Result<Exit> {
        let Life(life) = self.expires;
        let seconds = life.map(|life| life.as_secs());
        let body = json!({ "name": self.name, "scope": self.scope, "expires_in_s": seconds });
        let made = Server::find(&self.server)?.api(Verb::Post, "tokens", Some(&body)).await?;
        if self.json {
            print(&format!("{made}\n"))?;
            return Ok(Exit::Done);
        }
        let told = "this is the only time it is shown; `gastown token revoke` takes it back\n";
        print(&format!("{}\n", made["token"].as_str().unwrap_or_default()))?;
        say(told);
        Ok(Exit::Done)
    }
}

impl List {
    async fn run(self) -> anyhow::Result<Exit> {
        let tokens = Server::find(&self.server)?.api(Verb::Get, "tokens", None).await?;
        print(&if self.json { format!("{tokens:#}\n") } else { table(&read(tokens)?) })?;
        Ok(Exit::Done)
    }
}

impl Revoke {
    async fn run(self) -> anyhow::Result<Exit> {
        let server = Server::find(&self.server)?;
        let tokens = read(server.api(Verb::Get, "tokens", None).await?)?;
        let token = named(&tokens, &self.name)?;
        server.api(Verb::Delete, &format!("tokens/{}", token.name), None).await?;
        say(&format!("{} is revoked, and what it opened has ended\n", token.name));
        Ok(Exit::Done)
    }
}

/// How long a token is good for; nothing is for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Life(Option<Duration>);

impl FromStr for Life {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "never" { Ok(Self(None)) } else { duration(text).map(|life| Self(Some(life))) }
    }
}

/// What of the worker's description goes into the list.
#[derive(Debug, Deserialize)]
struct Known {
    id: String,
    name: String,
    scope: String,
    issued: Timestamp,
    expires: Option<Timestamp>,
}

fn read(tokens: Value) -> anyhow::Result<Vec<Known>> {
    serde_json::from_value(tokens).context("the server's list is not understood")
}

fn named<'t>(tokens: &'t [Known], name: &str) -> anyhow::Result<&'t Known> {
    tokens.iter().find(|token| token.name.eq_ignore_ascii_case(name)).ok_or_else(|| {
        let words = format!("no token is called {name:?}: `gastown token list` shows those that are good");
        Refusal::because(Exit::NotFound, words)
    })
}

/// Columns as wide as they must be. The id is what a token begins with: one that was found somewhere is known by it.
fn table(tokens: &[Known]) -> String {
    if tokens.is_empty() {
        return "no tokens yet: gastown token create NAME --scope read\n".to_owned();
    }
    let mut rows = vec![["NAME", "SCOPE", "BEGINS WITH", "CREATED", "EXPIRES"].map(str::to_owned)];
    for Known { id, name, scope, issued, expires } in tokens {
        let expires = expires.map_or_else(|| "never".to_owned(), |expires| expires.to_string());
        let row = [name.clone(), scope.clone(), format!("gtu_{id}"), issued.to_string(), expires];
        rows.push(row.map(|cell| clean(&cell).into_owned()));
    }
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let [name, scope, id, issued] = [0, 1, 2, 3].map(width);
    rows.iter().map(|[n, s, i, c, e]| format!("{n:name$}  {s:scope$}  {i:id$}  {c:issued$}  {e}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::{super::exit::exit_of, *};

    #[test]
    fn a_token_lasts_for_a_time_or_for_ever() {
        assert_eq!("30d".parse(), Ok(Life(Some(Duration::from_secs(30 * 86_400)))));
        assert_eq!("never".parse(), Ok(Life(None)));
        assert!("soon".parse::<Life>().is_err());
    }

    #[test]
    fn the_list_lines_up_and_says_what_each_token_begins_with() {
        let day = |day: i64| Timestamp::from_unix_ms(day * 86_400_000);
        let token = |name: &str, scope: &str, expires| Known {
            id: "0f3a9c21b4d5e6f7".into(),
            name: name.into(),
            scope: scope.into(),
            issued: day(1),
            expires,
        };
        let lines = [
            "NAME        SCOPE  BEGINS WITH           CREATED                   EXPIRES",
            "ann         read   gtu_0f3a9c21b4d5e6f7  1970-01-02T00:00:00.000Z  1970-01-31T00:00:00.000Z",
            "ci@machine  admin  gtu_0f3a9c21b4d5e6f7  1970-01-02T00:00:00.000Z  never",
        ];
        let tokens = [token("ann", "read", Some(day(30))), token("ci@machine", "admin", None)];
        assert_eq!(table(&tokens), lines.join("\n") + "\n");
        assert!(table(&[]).contains("gastown token create"));
        assert_eq!(named(&tokens, "Ann").unwrap().name, "ann");
        assert_eq!(exit_of(&named(&tokens, "ben").unwrap_err()), Exit::NotFound);
    }
}
