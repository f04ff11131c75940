//! Plays a recording as an agent.

use std::path::PathBuf;

use async_trait::async_trait;
use protocol::agent::Failed;

use super::{AgentRuntime, RunningAgent, Start};
use crate::{Options, OptionsError};

/// Plays a recording file.
#[derive(Debug)]
pub struct Replay {
    file: PathBuf,
}

impl Replay {
    /// From a wrapper's options.
    ///
    /// # Errors
    /// When `--recording` is missing.
    pub fn from_options(options: &Options) -> Result<Self, OptionsError> {
        let file = options.recording.clone().ok_or(OptionsError::Missing { runtime: "replay", option: "--recording" })?;
        Ok(Self { file })
    }
}

#[async_trait]
impl AgentRuntime for Replay {
    fn name(&self) -> &'static str {
        "replay"
    }

    async fn start(&self, _start: Start) -> Result<RunningAgent, Failed> {
        Err(Failed { message: format!("{} cannot be played by this build", self.file.display()), ..Failed::default() })
    }
}
