//! Installs what the tests need on a bare Debian with Rust and Node: system packages (a C++ compiler is for libFuzzer), and
//! agent servers from npm.

use std::fs;

use anyhow::{Context, bail};

use crate::command::{self, on_path, root};

/// A program, and the Debian package that brings it.
const SYSTEM: &[(&str, &str)] = &[
    ("chromium", "chromium"),
    ("chromedriver", "chromium-driver"),
    ("curl", "curl"),
    ("g++", "g++"),
    ("git", "git"),
    ("rg", "ripgrep"),
    ("strace", "strace"),
];

/// An npm package, its pinned version, and what is run of it, below `node_modules`.
const AGENTS: &[(&str, &str, &str)] = &[
    ("opencode-linux-x64", "1.18.33", "opencode-linux-x64/bin/opencode"),
    ("@kilocode/cli-linux-x64", "7.7.7", "@kilocode/cli-linux-x64/bin/kilo"),
    // Claude Code as an agent of the Agent Client Protocol; once called `@zed-industries/claude-code-acp`.
    (
        "@agentclientprotocol/claude-agent-acp",
        "0.100.0",
        "@agentclientprotocol/claude-agent-acp/dist/index.js",
    ),
];

/// Installs whatever is missing, and says what it does.
pub(crate) fn run() -> anyhow::Result<()> {
    system_packages()?;
    agent_servers()
}

fn system_packages() -> anyhow::Result<()> {
    let missing: Vec<&str> =
        SYSTEM.iter().filter(|(program, _)| !on_path(program)).map(|&(_, package)| package).collect();
    install(&missing)
}

/// Installs packages of the system, and says what it does.
pub(crate) fn install(packages: &[&str]) -> anyhow::Result<()> {
    if packages.is_empty() {
        println!("setup: the system packages are there");
        return Ok(());
    }
    println!("setup: installing system packages: {} (this alone needs root)", packages.join(", "));
    if !on_path("apt-get") {
        bail!("no apt-get on this system: install {} by hand, then run this again", packages.join(", "));
    }
    let (program, prefix): (&str, &[&str]) = if is_root()? {
        ("apt-get", &[])
    } else if on_path("sudo") {
        ("sudo", &["apt-get"])
    } else {
        bail!(
            "not root, and no sudo: run `apt-get install {}` as root, then run this again",
            packages.join(" ")
        );
    };
    let quiet = [("DEBIAN_FRONTEND", "noninteractive")];
    command::run(program, &[prefix, &["update", "--quiet"]].concat(), &quiet)?;
    let install = ["install", "--yes", "--quiet", "--no-install-recommends"];
    command::run(program, &[prefix, &install, packages].concat(), &quiet)
}

fn agent_servers() -> anyhow::Result<()> {
    let folder = root().join("target/tools");
    let wanted = |&&(package, version, binary): &&(&str, &str, &str)| {
        let manifest = folder.join("node_modules").join(package).join("package.json");
        let installed = fs::read_to_string(manifest).unwrap_or_default();
        !installed.contains(&format!("\"version\": \"{version}\""))
            || !folder.join("node_modules").join(binary).is_file()
    };
    if !AGENTS.iter().any(|agent| wanted(&agent)) {
        println!("setup: the agent servers are there");
        return Ok(());
    }
    if !on_path("npm") {
        bail!("npm is missing: install Node.js, then run this again");
    }
    fs::create_dir_all(&folder).context("target/tools cannot be made")?;
    let manifest = folder.join("package.json");
    if !manifest.exists() {
        fs::write(manifest, "{ \"name\": \"gastown-test-tools\", \"private\": true }\n")?;
    }
    let packages: Vec<String> =
        AGENTS.iter().map(|(package, version, _)| format!("{package}@{version}")).collect();
    println!("setup: installing agent servers into target/tools: {}", packages.join(", "));
    let mut args = vec![
        "install",
        "--prefix",
        "target/tools",
        "--no-audit",
        "--no-fund",
        "--ignore-scripts",
        "--save-exact",
    ];
    args.extend(packages.iter().map(String::as_str));
    command::run("npm", &args, &[])?;
    for (_, _, binary) in AGENTS {
        if !folder.join("node_modules").join(binary).is_file() {
            bail!("npm succeeded, but target/tools/node_modules/{binary} is not there");
        }
    }
    Ok(())
}

fn is_root() -> anyhow::Result<bool> {
    Ok(command::output("id", &["-u"])?.trim() == "0")
}
