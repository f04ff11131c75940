//! The binary `gastown`.

use std::process::ExitCode;

fn main() -> ExitCode {
    gastown::cli::run()
}
