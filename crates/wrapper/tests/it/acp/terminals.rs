//! The terminals that an ACP agent is given.

use super::*;

#[tokio::test]
async fn a_terminal_runs_in_the_work_folder_and_its_output_is_the_tools() {
    let place = Place::new();
    let mut agent = place.start("").await;
    agent.prompt("terminal pwd; echo wrong >&2; exit 4").await;
    agent.turn_over().await;
    let said: Value = serde_json::from_str(agent.said().last().unwrap()).unwrap();
    assert_eq!(said["status"]["exitCode"], 4);
    assert_eq!(said["output"], format!("{}\nwrong\n", place.folder().display()));
    let tool = agent.parts().into_iter().find(|part| part["type"] == "tool").unwrap();
    assert_eq!((&tool["state"]["status"], &tool["state"]["output"]), (&json!("completed"), &said["output"]));
}

#[tokio::test]
async fn what_a_terminal_wrote_before_a_tool_shows_it_is_the_tools_too() {
    let place = Place::new();
    let mut agent = place.start("").await;
    agent.prompt("late news").await;
    agent.turn_over().await;
    let tool = agent.parts().into_iter().find(|part| part["type"] == "tool").unwrap();
    assert_eq!(tool["state"]["output"], "news\n");
}

#[tokio::test]
async fn who_waits_for_the_end_of_a_terminal_is_told_when_it_is_released() {
    let place = Place::new();
    let mut agent = place.start("").await;
    agent.prompt("release").await;
    assert_eq!(agent.turn_over().await, "completed");
    let said: Value = serde_json::from_str(agent.said().last().unwrap()).unwrap();
    assert_eq!(said["status"]["exitCode"], 128 + 15);
    assert!(said["again"]["message"].as_str().unwrap().contains("there is no terminal"), "{said}");
}

#[tokio::test]
async fn a_command_that_writes_much_is_shown_now_and_then_and_in_full_at_its_end() {
    let place = Place::new();
    let mut agent = place.start("").await;
    agent.prompt("terminal seq 100000").await;
    agent.turn_over().await;
    let tool = agent.parts().into_iter().find(|part| part["type"] == "tool").unwrap();
    let output = tool["state"]["output"].as_str().unwrap();
    assert!(output.starts_with("1\n2\n") && output.ends_with("\n100000\n"), "{} bytes", output.len());
    // It was read in pieces of at most 8 KiB.
    let pieces = output.len() / (8 * 1024);
    assert!(agent.tool_updates < pieces * 3 / 4, "{} updates of {pieces} pieces", agent.tool_updates);
}

#[tokio::test]
async fn a_terminal_that_is_killed_keeps_what_it_wrote_and_says_how_it_ended() {
    let place = Place::new();
    let mut agent = place.start("").await;
    agent.prompt("kill").await;
    agent.turn_over().await;
    let said: Value = serde_json::from_str(agent.said().last().unwrap()).unwrap();
    let status = json!({ "exitCode": 128 + 15, "signal": "15" });
    assert_eq!(said, json!([status, { "output": "said\n", "truncated": false, "exitStatus": status }]));
}
