//! The command line as people meet it: what it takes, what it says.

use clap::{Command, error::ErrorKind};

use super::*;

#[test]
fn the_command_line_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn the_help_teaches() {
    let mut text = String::new();
    let mut command = Cli::command().term_width(100);
    command.build();
    collect(&mut text, &mut command, "gastown");
    insta::assert_snapshot!("help", text);
}

#[test]
fn every_command_that_people_type_has_a_line_of_its_own_in_the_help() {
    let mut command = Cli::command();
    command.build();
    for subcommand in command.get_subcommands().filter(|subcommand| !subcommand.is_hide_set()) {
        assert!(subcommand.get_about().is_some(), "{} does not say what it does", subcommand.get_name());
    }
}

#[test]
fn secrets_are_never_arguments() {
    let mut command = Cli::command();
    command.build();
    for subcommand in command.get_subcommands() {
        for argument in subcommand.get_arguments() {
            let name = argument.get_id().as_str();
            assert!(
                !matches!(name, "token" | "password" | "secret"),
                "{} takes --{name}",
                subcommand.get_name()
            );
        }
    }
}

#[test]
fn a_prompt_takes_words_and_a_delivery() {
    let cli =
        Cli::try_parse_from(["gastown", "prompt", "Toast", "--delivery", "interrupt", "stop", "it"]).unwrap();
    let Sub::Prompt(prompt) = cli.subcommand else { panic!("a prompt") };
    assert!(
        format!("{prompt:?}").contains(r#"agent: "toast", text: ["stop", "it"], delivery: Interrupt"#),
        "{prompt:?}"
    );
}

#[test]
fn the_server_may_be_named_before_or_after_the_agent() {
    for line in [
        ["gastown", "abort", "--url", "http://h:1", "toast"],
        ["gastown", "abort", "toast", "--url", "http://h:1"],
    ] {
        assert!(Cli::try_parse_from(line).is_ok(), "{line:?}");
    }
}

#[test]
fn what_is_missing_or_wrong_is_told_with_the_usage() {
    let kind = |line: &[&str]| Cli::try_parse_from(line).map(|_| ()).unwrap_err().kind();
    assert_eq!(kind(&["gastown"]), ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand);
    assert_eq!(kind(&["gastown", "prompt", "toast"]), ErrorKind::MissingRequiredArgument);
    assert_eq!(kind(&["gastown", "watch", "two words"]), ErrorKind::ValueValidation);
    assert_eq!(kind(&["gastown", "watch", "toast", "--after", "412"]), ErrorKind::ValueValidation);
    assert_eq!(
        kind(&["gastown", "agent", "start", "x", "--runtime", "scripted"]),
        ErrorKind::MissingRequiredArgument
    );
    assert_eq!(kind(&["gastown", "agent", "start", "x", "--runtime", "emacs"]), ErrorKind::InvalidValue);
}

#[test]
fn completions_know_every_command() {
    for shell in [clap_complete::Shell::Bash, clap_complete::Shell::Zsh, clap_complete::Shell::Fish] {
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut Cli::command(), "gastown", &mut script);
        let script = String::from_utf8(script).unwrap();
        for name in ["watch", "permit", "agents"] {
            assert!(script.contains(name), "{shell}: {name}");
        }
    }
}

/// The help of a command and of all below it that people type.
fn collect(text: &mut String, command: &mut Command, name: &str) {
    text.push_str(&format!("$ {name} --help\n{}\n\n", command.render_help()));
    let names: Vec<String> = command
        .get_subcommands()
        // The wrapper's options are its own crate's.
        .filter(|subcommand| !subcommand.is_hide_set() && subcommand.get_name() != "wrapper")
        .map(|subcommand| subcommand.get_name().to_owned())
        .collect();
    for subcommand in names {
        let below = command.find_subcommand_mut(&subcommand).expect("it was just listed");
        collect(text, below, &format!("{name} {subcommand}"));
    }
}
