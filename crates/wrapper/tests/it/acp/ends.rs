//! How an ACP agent begins and ends.

use std::os::fd::OwnedFd;

use rustix::process::{Pid, PidfdFlags, Signal as UnixSignal, kill_process, pidfd_open, pidfd_send_signal};

use super::*;
use crate::guard::is_gone;

#[tokio::test]
async fn an_agent_that_dies_says_its_last_words() {
    let place = Place::new();
    let mut agent = place.start("").await;
    agent.prompt("die").await;
    let Ended::Died(Failed { exit_code, stderr, .. }) = agent.end().await else { panic!("it died") };
    assert_eq!((exit_code, stderr.last().map(String::as_str)), (Some(9), Some("out of memory")));
    let answered = agent.command(Command::Abort).await;
    assert!(matches!(answered, Err(CommandError::Unreachable { .. })), "{answered:?}");
}

#[tokio::test]
async fn p16_nothing_of_the_agent_outlives_its_stop() {
    let place = Place::new();
    let mut agent = place.start("").await;
    agent.prompt("daemon").await;
    agent.turn_over().await;
    let daemon = process(agent.said().last().unwrap().parse().unwrap());
    let own = process(agent.pid(&place));
    agent.running.control.stop().await;
    is_gone(daemon).await;
    is_gone(own).await;
}

#[tokio::test]
async fn p16_terminals_are_gone_when_the_agent_is_stopped() {
    let place = Place::new();
    let mut agent = place.start("").await;
    agent.prompt("terminal trap '' TERM; echo $$; exec sleep 1000").await;
    let pid = loop {
        agent.until("message.part.updated").await;
        let tool = agent.parts().into_iter().find(|part| part["type"] == "tool");
        let output = tool.and_then(|tool| tool["state"]["metadata"]["output"].as_str().map(str::to_owned));
        if let Some(pid) = output.and_then(|output| output.trim().parse().ok()) {
            break pid;
        }
    };
    let command = process(pid);
    agent.running.control.stop().await;
    let signalled = pidfd_send_signal(&command, UnixSignal::CONT);
    assert!(signalled.is_err(), "it outlives the stop");
}

#[tokio::test]
async fn p16_what_a_wrapper_left_is_ended_before_another_agent_is_started() {
    let place = Place::new();
    let mut left = place.start("").await;
    let mut agent = place.start("").await;
    assert!(matches!(left.end().await, Ended::Died(_)));
    agent.prompt("say here").await;
    assert_eq!(agent.turn_over().await, "completed");
}

#[tokio::test]
async fn an_agent_that_was_killed_is_a_death() {
    let place = Place::new();
    let mut agent = place.start("").await;
    agent.prompt("deaf").await;
    agent.until("message.part.delta").await;
    kill_process(Pid::from_raw(agent.pid(&place)).unwrap(), UnixSignal::KILL).unwrap();
    let Ended::Died(failed) = agent.end().await else { panic!("it died") };
    assert_eq!(failed.exit_code, Some(128 + 9));
}

#[tokio::test]
async fn a_start_that_fails_says_why_and_what_to_do() {
    let place = Place::new();
    for (how, exit_code, word) in [
        ("exits", Some(3), "it ended before it was ready"),
        ("future", Some(128 + 15), "it speaks version 7"),
        ("login", Some(128 + 15), "run `fake login`"),
    ] {
        let failed = place.try_start(how, None).await.unwrap_err();
        assert!(failed.message.contains(word), "{how}: {}", failed.message);
        assert_eq!(failed.exit_code, exit_code, "{how}: {failed:?}");
    }
    assert_eq!(place.try_start("exits", None).await.unwrap_err().stderr, ["no api key"]);
    let missing = Acp::new(vec!["/no/such/agent".into()], guard());
    let failed = missing.start(place.asked(None)).await.unwrap_err();
    assert!(failed.stderr.iter().any(|line| line.contains("/no/such/agent")), "{failed:?}");
}

fn process(pid: i32) -> OwnedFd {
    pidfd_open(Pid::from_raw(pid).unwrap(), PidfdFlags::NONBLOCK).unwrap()
}
