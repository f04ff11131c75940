//! The whole wrapper.

use crate::{Exit, Options, OptionsError, Shutdown, ShutdownLevel};

/// Why a wrapper could not run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// Its options do not work.
    #[error(transparent)]
    Options(#[from] OptionsError),
    /// Its state dir cannot be used.
    #[error("the state dir cannot be used: {doing}")]
    StateDir {
        /// What it was about to do.
        doing: &'static str,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
}

/// Runs one agent until it ends, is superseded, or is told to stop. It needs a tokio runtime with time and I/O.
///
/// # Errors
/// When it cannot begin at all: wrong options, or a state dir that cannot be used. Whatever fails later is an event or
/// an [`Exit`].
pub async fn run(options: Options, mut shutdown: Shutdown) -> Result<Exit, RunError> {
    let _runtime = options.runtime.build(&options)?;
    shutdown.above(ShutdownLevel::None).await;
    Ok(Exit::Done)
}
