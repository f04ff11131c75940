//! What the interpreter and the driver say to each other of tools.

use serde_json::{Value, json};

use super::scenario::{Action, Ask};

/// A tool that is to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Call {
    /// Its number: no two calls of one agent share one.
    pub(crate) number: u64,
    /// What is to be done.
    pub(crate) tool: Tool,
}

/// What a tool is to do; paths lie below the work folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Tool {
    /// Runs a command with `sh -c`.
    Bash { command: String, description: String, timeout_ms: u64 },
    /// Writes a file.
    Write { path: String, content: String },
    /// Replaces the one place in a file where `old` is.
    Edit { path: String, old: String, new: String },
    /// Shows a file.
    Read { path: String },
    /// Finds the lines that contain a text.
    Grep { pattern: String, path: Option<String> },
    /// Finds files by name.
    Glob { pattern: String },
}

/// How a tool ended.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Outcome {
    /// It did what it should (also a command that ends with another exit code than 0).
    Completed {
        /// What it says to the model.
        output: String,
        /// What it says to viewers.
        metadata: Value,
    },
    /// It could not.
    Failed(String),
}

impl Tool {
    /// The tool of an action, and the permission it needs; none if the action is no tool of the work folder.
    pub(crate) fn of(action: &Action) -> Option<(Self, Option<Ask>)> {
        match action {
            Action::Bash(bash) => {
                let (command, description) = (bash.command.0.trim_end().to_owned(), bash.description.clone());
                Some((Self::Bash { command, description, timeout_ms: bash.timeout_ms }, bash.ask.clone()))
            }
            Action::Write(write) => Some((
                Self::Write { path: write.path.clone(), content: write.content.0.clone() },
                write.ask.clone(),
            )),
            Action::Edit(edit) => {
                let (old, new) = (edit.old.0.clone(), edit.new.0.clone());
                Some((Self::Edit { path: edit.path.clone(), old, new }, edit.ask.clone()))
            }
            Action::Read(read) => Some((Self::Read { path: read.path.clone() }, None)),
            Action::Grep(grep) => {
                Some((Self::Grep { pattern: grep.pattern.clone(), path: grep.path.clone() }, None))
            }
            Action::Glob(glob) => Some((Self::Glob { pattern: glob.pattern.clone() }, None)),
            Action::Text(_)
            | Action::Reasoning(_)
            | Action::Todo(_)
            | Action::Question(_)
            | Action::Task(_)
            | Action::Error(_)
            | Action::Retry(_)
            | Action::Pause(_)
            | Action::Compact(_)
            | Action::Choose(_) => None,
        }
    }

    /// Its name, as agent servers have it.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Bash { .. } => "bash",
            Self::Write { .. } => "write",
            Self::Edit { .. } => "edit",
            Self::Read { .. } => "read",
            Self::Grep { .. } => "grep",
            Self::Glob { .. } => "glob",
        }
    }

    /// Its title once it has run.
    pub(crate) fn title(&self) -> &str {
        match self {
            Self::Bash { description, .. } => description,
            Self::Write { path, .. } | Self::Edit { path, .. } | Self::Read { path } => path,
            Self::Grep { pattern, .. } | Self::Glob { pattern } => pattern,
        }
    }

    /// Its input, as the model would give it.
    pub(crate) fn input(&self, directory: &str) -> Value {
        let full = |path: &str| format!("{directory}/{path}");
        match self {
            Self::Bash { command, description, timeout_ms } => {
                json!({ "command": command, "description": description, "timeout": timeout_ms })
            }
            Self::Write { path, content } => json!({ "filePath": full(path), "content": content }),
            Self::Edit { path, old, new } => {
                json!({ "filePath": full(path), "oldString": old, "newString": new })
            }
            Self::Read { path } => json!({ "filePath": full(path) }),
            Self::Grep { pattern, path } => {
                json!({ "pattern": pattern, "path": path.as_deref().map_or_else(|| directory.to_owned(), full) })
            }
            Self::Glob { pattern } => json!({ "pattern": pattern, "path": directory }),
        }
    }

    /// The permission it asks for: its kind, the patterns, and what it tells of itself.
    pub(crate) fn permission(&self, directory: &str) -> (&'static str, Vec<String>, Value) {
        match self {
            Self::Bash { command, description, .. } => {
                ("bash", vec![command.clone()], json!({ "command": command, "description": description }))
            }
            Self::Write { path, .. } | Self::Edit { path, .. } => {
                ("edit", vec![path.clone()], json!({ "filepath": format!("{directory}/{path}") }))
            }
            Self::Read { path } => ("read", vec![path.clone()], json!({})),
            Self::Grep { pattern, .. } => ("grep", vec![pattern.clone()], json!({})),
            Self::Glob { pattern } => ("glob", vec![pattern.clone()], json!({})),
        }
    }
}
