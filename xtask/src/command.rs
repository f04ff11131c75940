//! Running other programs from the root of the workspace.

use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, bail};

/// The root of the workspace.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the workspace").to_path_buf()
}

/// Whether a program is on the search path.
pub(crate) fn on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

/// Runs a program and fails if it does.
pub(crate) fn run(program: &str, args: &[&str], env: &[(&str, &str)]) -> anyhow::Result<()> {
    let shown = shown(program, args);
    println!("$ {shown}");
    let status = prepared(program, args, env).status().with_context(|| format!("{shown} did not start"))?;
    if !status.success() {
        bail!("{shown} failed: {status}");
    }
    Ok(())
}

/// Runs a program, passes its output on line by line, and gives the lines back with whether it succeeded.
pub(crate) fn run_read(
    program: &str,
    args: &[&str],
    env: &[(&str, &str)],
) -> anyhow::Result<(Vec<String>, bool)> {
    let shown = shown(program, args);
    println!("$ {shown}");
    let mut child = prepared(program, args, env)
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("{shown} did not start"))?;
    let output = child.stdout.take().expect("the output is piped");
    let mut lines = Vec::new();
    for line in BufReader::new(output).lines() {
        let line = line?;
        println!("{line}");
        lines.push(line);
    }
    Ok((lines, child.wait()?.success()))
}

/// What a program prints, if it succeeds.
pub(crate) fn output(program: &str, args: &[&str]) -> anyhow::Result<String> {
    let shown = shown(program, args);
    let output = prepared(program, args, &[]).output().with_context(|| format!("{shown} did not start"))?;
    if !output.status.success() {
        bail!("{shown} failed: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8(output.stdout)?)
}

fn prepared(program: &str, args: &[&str], env: &[(&str, &str)]) -> Command {
    let mut command = Command::new(program);
    command.args(args).current_dir(root()).envs(env.iter().copied()).stdin(Stdio::null());
    command
}

fn shown(program: &str, args: &[&str]) -> String {
    format!("{program} {}", args.join(" "))
}
