//! P20: no input holds the thread that serves it for more than 100 ms.

use std::{thread, time::Duration};

use gastown_relay::RelayApi as _;
use protocol::limits;
use serde_json::json;
use tokio::{
    runtime,
    sync::oneshot,
    time::{Instant, MissedTickBehavior, interval},
};

use crate::support::{Server, event, http, within};

/// What P20 allows.
const LONGEST: Duration = Duration::from_millis(100);
/// Between two looks at the time.
const TICK: Duration = Duration::from_millis(5);

#[tokio::test]
async fn p20_the_costliest_input_holds_the_thread_that_serves_it_for_less_than_100_ms() {
    let (server, watched) = Watched::start().await;
    let mut costly = Vec::new();
    for (name, data) in costly_data() {
        let event = json!({"time": "2026-11-20T18:10:16.123Z", "type": "message.part.updated", "data": null});
        let event = event.to_string().replace("null", &data);
        let frame = format!(r#"{{"type":"append","first":1,"events":[{event}]}}"#);
        assert!(frame.len() <= limits::INGEST_FRAME_BYTES, "{name}: {}", frame.len());
        let mut wrapper = server.wrapper(name, "p1", 1).await;
        wrapper.send_message(frame.into()).await;
        let answer = wrapper.next_or_close().await;
        costly.push((format!("{name} on a link: {answer:.80?}"), watched.longest().await));
        let body = format!(r#"{{"events":[{event}]}}"#);
        let post = http().post(server.http(&format!("/v1/agents/{name}/events")));
        let status =
            within(post.bearer_auth(server.operator().expose()).body(body).send()).await.unwrap().status();
        costly.push((format!("{name} posted: {status}"), watched.longest().await));
    }
    // A log that is full, of what a fold has most work with.
    fill(&server, "agent/full").await;
    watched.longest().await;
    let words = (0..limits::SEARCH_WORDS).map(|n| format!("{}*", &"everything"[..2 + n % 4]));
    let query = words.collect::<Vec<_>>().join("+");
    let types = ["*"; 64].join(",");
    for path in [
        "/v1/agents/full/view".to_owned(),
        format!("/v1/agents/full/events?limit=1000&types={types}"),
        format!("/v1/search?limit=50&q={query}"),
    ] {
        let answer = server.get(&path).await;
        let (status, len) = (answer.status(), within(answer.bytes()).await.unwrap().len());
        costly.push((format!("{path:.60}: {status}, {len} bytes"), watched.longest().await));
    }
    let mut viewer = server.stream("/v1/agents/full/stream").await;
    viewer.until("live").await;
    costly.push(("the whole log on a stream".to_owned(), watched.longest().await));
    for frame in ["[".repeat(limits::VIEWER_FRAME_BYTES), "\u{1}".repeat(limits::VIEWER_FRAME_BYTES)] {
        let mut viewer = server.stream("/v1/stream").await;
        viewer.next().await;
        viewer.send_message(frame.into()).await;
        viewer.close_code().await;
        costly.push(("a frame of nonsense".to_owned(), watched.longest().await));
    }
    let too_long = costly.iter().filter(|(_, held)| *held > LONGEST).collect::<Vec<_>>();
    assert!(too_long.is_empty(), "{too_long:#?} of {costly:#?}");
    drop(server);
    watched.end();
}

/// Appends one session of as many long texts as a log has room for.
async fn fill(server: &Server, log: &str) {
    let text = "every word of it is looked for ".repeat(128);
    for n in 0..limits::LOG_EVENTS / 200 {
        let message = format!("msg_{n}");
        let info = json!({"id": message, "sessionID": "s", "role": "assistant", "time": {"created": n}});
        let mut events = vec![event("message.updated", &json!({ "info": info }))];
        events.extend((1..200).map(|part| {
            let (id, time) = (format!("prt_{n}_{part}"), json!({"start": 1, "end": 2}));
            let part = json!({"id": id, "messageID": message, "sessionID": "s", "type": "text", "text": text, "time": time});
            event("message.part.updated", &json!({ "part": part }))
        }));
        for event in &mut events {
            event.session = Some("s".into());
        }
        server.relay.append(&log.parse().unwrap(), events).await.unwrap();
    }
}

/// Data of about a mebibyte that costs a reader of JSON most.
fn costly_data() -> Vec<(&'static str, String)> {
    let bytes = limits::EVENT_DATA_HARD_BYTES - 4096;
    let repeat = |piece: &str| piece.repeat(bytes / piece.len());
    let list = |piece: &str| format!("[{}null]", repeat(&format!("{piece},")));
    let nest = format!("{}{}", "[".repeat(100), "]".repeat(100));
    let keys = (0..bytes / 12).map(|n| format!("\"{n:07}\":0,")).collect::<String>();
    let part = |text: String| {
        format!(
            r#"{{"part":{{"id":"p","messageID":"m","sessionID":"s","type":"text","time":{{"end":1}},"text":"{text}"}}}}"#
        )
    };
    vec![
        ("nested", list(&nest)),
        ("keys", format!("{{{keys}\"end\":0}}")),
        ("numbers", list("1e300")),
        ("escapes", part(repeat("\\u0001"))),
        ("words", part(repeat("ab cd efg "))),
    ]
}

/// A thread that serves a relay, and the longest time for which a task or a system call held it.
struct Watched {
    ask: tokio::sync::mpsc::Sender<oneshot::Sender<Duration>>,
    thread: thread::JoinHandle<()>,
}

impl Watched {
    async fn start() -> (Server, Self) {
        let (ready, server) = oneshot::channel();
        let (ask, asked) = tokio::sync::mpsc::channel(1);
        let thread = thread::spawn(move || {
            let runtime = runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                ready.send(Server::on_disk().await).unwrap_or_else(|_| panic!("the test waits for it"));
                watch(asked).await;
            });
        });
        (within(server).await.unwrap(), Self { ask, thread })
    }

    /// The longest time since this was asked last.
    async fn longest(&self) -> Duration {
        let (tell, told) = oneshot::channel();
        self.ask.send(tell).await.unwrap();
        within(told).await.unwrap()
    }

    fn end(self) {
        drop(self.ask);
        self.thread.join().unwrap();
    }
}

/// Looks at the time again and again, as often as the thread lets it. Time for which the thread was ready and others had
/// the processor is the machine's, and is not counted.
async fn watch(mut asked: tokio::sync::mpsc::Receiver<oneshot::Sender<Duration>>) {
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut longest = Duration::ZERO;
    let mut last = (Instant::now(), waited_for_processor());
    loop {
        let tell: Option<oneshot::Sender<Duration>> = tokio::select! {
            biased;
            _ = ticks.tick() => None,
            asked = asked.recv() => match asked {
                Some(tell) => Some(tell),
                None => return,
            },
        };
        let now = (Instant::now(), waited_for_processor());
        longest = longest.max((now.0 - last.0).saturating_sub(now.1 - last.1));
        last = now;
        if let Some(tell) = tell {
            // Whoever gave up needs no telling.
            let _ = tell.send(std::mem::take(&mut longest));
        }
    }
}

/// Time that this thread has waited for a processor (Linux, `Documentation/scheduler/sched-stats.rst`).
fn waited_for_processor() -> Duration {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    Duration::from_nanos(stat.split(' ').nth(1).and_then(|waited| waited.parse().ok()).unwrap_or_default())
}
