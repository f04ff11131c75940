//! How a worker is started on a command line: `gastown-worker`, `gastown worker` and `gastown up` take the same arguments.

use std::path::PathBuf;

use protocol::TownId;
use relay::{DataDirArgs, LimitArgs, NoHome};

use crate::{Mode, Running, WorkerConfig};

/// Where and how to serve, and where the relay is.
#[derive(Debug, clap::Args)]
#[non_exhaustive]
pub struct WorkerArgs {
    /// URL of the relay [default: one inside]
    #[arg(long, value_name = "URL", value_parser = relay_url)]
    pub relay: Option<String>,
    /// File of the signing key that the relay has too [default: signing-key in the data directory]
    #[arg(long, value_name = "FILE", requires = "relay")]
    pub signing_key: Option<PathBuf>,
    /// Where and how to serve.
    #[command(flatten)]
    pub serve: ServeArgs,
}

/// Where and how to serve.
#[derive(Debug, clap::Args)]
#[non_exhaustive]
pub struct ServeArgs {
    /// Address to listen on; port 0 lets the system choose
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:4280")]
    pub listen: String,
    /// The town
    #[arg(long, env = "GASTOWN_TOWN", hide_env_values = true, value_name = "ID", default_value = "main")]
    pub town: TownId,
    /// A host name by which it may be called, beside localhost; may be given several times
    #[arg(long, value_name = "HOST")]
    pub allow_host: Vec<String>,
    /// The URL by which browsers reach it, if that is not the address it listens on
    #[arg(long, value_name = "URL")]
    pub public_url: Option<String>,
    /// Let the agents run on when it ends; they come back to the next one
    #[arg(long)]
    pub leave_agents: bool,
    /// Print one line of JSON (url, login, town, token_file, pid) once it serves
    #[arg(long)]
    pub json: bool,
    /// Where everything is kept.
    #[command(flatten)]
    pub data_dir: DataDirArgs,
    /// How much is kept, and how many may read it.
    #[command(flatten)]
    pub limits: LimitArgs,
}

impl WorkerArgs {
    /// Where the relay is.
    #[must_use]
    pub fn mode(&self) -> Mode {
        match &self.relay {
            Some(relay) => Mode::Remote { relay: relay.clone(), signing_key: self.signing_key.clone() },
            None => Mode::Embedded,
        }
    }
}

impl ServeArgs {
    /// What these arguments say, with the relay there.
    ///
    /// # Errors
    /// When nobody said where to keep things, and no home directory is known.
    pub fn config(&self, mode: Mode) -> Result<WorkerConfig, NoHome> {
        let config = WorkerConfig::new(self.data_dir.path()?)
            .with_town(self.town.clone())
            .with_mode(mode)
            .with_stop_agents_on_exit(!self.leave_agents)
            .with_viewers(self.limits.viewers())
            .with_retention(self.limits.retention());
        let config = self.allow_host.iter().fold(config, |config, host| config.with_allowed_host(host));
        Ok(match &self.public_url {
            Some(url) => config.with_public_url(url),
            None => config,
        })
    }

    /// What to print once it serves: where it is, a login link, and the token if it was made just now.
    #[must_use]
    pub fn announcement(&self, running: &Running) -> String {
        if self.json { json_line(running) } else { greeting(running) }
    }
}

/// Where a worker is reached, with a fresh login link, as one line of JSON.
#[must_use]
pub fn json_line(running: &Running) -> String {
    let worker = running.worker();
    let announced = serde_json::json!({
        "url": worker.url(),
        "login": worker.one_use_login_url(),
        "town": worker.town_id(),
        "token_file": running.token_file(),
        "pid": std::process::id(),
    });
    format!("{announced}\n")
}

/// What people see at the start. The token is shown once, when it is made.
fn greeting(running: &Running) -> String {
    let worker = running.worker();
    let mut text = format!("town {} on {}\n", worker.town_id(), worker.url());
    text.push_str(&format!("  open    {}   (lets one browser in, once)\n", worker.one_use_login_url()));
    if let Some(token) = running.new_operator_token() {
        text.push_str(&format!("  token   {}   (made just now; not shown again)\n", token.expose()));
    }
    text.push_str(&format!("          is in {}\n", running.token_file().display()));
    text.push_str("  next    gastown agent start NAME --runtime opencode\n");
    text
}

fn relay_url(text: &str) -> Result<String, String> {
    if text.starts_with("http://") || text.starts_with("https://") {
        return Ok(text.to_owned());
    }
    Err("it is a URL such as http://127.0.0.1:4281".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[test]
    fn a_relay_is_named_by_its_url() {
        assert!(parse(&["--relay", "127.0.0.1:4281"]).is_err());
        let args = parse(&["--relay", "http://127.0.0.1:4281"]).unwrap();
        assert_eq!(args.mode(), Mode::remote("http://127.0.0.1:4281", None));
        assert_eq!(parse(&[]).unwrap().mode(), Mode::Embedded);
        assert!(parse(&["--signing-key", "k"]).is_err(), "a key is shared with a relay");
    }

    #[test]
    fn what_is_said_on_the_command_line_is_how_the_worker_behaves() {
        let line = [
            "--town",
            "east",
            "--data-dir",
            "/d",
            "--leave-agents",
            "--allow-host",
            "a",
            "--public-url",
            "https://a",
            "--log-events",
            "9",
            "--viewers",
            "8",
        ];
        let args = parse(&line).unwrap();
        let config = args.serve.config(args.mode()).unwrap();
        assert_eq!((config.town.as_str(), config.data_dir), ("east", PathBuf::from("/d")));
        assert!(!config.stop_agents_on_exit);
        assert_eq!((config.retention.agent.events, config.viewers.in_all), (9, 8));
        assert_eq!(
            (config.allowed_hosts, config.public_url),
            (vec!["a".to_owned()], Some("https://a".to_owned()))
        );
    }

    fn parse(line: &[&str]) -> Result<WorkerArgs, clap::Error> {
        #[derive(Debug, Parser)]
        struct Line {
            #[command(flatten)]
            args: WorkerArgs,
        }
        Line::try_parse_from([&["worker"], line].concat()).map(|line| line.args)
    }
}
