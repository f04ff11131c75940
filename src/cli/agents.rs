//! `gastown agents`.

use std::io;

use clap::Args;
use futures_util::{StreamExt as _, stream};
use protocol::{
    AgentId,
    agent::State,
    view::{Lifecycle, SessionView},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    Exit,
    answer::view_of,
    paint::{Paint, Tone, clean},
    print, progress,
    server::{Server, ServerArgs},
};

/// List the agents of the town
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  gastown agents
  gastown agents --json | jq -r '.[] | select(.activity.pending > 0) | .id'   who needs you")]
pub(super) struct Agents {
    /// Print the agents as JSON, each with its `activity` (state, detail, pending, tokens, cost)
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: ServerArgs,
}

/// Logs that are read at the same time.
const AT_ONCE: usize = 8;

impl Agents {
    pub(super) async fn run(self) -> anyhow::Result<Exit> {
        let server = Server::find(&self.server)?;
        let agents = server.agents().await?;
        let count = agents.len();
        let read = stream::iter(agents)
            .map(|agent| with_activity(&server, agent))
            .buffered(AT_ONCE)
            .collect::<Vec<_>>();
        let agents = progress::shown(&format!("reading {count} logs"), read).await;
        if self.json {
            let lines: Vec<Value> =
                agents.into_iter().map(|(agent, activity)| merged(agent, activity.as_ref())).collect();
            print(&format!("{}\n", serde_json::to_string_pretty(&lines)?))?;
        } else {
            print(&table(Paint::of(&io::stdout()), &agents))?;
        }
        Ok(Exit::Done)
    }
}

/// What an agent does, by its own log.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct Activity {
    /// `starting`, `idle`, `busy`, `waiting`, `retrying`, `stopping`; `ended` or `failed` without a server.
    state: String,
    /// What it does just now.
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
    /// Asks that wait for a person.
    pending: usize,
    /// Tokens it took.
    tokens: u64,
    /// US dollars it cost.
    cost: f64,
}

/// What of the worker's description goes into the table.
#[derive(Debug, Deserialize)]
struct Described {
    name: String,
    role: String,
    runtime: Kind,
    phase: Phase,
}

#[derive(Debug, Deserialize)]
struct Kind {
    kind: String,
}

#[derive(Debug, Deserialize)]
struct Phase {
    state: String,
    #[serde(default)]
    reason: Option<String>,
}

/// An agent that was never started has no log, and one whose log cannot be read is still listed.
async fn with_activity(server: &Server, agent: Value) -> (Value, Option<Activity>) {
    let id = agent.get("id").and_then(Value::as_str).and_then(|id| id.parse::<AgentId>().ok());
    let activity = match id {
        Some(id) => view_of(server, &id).await.ok().map(|view| activity(&view)),
        None => None,
    };
    (agent, activity)
}

fn activity(view: &SessionView) -> Activity {
    let agent = view.agent();
    let state = match &agent.lifecycle {
        Lifecycle::Exited(_) => "ended",
        Lifecycle::Failed(_) => "failed",
        Lifecycle::Running(state) => word(*state),
    };
    let usage = view.usage();
    Activity {
        state: state.to_owned(),
        detail: agent.detail.clone(),
        pending: view.pending().len(),
        tokens: usage.tokens.total(),
        cost: usage.cost,
    }
}

fn merged(mut agent: Value, activity: Option<&Activity>) -> Value {
    if let (Some(fields), Some(activity)) = (agent.as_object_mut(), activity) {
        fields.insert("activity".to_owned(), serde_json::json!(activity));
    }
    agent
}

/// Columns as wide as they must be; those who need you first, then in the order of the town.
fn table(paint: Paint, agents: &[(Value, Option<Activity>)]) -> String {
    if agents.is_empty() {
        return "no agents yet: gastown agent start NAME --runtime opencode\n".to_owned();
    }
    let mut rows: Vec<(bool, Tone, [String; 6])> =
        agents.iter().map(|(agent, activity)| row(agent, activity.as_ref())).collect();
    rows.sort_by_key(|(needs_you, _, _)| !needs_you);
    let head = ["NAME", "ROLE", "RUNTIME", "STATE", "COST", "JUST NOW"].map(str::to_owned);
    let mut widths = head.each_ref().map(|cell| cell.chars().count());
    for (_, _, cells) in &rows {
        for (width, cell) in widths.iter_mut().zip(cells) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = line(paint, Tone::Dim, &head, &widths);
    for (_, tone, cells) in &rows {
        text.push_str(&line(paint, *tone, cells, &widths));
    }
    text
}

fn row(agent: &Value, activity: Option<&Activity>) -> (bool, Tone, [String; 6]) {
    let Ok(described) = Described::deserialize(agent) else {
        let id = agent.get("id").and_then(Value::as_str).unwrap_or("?").to_owned();
        return (
            false,
            Tone::Dim,
            [id, String::new(), String::new(), "unknown".into(), String::new(), String::new()],
        );
    };
    let pending = activity.map_or(0, |activity| activity.pending);
    let running = described.phase.state == "running";
    let state = match activity {
        Some(activity) if running => activity.state.clone(),
        Some(_) | None => described.phase.state.clone(),
    };
    let tone = match state.as_str() {
        "failed" => Tone::Bad,
        "waiting" | "retrying" | "backing_off" => Tone::Warn,
        "busy" => Tone::Good,
        _ => Tone::Plain,
    };
    let just_now = match (pending, activity.and_then(|activity| activity.detail.clone())) {
        (0, detail) if running => detail.unwrap_or_default(),
        (0, _) => described.phase.reason.unwrap_or_default(),
        (1, _) => "needs you".to_owned(),
        (n, _) => format!("needs you ({n} asks)"),
    };
    let cost = activity.map(|activity| format!("${:.2}", activity.cost)).unwrap_or_default();
    let cells = [described.name, described.role, described.runtime.kind, state, cost, just_now];
    (pending > 0, tone, cells.map(|cell| clean(&cell).replace(['\n', '\t'], " ")))
}

fn line(paint: Paint, tone: Tone, cells: &[String; 6], widths: &[usize; 6]) -> String {
    let mut text = String::new();
    for (cell, width) in cells.iter().zip(widths) {
        let padding = width.saturating_sub(cell.chars().count()) + 2;
        text.push_str(cell);
        text.extend(std::iter::repeat_n(' ', padding));
    }
    format!("{}\n", paint.paint(tone, text.trim_end()))
}

fn word(state: State) -> &'static str {
    match state {
        State::Starting => "starting",
        State::Idle => "idle",
        State::Busy => "busy",
        State::Waiting => "waiting",
        State::Retrying => "retrying",
        State::Stopping => "stopping",
        State::Unknown => "running",
        _ => "running",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn those_who_need_you_come_first_and_columns_line_up() {
        let agents = [
            (described("Toast", "running"), Some(doing("busy", 0, Some("edits main.rs")))),
            (described("Nux", "stopped"), None),
            (described("Furiosa", "running"), Some(doing("waiting", 2, None))),
        ];
        let lines = [
            "NAME     ROLE     RUNTIME   STATE    COST   JUST NOW",
            "Furiosa  polecat  scripted  waiting  $0.25  needs you (2 asks)",
            "Toast    polecat  scripted  busy     $0.25  edits main.rs",
            "Nux      polecat  scripted  stopped",
        ];
        assert_eq!(table(Paint::Plain, &agents), lines.join("\n") + "\n");
    }

    #[test]
    fn an_empty_town_says_how_to_start_an_agent() {
        assert!(table(Paint::Plain, &[]).contains("gastown agent start"));
    }

    #[test]
    fn json_keeps_what_the_worker_said_and_adds_the_activity() {
        let merged = merged(json!({ "id": "toast", "later": 1 }), Some(&doing("idle", 0, None)));
        assert_eq!(merged["later"], 1);
        assert_eq!(merged["activity"]["state"], "idle");
    }

    fn described(name: &str, state: &str) -> Value {
        json!({ "id": name.to_lowercase(), "name": name, "role": "polecat", "runtime": { "kind": "scripted" }, "phase": { "state": state } })
    }

    fn doing(state: &str, pending: usize, detail: Option<&str>) -> Activity {
        Activity {
            state: state.to_owned(),
            detail: detail.map(str::to_owned),
            pending,
            tokens: 10,
            cost: 0.25,
        }
    }
}
