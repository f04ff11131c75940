//! The scenario file: what a scripted agent says and does. Format: see the documentation of [`super`].

use std::{collections::BTreeSet, fmt, path::Path};

use serde::{Deserialize, Deserializer, Serialize, de};

use crate::runtime::shape::emit::{Model, Tokens};

/// A scenario that holds together: made by [`Scenario::parse`] only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scenario(Script);

/// Why a text is no scenario.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ScenarioError {
    /// It is not JSON of the documented shape; the source says what and at which line and column.
    #[error("the scenario does not have the documented shape")]
    Shape(#[from] serde_json::Error),
    /// It has the shape and makes no sense.
    #[error("scenario, {place}: {problem}")]
    Sense {
        /// Where: `turn "build", step 2, action 3`.
        place: String,
        /// What is wrong there.
        problem: String,
    },
}

impl Scenario {
    /// Reads a scenario.
    ///
    /// # Errors
    /// When the text is not JSON, has an unknown field or lacks one, or when what it says cannot be played (no turn, two turns
    /// of one name, a start turn that does not exist or has no prompt, a path that leaves the work folder).
    pub fn parse(json: &str) -> Result<Self, ScenarioError> {
        let script: Script = serde_json::from_str(json)?;
        script.check()?;
        Ok(Self(script))
    }

    /// What the file says.
    pub(crate) fn script(&self) -> &Script {
        &self.0
    }
}

/// The file.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Script {
    /// Title of the session.
    pub(crate) title: String,
    /// Name of the agent's mode, as agent servers report it.
    #[serde(default = "default_agent")]
    pub(crate) agent: String,
    /// The model it claims to run on.
    pub(crate) model: Model,
    /// What it does by itself.
    #[serde(default)]
    pub(crate) start: Option<Start>,
    /// What it can do.
    pub(crate) turns: Vec<Turn>,
}

/// Turns that start by themselves.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Start {
    /// Their names, in order.
    pub(crate) turns: Vec<String>,
    /// Milliseconds of rest before each but the first.
    #[serde(default = "default_pause_ms")]
    pub(crate) pause_ms: u64,
    /// After the last comes the first again.
    #[serde(default)]
    pub(crate) repeat: bool,
}

/// One turn: what follows one prompt.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Turn {
    /// Its name; `[[name]]` in a prompt chooses it.
    pub(crate) name: String,
    /// The message of the user with which it starts by itself.
    #[serde(default)]
    pub(crate) prompt: Option<Text>,
    /// Words in a prompt that choose it.
    #[serde(default)]
    pub(crate) keywords: Vec<String>,
    /// It answers whatever no other turn answers.
    #[serde(default)]
    pub(crate) free: bool,
    /// Its steps.
    pub(crate) steps: Vec<Step>,
}

/// One assistant message.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Step {
    /// What it does, in order.
    pub(crate) actions: Vec<Action>,
    /// Milliseconds until the model says its first word.
    #[serde(default = "default_latency_ms")]
    pub(crate) latency_ms: u64,
    /// Tokens it takes.
    #[serde(default)]
    pub(crate) tokens: Tokens,
    /// Cost in millionths of a dollar.
    #[serde(default)]
    pub(crate) cost_micros: u64,
}

/// One thing an agent does.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Action {
    /// Streams Markdown.
    Text(Stream),
    /// Streams what it thinks.
    Reasoning(Stream),
    /// Runs a tool in the work folder.
    Bash(Bash),
    Write(Write),
    Edit(Edit),
    Read(Read),
    Grep(Grep),
    Glob(Glob),
    /// Sets the list of todos.
    Todo(Todos),
    /// Asks the user and waits.
    Question(Question),
    /// Has a sub-agent do something and waits.
    Task(Task),
    /// Ends the turn with an error.
    Error(Failure),
    /// The provider refuses a number of times.
    Retry(Retry),
    /// Says nothing for a while.
    Pause(Pause),
    /// Replaces what was said so far by a summary.
    Compact(Stream),
    /// One of these lists, by the number of turns played so far: keeps a repeating scenario from repeating itself.
    Choose(Choose),
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Stream {
    pub(crate) text: Text,
    /// Characters of one piece; a piece ends at the next space.
    #[serde(default = "default_chunk")]
    pub(crate) chunk: usize,
    /// Milliseconds between two pieces.
    #[serde(default = "default_delay_ms")]
    pub(crate) delay_ms: u64,
}

/// A permission that a tool needs.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Ask {
    /// What "always" would allow: `rm *`.
    pub(crate) always: Vec<String>,
    /// The steps that follow a rejection instead of the rest of the turn; without, a rejection ends the turn.
    #[serde(default)]
    pub(crate) rejected: Option<Vec<Step>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Bash {
    /// For `sh -c`, in the work folder.
    pub(crate) command: Text,
    pub(crate) description: String,
    #[serde(default = "default_timeout_ms")]
    pub(crate) timeout_ms: u64,
    #[serde(default)]
    pub(crate) ask: Option<Ask>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Write {
    pub(crate) path: String,
    pub(crate) content: Text,
    #[serde(default)]
    pub(crate) ask: Option<Ask>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Edit {
    pub(crate) path: String,
    pub(crate) old: Text,
    pub(crate) new: Text,
    #[serde(default)]
    pub(crate) ask: Option<Ask>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Read {
    pub(crate) path: String,
}

/// A search for a text, letter by letter.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Grep {
    pub(crate) pattern: String,
    #[serde(default)]
    pub(crate) path: Option<String>,
}

/// A search for file names: `*` any letters of one name, `**/` any folders, `?` one letter.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Glob {
    pub(crate) pattern: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Todos {
    pub(crate) todos: Vec<Todo>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Todo {
    pub(crate) content: String,
    pub(crate) status: TodoStatus,
    pub(crate) priority: Priority,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum TodoStatus {
    Pending,
    InProgress,
    Completed,
    Cancelled,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Priority {
    High,
    Medium,
    Low,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Question {
    pub(crate) questions: Vec<Asked>,
    /// The steps that follow when the user declines, instead of the rest of the turn; without, the turn goes on.
    #[serde(default)]
    pub(crate) rejected: Option<Vec<Step>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Asked {
    pub(crate) question: String,
    pub(crate) header: String,
    pub(crate) options: Vec<Choice>,
    #[serde(default)]
    pub(crate) multiple: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Choice {
    pub(crate) label: String,
    pub(crate) description: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Task {
    pub(crate) description: String,
    pub(crate) prompt: Text,
    /// The sub-agent's mode.
    #[serde(default = "default_subagent")]
    pub(crate) agent: String,
    pub(crate) steps: Vec<Step>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Failure {
    pub(crate) name: String,
    pub(crate) message: String,
    #[serde(default)]
    pub(crate) status_code: Option<u16>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Retry {
    pub(crate) message: String,
    /// Milliseconds until each next try.
    pub(crate) delays_ms: Vec<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Pause {
    pub(crate) ms: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Choose {
    pub(crate) of: Vec<Vec<Action>>,
}

/// A text: a JSON string, or a list of lines (each of which then ends with a newline, the last one too if there are several).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Text(pub(crate) String);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Lines;
        impl<'de> de::Visitor<'de> for Lines {
            type Value = Text;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or a list of lines")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Text, E> {
                Ok(Text(text.to_owned()))
            }

            fn visit_seq<A: de::SeqAccess<'de>>(self, mut lines: A) -> Result<Text, A::Error> {
                let mut text = String::new();
                while let Some(line) = lines.next_element::<std::borrow::Cow<'de, str>>()? {
                    text.push_str(&line);
                    text.push('\n');
                }
                Ok(Text(text))
            }
        }
        deserializer.deserialize_any(Lines)
    }
}

fn default_agent() -> String {
    "build".to_owned()
}

fn default_subagent() -> String {
    "general".to_owned()
}

fn default_pause_ms() -> u64 {
    20_000
}

fn default_latency_ms() -> u64 {
    700
}

fn default_chunk() -> usize {
    12
}

fn default_delay_ms() -> u64 {
    45
}

fn default_timeout_ms() -> u64 {
    120_000
}

impl Script {
    fn check(&self) -> Result<(), ScenarioError> {
        let fault = |place: &str, problem: &str| {
            Err(ScenarioError::Sense { place: place.into(), problem: problem.into() })
        };
        if self.turns.is_empty() {
            return fault("turns", "there must be at least one");
        }
        let mut names = BTreeSet::new();
        for turn in &self.turns {
            let place = format!("turn {:?}", turn.name);
            if !names.insert(turn.name.as_str()) {
                return fault(&place, "two turns have this name");
            }
            check_steps(&place, &turn.steps)?;
        }
        let Some(start) = &self.start else { return Ok(()) };
        if start.turns.is_empty() {
            return fault("start", "it names no turn");
        }
        for name in &start.turns {
            match self.turns.iter().find(|turn| turn.name == *name) {
                None => return fault("start", &format!("there is no turn {name:?}")),
                Some(Turn { prompt: None, .. }) => {
                    return fault("start", &format!("the turn {name:?} has no prompt"));
                }
                Some(Turn { prompt: Some(_), .. }) => {}
            }
        }
        Ok(())
    }
}

fn check_steps(place: &str, steps: &[Step]) -> Result<(), ScenarioError> {
    if steps.is_empty() {
        return Err(ScenarioError::Sense {
            place: place.to_owned(),
            problem: "there are no steps".to_owned(),
        });
    }
    for (step, number) in steps.iter().zip(1..) {
        check_actions(&format!("{place}, step {number}"), &step.actions)?;
    }
    Ok(())
}

fn check_actions(place: &str, actions: &[Action]) -> Result<(), ScenarioError> {
    for (action, number) in actions.iter().zip(1..) {
        let place = format!("{place}, action {number}");
        let fault = |problem: String| Err(ScenarioError::Sense { place: place.clone(), problem });
        let mut path = None;
        match action {
            Action::Text(stream) | Action::Reasoning(stream) | Action::Compact(stream) => {
                if stream.chunk == 0 {
                    return fault("chunk must be at least 1".to_owned());
                }
            }
            Action::Bash(bash) => check_ask(&place, bash.ask.as_ref())?,
            Action::Write(write) => {
                path = Some(&write.path);
                check_ask(&place, write.ask.as_ref())?;
            }
            Action::Edit(edit) => {
                path = Some(&edit.path);
                check_ask(&place, edit.ask.as_ref())?;
            }
            Action::Read(read) => path = Some(&read.path),
            Action::Grep(grep) => path = grep.path.as_ref(),
            Action::Question(question) => {
                if question.questions.is_empty() {
                    return fault("it asks nothing".to_owned());
                }
                if let Some(steps) = &question.rejected {
                    check_steps(&format!("{place}, rejected"), steps)?;
                }
            }
            Action::Task(task) => check_steps(&format!("{place}, task"), &task.steps)?,
            Action::Choose(choose) => {
                if choose.of.is_empty() {
                    return fault("there is nothing to choose from".to_owned());
                }
                for (actions, list) in choose.of.iter().zip(1..) {
                    check_actions(&format!("{place}, list {list}"), actions)?;
                }
            }
            Action::Glob(_) | Action::Todo(_) | Action::Error(_) | Action::Retry(_) | Action::Pause(_) => {}
        }
        if let Some(path) = path
            && !stays_inside(path)
        {
            return fault(format!("{path:?} leaves the work folder"));
        }
    }
    Ok(())
}

fn check_ask(place: &str, ask: Option<&Ask>) -> Result<(), ScenarioError> {
    match ask.and_then(|ask| ask.rejected.as_ref()) {
        Some(steps) => check_steps(&format!("{place}, rejected"), steps),
        None => Ok(()),
    }
}

fn stays_inside(path: &str) -> bool {
    use std::path::Component;
    Path::new(path).components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_field_is_named_with_its_line() {
        let text = "{\"title\": \"t\", \"model\": {\"providerID\": \"p\", \"modelID\": \"m\"},\n\"turns\": [{\"name\": \"a\", \"steps\": [{\n\
                    \"actions\": [{\"bash\": {\"comand\": \"ls\", \"description\": \"d\"}}]}]}]}";
        let message = shape_error(text);
        assert!(message.contains("comand") && message.contains("line 3"), "{message}");
        assert!(shape_error("{\"titel\": \"t\"}").contains("titel"));
        assert!(shape_error(&with_action("{\"dance\": {}}")).contains("dance"));
    }

    #[test]
    fn what_cannot_be_played_is_refused_with_its_place() {
        let place = |json: &str| Scenario::parse(json).unwrap_err().to_string();
        assert_eq!(
            place(&with_action("{\"read\": {\"path\": \"../secret\"}}")),
            "scenario, turn \"a\", step 1, action 1: \"../secret\" leaves the work folder"
        );
        assert!(
            place(&with_action("{\"write\": {\"path\": \"/etc/x\", \"content\": \"\"}}")).contains("leaves")
        );
        assert!(place(&with_action("{\"choose\": {\"of\": []}}")).contains("nothing to choose"));
        let start =
            with_action("{\"pause\": {\"ms\": 1}}").replacen('{', "{\"start\": {\"turns\": [\"b\"]},", 1);
        assert!(place(&start).contains("there is no turn \"b\""));
        assert!(place(&start.replace("\"b\"", "\"a\"")).contains("has no prompt"));
    }

    #[test]
    fn a_text_is_a_string_or_lines() {
        let of = |json: &str| serde_json::from_str::<Text>(json).unwrap().0;
        assert_eq!(of("\"one\""), "one");
        assert_eq!(of("[\"one\", \"\", \"two\"]"), "one\n\ntwo\n");
    }

    fn shape_error(json: &str) -> String {
        match Scenario::parse(json).unwrap_err() {
            ScenarioError::Shape(error) => error.to_string(),
            error @ ScenarioError::Sense { .. } => panic!("{error}"),
        }
    }

    fn with_action(action: &str) -> String {
        format!(
            "{{\"title\": \"t\", \"model\": {{\"providerID\": \"p\", \"modelID\": \"m\"}},
              \"turns\": [{{\"name\": \"a\", \"steps\": [{{\"actions\": [{action}]}}]}}]}}"
        )
    }
}
