//! What waits for a person: permissions, questions, the network. Every ask is a form that works without script.

use maud::{Markup, html};
use protocol::{
    model::{Network, Permission, Question},
    view::{Answer, AnsweredAsk, Ask, PendingAsk},
};
use serde_json::Value;

use super::{Row, Scope, tool_kind::text};
use crate::dashboard::{
    difference::Difference,
    element::{self, icon},
    tree::Node,
};

/// Questions and options that are shown.
const OPTIONS: usize = 24;

/// The id of the row of an ask; the ask's own id is that of the form inside.
pub(crate) fn row_id(id: &str) -> String {
    format!("prt_{}", element::id(id))
}

/// An open ask, in the transcript.
pub(crate) fn open(row: &Row<'_>, scope: &Scope, ask: &PendingAsk) -> Node {
    row.leaf(scope, &form(scope, ask))
}

/// An ask that was answered: what was asked, where the log still says so, and the answer.
pub(crate) fn answered(row: &Row<'_>, scope: &Scope, ask: &AnsweredAsk) -> Node {
    let icon_name = if is_refusal(&ask.answer) { "s-failed" } else { "s-done" };
    row.leaf(
        scope,
        &html! {
            div class="ask-done" id=(element::id(&ask.id)) {
                (icon(icon_name))
                @match &ask.asked {
                    Some(Ask::Question(question)) => (question_and_answer(question, &ask.answer)),
                    Some(asked @ (Ask::Permission(_) | Ask::Network(_))) => span {
                        (words(&ask.answer)) ": "
                        @if let Ask::Permission(permission) = asked { span class="faint" { (element::first_line(&permission.permission)) } " " }
                        code { (about(asked)) }
                    },
                    None => span { (words(&ask.answer)) },
                }
            }
        },
    )
}

fn question_and_answer(question: &Question, answer: &Answer) -> Markup {
    let answers: &[Vec<String>] = if let Answer::Question(answers) = answer { answers } else { &[] };
    html! {
        div class="answers" {
            @for (n, info) in question.questions.iter().take(OPTIONS).enumerate() {
                @let chosen: Vec<&str> = answers.get(n).into_iter().flatten().map(String::as_str).take(OPTIONS).collect();
                p {
                    span class="muted" { (element::first_line(&info.question)) } " "
                    @if chosen.is_empty() { span class="faint" { @if matches!(answer, Answer::QuestionRejected) { "dismissed" } @else { "no answer" } } }
                    @else { b { (element::first_line(&chosen.join(", "))) } }
                }
            }
        }
    }
}

fn is_refusal(answer: &Answer) -> bool {
    match answer {
        Answer::Permission(reply) => reply == "reject",
        Answer::QuestionRejected | Answer::NetworkRejected => true,
        Answer::Question(_) | Answer::NetworkReplied => false,
    }
}

fn words(answer: &Answer) -> String {
    match answer {
        Answer::Permission(reply) => match reply.as_str() {
            "once" => "Allowed once".to_owned(),
            "always" => "Allowed, and always from here on".to_owned(),
            "reject" => "Rejected".to_owned(),
            other => format!("Permission answered: {}", element::first_line(other)),
        },
        Answer::Question(answers) => {
            let chosen: Vec<&str> = answers.iter().flatten().map(String::as_str).take(OPTIONS).collect();
            format!("Answered: {}", element::first_line(&chosen.join(", ")))
        }
        Answer::QuestionRejected => "Question dismissed".to_owned(),
        Answer::NetworkReplied => "Tried again".to_owned(),
        Answer::NetworkRejected => "Given up".to_owned(),
    }
}

/// What an ask is about, in one line, for the dock and the fleet.
pub(crate) fn summary(ask: &PendingAsk) -> String {
    about(&ask.ask)
}

fn about(ask: &Ask) -> String {
    element::first_line(match ask {
        Ask::Permission(permission) => what(permission),
        Ask::Question(question) => {
            question.questions.first().map_or("A question", |question| &question.question)
        }
        Ask::Network(network) => &network.message,
    })
}

/// The kind of an ask: its icon, its word.
pub(crate) fn kind(ask: &PendingAsk) -> (&'static str, &'static str) {
    match ask.ask {
        Ask::Permission(_) => ("lock", "Permission"),
        Ask::Question(_) => ("question", "Question"),
        Ask::Network(_) => ("question", "No network"),
    }
}

/// The short form of an ask that stands in the dock and on the fleet page: its buttons, where one click answers it.
pub(crate) fn short_form(scope: &Scope, ask: &PendingAsk, class: &str, keys: bool) -> Markup {
    let key = |key: &str| html! { @if keys { " " kbd { (key) } } };
    let id = &ask.id;
    html! {
        @match &ask.ask {
            Ask::Permission(permission) => form class=(class) method="post" action={ "/agents/" (scope.agent) "/permission" } data-live {
                input type="hidden" name="id" value=(id);
                button class="btn btn-sm btn-primary" name="reply" value="once" { "Allow once" (key("Y")) }
                @if !permission.always.is_empty() {
                    button class="btn btn-sm" name="reply" value="always" title={ "Allow " (always(permission)) " from here on" } {
                        "Always" @if !keys { " " code { (always(permission)) } } (key("A"))
                    }
                }
                button class="btn btn-sm btn-danger" name="reply" value="reject" { "Reject" (key("N")) }
            },
            Ask::Question(question) => form class=(class) method="post" action={ "/agents/" (scope.agent) "/question" } data-live {
                input type="hidden" name="id" value=(id);
                @if let [only] = &question.questions[..] && !only.multiple {
                    @for (i, option) in only.options.iter().take(3).enumerate() {
                        button class="btn btn-sm" name="q0" value=(option.label) title=(element::first_line(&option.description)) {
                            (element::first_line(&option.label)) @if keys { " " kbd { (i + 1) } }
                        }
                    }
                }
            },
            Ask::Network(_) => form class=(class) method="post" action={ "/agents/" (scope.agent) "/question" } data-live {
                input type="hidden" name="id" value=(id);
                button class="btn btn-sm btn-primary" name="act" value="answer" { "Try again" }
                button class="btn btn-sm btn-danger" name="act" value="dismiss" { "Give up" }
            },
        }
    }
}

fn form(scope: &Scope, ask: &PendingAsk) -> Markup {
    let id = element::id(&ask.id);
    let (icon_name, word) = kind(ask);
    let heading = match &ask.ask {
        Ask::Permission(permission) => heading(permission),
        Ask::Question(question) => match &question.questions[..] {
            [only] => element::first_line(&only.question),
            several => format!("{} questions", several.len()),
        },
        Ask::Network(_) => "The model's provider cannot be reached".to_owned(),
    };
    let route = if ask.permission().is_some() { "permission" } else { "question" };
    html! {
        form class="ask" id=(id) method="post" action={ "/agents/" (scope.agent) "/" (route) } aria-labelledby={ (id) "-h" } data-live {
            div class="ask-head" {
                (element::needs(icon_name, word))
                h3 id={ (id) "-h" } { (heading) }
                span class="age" { (element::age("waits", ask.time)) }
            }
            input type="hidden" name="id" value=(ask.id);
            @match &ask.ask {
                Ask::Permission(permission) => (permission_body(scope, &id, permission)),
                Ask::Question(question) => (question_body(scope, &id, question)),
                Ask::Network(network) => (network_body(scope, network)),
            }
        }
    }
}

fn permission_body(scope: &Scope, id: &str, permission: &Permission) -> Markup {
    let diff = text(&permission.metadata, "diff").map(Difference::parse);
    html! {
        code class="ask-what" { (element::cut(what(permission), element::LINE_BYTES * 16).0) }
        @if let Some(diff) = diff {
            details class="ask-diff" {
                summary { "Changes " span class="adds" { "+" (diff.added) } " " span class="dels" { "−" (diff.removed) } }
                div class="diff" { table { tbody { (element::ready(diff.html(what(permission)))) } } }
            }
        }
        @if scope.may_steer() {
            @if !permission.always.is_empty() {
                p class="ask-note" { "“Always” would allow " code { (always(permission)) } " for the rest of this session." }
            }
            div class="ask-acts" {
                button class="btn btn-primary" name="reply" value="once" { "Allow once " kbd { "Y" } }
                @if !permission.always.is_empty() {
                    button class="btn" name="reply" value="always" { "Always " code { (always(permission)) } " " kbd { "A" } }
                }
                button class="btn btn-danger" name="reply" value="reject" { "Reject " kbd { "N" } }
                label class="sr-only" for={ (id) "-msg" } { "Message with the rejection" }
                input class="field" id={ (id) "-msg" } name="message" maxlength="2000" autocomplete="off" placeholder="Say why, or what instead (optional)";
            }
        }
    }
}

fn question_body(scope: &Scope, id: &str, question: &Question) -> Markup {
    html! {
        @for (n, info) in question.questions.iter().take(OPTIONS).enumerate() {
            fieldset class="options" {
                legend class={ @if question.questions.len() == 1 { "sr-only" } @else { "ask-legend" } } { (info.question) }
                @for (i, option) in info.options.iter().take(OPTIONS).enumerate() {
                    label class="option" {
                        input type={ @if info.multiple { "checkbox" } @else { "radio" } } id={ (id) "-" (n) "-" (i) } name={ "q" (n) } value=(option.label) disabled[!scope.may_steer()];
                        b { (element::first_line(&option.label)) }
                        @if n == 0 && i < 9 { kbd { (i + 1) } }
                        @if !option.description.is_empty() { small { (element::first_line(&option.description)) } }
                    }
                }
            }
            @if scope.may_steer() && n + 1 < question.questions.len() { (own_words(id, n)) }
        }
        @if scope.may_steer() {
            div class="ask-acts" {
                @if !question.questions.is_empty() { (own_words(id, question.questions.len().min(OPTIONS) - 1)) }
                button class="btn btn-primary" name="act" value="answer" { "Answer" }
                button class="btn btn-quiet" name="act" value="dismiss" { "Dismiss" }
            }
        }
    }
}

fn own_words(id: &str, n: usize) -> Markup {
    html! {
        label class="sr-only" for={ (id) "-own" (n) } { "Own answer" }
        input class="field" id={ (id) "-own" (n) } name={ "own" (n) } maxlength="4000" autocomplete="off" placeholder="Or answer in your own words";
    }
}

fn network_body(scope: &Scope, network: &Network) -> Markup {
    html! {
        code class="ask-what" { (element::first_line(&network.message)) }
        @if scope.may_steer() {
            div class="ask-acts" {
                button class="btn btn-primary" name="act" value="answer" { "Try again" }
                button class="btn btn-danger" name="act" value="dismiss" { "Give up" }
            }
        }
    }
}

fn heading(permission: &Permission) -> String {
    let act = match permission.permission.as_str() {
        "bash" => "Run a command",
        "edit" | "write" => "Change a file",
        "read" => "Read a file",
        "external_directory" => "Work outside of its folder",
        "webfetch" => "Fetch a page",
        "doom_loop" => "Go on with the same call again",
        other => return format!("Use {}", element::first_line(other)),
    };
    match text(&permission.metadata, "description") {
        Some(why) => format!("{act}: {}", element::first_line(why)),
        None => act.to_owned(),
    }
}

/// What exactly is asked for: the command, or the path, or the first pattern.
fn what(permission: &Permission) -> &str {
    let metadata: &Value = &permission.metadata;
    ["command", "filepath", "filePath", "url"]
        .iter()
        .find_map(|field| text(metadata, field))
        .or_else(|| permission.patterns.first().map(String::as_str))
        .unwrap_or(&permission.permission)
}

fn always(permission: &Permission) -> String {
    element::first_line(&permission.always.join(", "))
}
