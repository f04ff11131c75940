//! What a page's forms do: they work without script (303 back to the page), and the page module sends the same forms and
//! shows what was refused beside them.

use std::collections::BTreeMap;

use axum::{
    Form,
    extract::{Path, State, rejection::FormRejection},
    response::{IntoResponse, Redirect, Response},
};
use http::{HeaderMap, StatusCode, header};
use protocol::{AgentId, Answer, Command, Delivery, ErrorCode, PermissionReply, Prompt};

use super::{Dashboard, Refused, page};

/// The fields of a form, as they were sent: a name may be there more than once.
type Fields = Form<Vec<(String, String)>>;

/// Questions of one ask that are answered.
const QUESTIONS: usize = 24;

/// `POST /agents/{agent}/{what}`.
pub(super) async fn steer(
    State(dashboard): State<Dashboard>,
    Path((agent, what)): Path<(String, String)>,
    headers: HeaderMap,
    form: Result<Fields, FormRejection>,
) -> Response {
    let outcome = carry_out(&dashboard, &agent, &what, &headers, form).await;
    let wants_json =
        headers.get(header::ACCEPT).is_some_and(|accept| accept.as_bytes().starts_with(b"application/json"));
    match (outcome, wants_json) {
        (Ok(()), true) => axum::Json(serde_json::json!({ "success": true })).into_response(),
        (Ok(()), false) => Redirect::to(&format!("/agents/{agent}#deck")).into_response(),
        (Err(refused), true) => {
            let body = serde_json::json!({ "success": false, "error": refused.words, "code": refused.code });
            (refused.status(), axum::Json(body)).into_response()
        }
        (Err(refused), false) => {
            let back = agent
                .parse::<AgentId>()
                .map_or_else(|_| "/agents".to_owned(), |agent| format!("/agents/{agent}"));
            let town = dashboard.worker.town_id().as_str();
            let page = page::message::refusal(town, None, "That did not work", &refused.words, Some(&back));
            (refused.status(), [(header::CONTENT_TYPE, "text/html; charset=utf-8")], page.into_string())
                .into_response()
        }
    }
}

async fn carry_out(
    dashboard: &Dashboard,
    agent: &str,
    what: &str,
    headers: &HeaderMap,
    form: Result<Fields, FormRejection>,
) -> Result<(), Refused> {
    // Who it is comes first: what nobody may do is not read.
    let (agent, grant) = dashboard.admit_steering(agent, headers, what)?;
    let Form(fields) = form.map_err(|error| Refused::new(ErrorCode::BadRequest, error.body_text()))?;
    if let "start" | "stop" = what {
        let command = if what == "start" {
            town::Command::Start { agent }
        } else {
            town::Command::Stop { agent, drain: false }
        };
        let request = town::Request::by(grant.subject, command);
        return dashboard
            .worker
            .ask(request)
            .await
            .map(|_| ())
            .map_err(|error| Refused::new(error.code(), error.to_string()));
    }
    let command = command(what, &fields)?;
    let result = dashboard
        .worker
        .send(&agent, command)
        .await
        .map_err(|error| Refused::new(error.code().unwrap_or(ErrorCode::Internal), error.to_string()))?;
    match result.error {
        Some(error) if !result.ok => Err(Refused::new(error.code, error.message)),
        Some(_) | None => Ok(()),
    }
}

/// The command that a form asks for.
fn command(what: &str, fields: &[(String, String)]) -> Result<Command, Refused> {
    let field = |name: &str| {
        fields
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.trim())
            .filter(|value| !value.is_empty())
    };
    let bad = |words: &str| Refused::new(ErrorCode::BadRequest, words.to_owned());
    match what {
        "prompt" => {
            let text = field("text").ok_or_else(|| bad("Write something first."))?.to_owned();
            let delivery = match field("delivery") {
                Some("boundary") => Delivery::Boundary,
                Some("interrupt") => Delivery::Interrupt,
                Some(_) | None => Delivery::Queue,
            };
            Ok(Command::Prompt(Prompt { text: Some(text), delivery, ..Prompt::default() }))
        }
        "abort" => Ok(Command::Abort),
        "permission" => {
            let id = field("id").ok_or_else(|| bad("Which permission?"))?.to_owned();
            let reply = match field("reply") {
                Some("once") => PermissionReply::Once,
                Some("always") => PermissionReply::Always,
                Some("reject") => PermissionReply::Reject,
                Some(_) | None => return Err(bad("Allow once, always, or reject?")),
            };
            let message = field("message").filter(|_| reply == PermissionReply::Reject).map(str::to_owned);
            Ok(Command::Permission { id, reply, message })
        }
        "question" => {
            let id = field("id").ok_or_else(|| bad("Which question?"))?.to_owned();
            if field("act") == Some("dismiss") {
                return Ok(Command::QuestionReject { id });
            }
            Ok(Command::Question(Answer { id, answers: answers(fields) }))
        }
        _ => Err(Refused::new(ErrorCode::NotFound, "There is no such thing to do.".to_owned())),
    }
}

/// What was chosen and written, question by question: own words count instead of a single choice, and beside several.
fn answers(fields: &[(String, String)]) -> Vec<Vec<String>> {
    let mut answers: BTreeMap<usize, Vec<String>> = BTreeMap::new();
    for (name, value) in fields {
        let value = value.trim();
        let (number, is_own) = match (name.strip_prefix("own"), name.strip_prefix('q')) {
            (Some(number), _) => (number, true),
            (None, Some(number)) => (number, false),
            (None, None) => continue,
        };
        let Some(number) = number.parse().ok().filter(|number| *number < QUESTIONS) else { continue };
        let answer = answers.entry(number).or_default();
        if value.is_empty() {
            continue;
        }
        if is_own && answer.len() == 1 {
            answer.clear();
        }
        answer.push(value.to_owned());
    }
    let count = answers.keys().next_back().map_or(0, |last| last + 1);
    (0..count).map(|number| answers.remove(&number).unwrap_or_default()).collect()
}

impl Refused {
    /// The HTTP status that goes with the code.
    pub(super) fn status(&self) -> StatusCode {
        match self.code {
            ErrorCode::Unauthenticated => StatusCode::UNAUTHORIZED,
            ErrorCode::Forbidden => StatusCode::FORBIDDEN,
            ErrorCode::UnknownLog | ErrorCode::NotFound => StatusCode::NOT_FOUND,
            ErrorCode::AlreadyAnswered | ErrorCode::Conflict | ErrorCode::Superseded => StatusCode::CONFLICT,
            ErrorCode::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            ErrorCode::RateLimited => StatusCode::TOO_MANY_REQUESTS,
            ErrorCode::AgentOffline | ErrorCode::Draining => StatusCode::SERVICE_UNAVAILABLE,
            ErrorCode::AgentError => StatusCode::BAD_GATEWAY,
            ErrorCode::StoreFull => StatusCode::INSUFFICIENT_STORAGE,
            ErrorCode::Internal | ErrorCode::Corrupt | ErrorCode::Stalled => {
                StatusCode::INTERNAL_SERVER_ERROR
            }
            ErrorCode::BadRequest | ErrorCode::Unsupported => StatusCode::BAD_REQUEST,
            _ => StatusCode::BAD_REQUEST,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prompt_says_how_it_is_delivered() {
        let Ok(Command::Prompt(prompt)) =
            command("prompt", &fields(&[("text", " hi "), ("delivery", "interrupt")]))
        else {
            panic!()
        };
        assert_eq!((prompt.text.as_deref(), prompt.delivery), (Some("hi"), Delivery::Interrupt));
        assert!(command("prompt", &fields(&[("text", "  ")])).is_err());
    }

    #[test]
    fn a_reason_goes_with_a_rejection_only() {
        let reply = |reply| {
            command("permission", &fields(&[("id", "per_1"), ("reply", reply), ("message", "no")])).ok()
        };
        assert_eq!(
            reply("reject"),
            Some(Command::Permission {
                id: "per_1".into(),
                reply: PermissionReply::Reject,
                message: Some("no".into())
            })
        );
        assert_eq!(
            reply("once"),
            Some(Command::Permission { id: "per_1".into(), reply: PermissionReply::Once, message: None })
        );
        assert_eq!(reply("maybe"), None);
    }

    #[test]
    fn own_words_take_the_place_of_a_single_choice() {
        let answer = |list: &[(&str, &str)]| answers(&fields(list));
        assert_eq!(answer(&[("q0", "SQLite"), ("own0", "")]), [["SQLite"]]);
        assert_eq!(answer(&[("q0", "SQLite"), ("own0", "neither")]), [["neither"]]);
        assert_eq!(
            answer(&[("q0", "a"), ("q0", "b"), ("q2", "c"), ("q999", "x")]),
            [vec!["a", "b"], vec![], vec!["c"]]
        );
    }

    #[test]
    fn a_question_may_be_dismissed() {
        assert_eq!(
            command("question", &fields(&[("id", "que_1"), ("act", "dismiss")])).ok(),
            Some(Command::QuestionReject { id: "que_1".into() })
        );
    }

    fn fields(list: &[(&str, &str)]) -> Vec<(String, String)> {
        list.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }
}
