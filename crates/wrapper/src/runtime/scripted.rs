//! Plays a scenario as an agent.

use std::path::PathBuf;

use async_trait::async_trait;
use protocol::agent::Failed;

use super::{AgentRuntime, RunningAgent, Start};
use crate::{Options, OptionsError};

/// Plays a scenario file.
#[derive(Debug)]
pub struct Scripted {
    file: PathBuf,
}

impl Scripted {
    /// From a wrapper's options.
    ///
    /// # Errors
    /// When `--scenario` is missing.
    pub fn from_options(options: &Options) -> Result<Self, OptionsError> {
        let file =
            options.scenario.clone().ok_or(OptionsError::Missing { runtime: "scripted", option: "--scenario" })?;
        Ok(Self { file })
    }
}

#[async_trait]
impl AgentRuntime for Scripted {
    fn name(&self) -> &'static str {
        "scripted"
    }

    async fn start(&self, _start: Start) -> Result<RunningAgent, Failed> {
        Err(Failed { message: format!("{} cannot be played by this build", self.file.display()), ..Failed::default() })
    }
}
