//! What an agent server does after a turn: it condenses its session, and writes the message of a commit.

use gastown_wrapper::RuntimeKind;

use super::*;
use crate::wrapper::{SOON, World, is_idle};

#[tokio::test]
async fn the_outcome_of_a_turn_comes_after_all_that_condensing_shows() {
    let place = Place::new(&[]).await;
    let mut world = World::start_with(&json!({}), |_, options| {
        options.runtime = RuntimeKind::Opencode;
        options.agent_bin = Some(place.folder.path().join("server"));
        options.dir = place.work();
        options.guard_command = guard().into_iter().map(|word| word.into_string().unwrap()).collect();
        options.after_turn.condense_on_complete = true;
    })
    .await;
    world.until(is_idle).await;
    message(&place, &json!({ "id": "msg_1", "role": "user", "time": { "created": 1 } }));
    message(&place, &answer("msg_2", None));
    message(&place, &answer("msg_2", Some(3)));
    root(&place, "session.idle");
    summarized(&place).await;
    message(&place, &json!({ "id": "msg_3", "role": "user", "time": { "created": 4 } }));
    message(&place, &answer("msg_4", None));
    message(&place, &answer("msg_4", Some(6)));
    root(&place, "session.compacted");
    root(&place, "session.idle");
    let idles = || world.relay.kinds().iter().filter(|kind| *kind == "session.idle").count();
    world.until(|view| idles() == 2 && is_idle(view)).await;
    let kinds: Vec<String> =
        world.relay.kinds().into_iter().filter(|kind| !kind.starts_with("agent.")).collect();
    let expected = [
        "message.updated",
        "message.updated",
        "message.updated",
        "wrapper.condense.started",
        "message.updated",
        "message.updated",
        "message.updated",
        "session.compacted",
        "wrapper.condense.completed",
        "session.idle",
        "session.idle",
    ];
    assert_eq!(kinds, expected);
    let posts = place.fake.posts();
    let (_, body) = posts.iter().find(|(path, _)| path.ends_with("/summarize")).unwrap();
    assert_eq!(body, &json!({ "providerID": "p", "modelID": "m" }), "the model that answered last");
    world.wrapper.end().await.unwrap();
}

#[tokio::test]
async fn kilo_writes_the_message_of_a_commit_and_opencode_does_not() {
    let place = Place::new(&[]).await;
    let kilo = place.start(Flavour::Kilo, None).await.unwrap();
    assert_eq!(kilo.control.commit_message().await.unwrap(), "feat: a line");
    let work = place.work().canonicalize().unwrap().display().to_string();
    assert!(place.fake.posts().contains(&("/commit-message".to_owned(), json!({ "path": work }))));
    kilo.control.stop().await;
    let place = Place::new(&[]).await;
    let opencode = place.start(Flavour::Opencode, None).await.unwrap();
    let refused = opencode.control.commit_message().await.unwrap_err();
    assert!(matches!(refused, CommandError::Unsupported { .. }), "{refused}");
    opencode.control.stop().await;
}

async fn summarized(place: &Place) {
    let asked = async {
        while !place.fake.posts().iter().any(|(path, _)| path.ends_with("/summarize")) {
            tokio::task::yield_now().await;
        }
    };
    timeout(SOON, asked).await.expect("the server is asked to condense the session");
}

fn answer(id: &str, completed: Option<u64>) -> Value {
    let mut time = json!({ "created": 2 });
    if let Some(completed) = completed {
        time["completed"] = completed.into();
    }
    json!({ "id": id, "role": "assistant", "time": time, "providerID": "p", "modelID": "m" })
}

fn message(place: &Place, info: &Value) {
    let mut info = info.clone();
    info["sessionID"] = ROOT.into();
    say(place, "message.updated", &json!({ "sessionID": ROOT, "info": info }));
}

fn root(place: &Place, kind: &str) {
    say(place, kind, &json!({ "sessionID": ROOT }));
}

fn say(place: &Place, kind: &str, properties: &Value) {
    place.fake.say(&json!({ "id": "e", "type": kind, "properties": properties }).to_string());
}
