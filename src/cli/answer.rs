//! `gastown permit` and `gastown answer`.

use std::time::Duration;

use clap::{Args, ValueEnum};
use protocol::{
    AgentId, Command, ErrorCode, PermissionReply,
    limits::PAGE_EVENTS_MAX,
    view::{Ask, PendingAsk, SessionView},
};

use super::{
    Exit,
    exit::Refusal,
    server::{Server, ServerArgs, agent_id, explain_relay, log_of},
};

/// Answer an agent that asks for permission
#[derive(Debug, Args)]
#[command(override_usage = "gastown permit [OPTIONS] <AGENT> [REQUEST] <once|always|reject>")]
#[command(after_help = "\
Examples:
  gastown permit toast once                    the request that waits longest
  gastown permit toast per_1f2e always         this one, and everything like it in this session
  gastown permit toast reject -m 'use rg'      no, and what to do instead")]
pub(super) struct Permit {
    /// The agent
    #[arg(value_parser = agent_id, value_name = "AGENT")]
    agent: AgentId,
    /// The answer; before it, the request, as `gastown watch` shows its id [default: the one that waits longest]
    #[arg(required = true, num_args = 1..=2, value_name = "ANSWER")]
    words: Vec<String>,
    /// With a rejection: what to do instead
    #[arg(short, long, value_name = "TEXT")]
    message: Option<String>,
    #[command(flatten)]
    server: ServerArgs,
}

/// Answer an agent's question
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  gastown answer toast blue                    the question that waits longest
  gastown answer toast --id que_77 yes blue    two questions in one request: one answer each
  gastown answer toast 'a,b'                   several choices for one question
  gastown answer toast --decline")]
pub(super) struct Answer {
    /// The agent
    #[arg(value_parser = agent_id, value_name = "AGENT")]
    agent: AgentId,
    /// One answer per question: a label or own words, several separated by commas
    #[arg(required_unless_present = "decline", value_name = "ANSWER")]
    answers: Vec<String>,
    /// The request (`gastown watch` shows its id) [default: the one that waits longest]
    #[arg(long, value_name = "REQUEST")]
    id: Option<String>,
    /// Do not answer
    #[arg(long, conflicts_with = "answers")]
    decline: bool,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Reply {
    Once,
    Always,
    Reject,
}

impl Permit {
    pub(super) async fn run(self) -> anyhow::Result<Exit> {
        let (id, reply) = request_and_reply(&self.words)?;
        let server = Server::find(&self.server)?;
        let id = match id {
            Some(id) => id,
            None => {
                oldest(&server, &self.agent, "permission", |ask| matches!(ask, Ask::Permission(_))).await?
            }
        };
        server.command(&self.agent, Command::Permission { id, reply, message: self.message }).await?;
        Ok(Exit::Done)
    }
}

impl Answer {
    pub(super) async fn run(self) -> anyhow::Result<Exit> {
        let server = Server::find(&self.server)?;
        let id = match self.id {
            Some(id) => id,
            None => oldest(&server, &self.agent, "question", |ask| matches!(ask, Ask::Question(_))).await?,
        };
        let command = if self.decline {
            Command::QuestionReject { id }
        } else {
            Command::Question(protocol::Answer {
                id,
                answers: self.answers.iter().map(|answer| choices(answer)).collect(),
            })
        };
        server.command(&self.agent, command).await?;
        Ok(Exit::Done)
    }
}

/// `once`, or `per_1 once`.
fn request_and_reply(words: &[String]) -> anyhow::Result<(Option<String>, PermissionReply)> {
    let (id, reply) = match words {
        [reply] => (None, reply),
        [id, reply] => (Some(id.clone()), reply),
        _ => return Err(Refusal::because(Exit::Usage, "give an answer, or a request and an answer")),
    };
    let reply = match Reply::from_str(reply, true) {
        Ok(Reply::Once) => PermissionReply::Once,
        Ok(Reply::Always) => PermissionReply::Always,
        Ok(Reply::Reject) => PermissionReply::Reject,
        Err(_) => {
            return Err(Refusal::because(
                Exit::Usage,
                format!("the answer is once, always or reject, not {reply:?}"),
            ));
        }
    };
    Ok((id, reply))
}

fn choices(answer: &str) -> Vec<String> {
    answer.split(',').map(str::trim).filter(|choice| !choice.is_empty()).map(str::to_owned).collect()
}

/// The request of a kind that waits longest.
async fn oldest(
    server: &Server,
    agent: &AgentId,
    what: &str,
    is_meant: fn(&Ask) -> bool,
) -> anyhow::Result<String> {
    let view = view_of(server, agent).await?;
    let found = view
        .pending()
        .into_iter()
        .find(|pending: &&PendingAsk| is_meant(&pending.ask))
        .map(|ask| ask.id.to_string());
    found.ok_or_else(|| Refusal::because(Exit::NotFound, format!("{agent} waits for no answer to a {what}")))
}

/// The fold of what is kept of an agent's log.
pub(super) async fn view_of(server: &Server, agent: &AgentId) -> anyhow::Result<SessionView> {
    let (relay, log) = (server.relay().await?, log_of(agent));
    let mut view = SessionView::default();
    let mut cursor = None;
    loop {
        let page = relay.page(&log, cursor.as_ref(), PAGE_EVENTS_MAX, Duration::ZERO).await;
        let page = match page {
            Ok(page) => page,
            Err(error) if error.code() == Some(ErrorCode::UnknownLog) => {
                return Err(server.why_offline(agent).await);
            }
            Err(error) => return Err(explain_relay(relay, error)),
        };
        if page.gap.is_some() && cursor.is_some() {
            // What was read before may rest on events that are lost.
            view = SessionView::default();
        }
        for event in &page.events {
            view.apply(event);
        }
        if !page.more {
            return Ok(view);
        }
        cursor = Some(page.cursor());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_request_may_be_left_out_and_the_answer_may_not() {
        let read = |words: &[&str]| {
            request_and_reply(&words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>())
        };
        assert_eq!(read(&["once"]).unwrap(), (None, PermissionReply::Once));
        assert_eq!(read(&["per_1", "Always"]).unwrap(), (Some("per_1".to_owned()), PermissionReply::Always));
        assert!(read(&["per_1"]).is_err());
    }

    #[test]
    fn several_choices_are_separated_by_commas() {
        assert_eq!(choices("a, b,"), ["a", "b"]);
    }
}
