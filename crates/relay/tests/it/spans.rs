//! What is traced: a span per connection, subscription, link and append, with who and what; none per event.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex},
};

use tracing::{
    Subscriber,
    field::{Field, Visit},
    span::{Attributes, Id, Record},
};
use tracing_subscriber::{
    Layer,
    layer::{Context, SubscriberExt as _},
    registry::LookupSpan,
};

use crate::support::{Server, append, http, within};

#[tokio::test]
async fn a_connection_a_subscription_a_link_and_an_append_are_spans_that_say_whose() {
    let spans = Spans::default();
    let _recording = tracing::subscriber::set_default(tracing_subscriber::registry().with(spans.clone()));
    let server = Server::start().await;
    let mut wrapper = server.wrapper("a1", "p1", 7).await;
    wrapper.send(&append(1, &["1", "2", "3"])).await;
    assert_eq!(wrapper.next().await["through"], 3);
    let mut viewer = server.stream("/v1/agents/a1/stream").await;
    viewer.until("live").await;
    assert_eq!(server.get("/v1/agents/a1/events").await.status(), 200);
    let sse = http().get(server.http("/v1/agents/a1/events")).bearer_auth(server.operator().expose());
    let sse = within(sse.header("accept", "text/event-stream").send()).await.unwrap();

    let connections = spans.named("connection");
    assert!(connections.iter().all(|span| span.has("peer", "127.0.0.1:") && span.has("conn", "")));
    let numbers = connections.iter().map(|span| span.fields["conn"].clone()).collect::<Vec<_>>();
    assert!(numbers.len() >= 3 && numbers.is_sorted_by(|a, b| a != b), "{numbers:?}");
    let [link] = &spans.named("link")[..] else { panic!("one wrapper came") };
    assert!(link.has("agent", "a1") && link.has("generation", "7"), "{link:?}");
    assert_eq!(link.parent.as_deref(), Some("connection"));
    let viewers = spans.named("viewer");
    assert!(viewers.len() == 1 && viewers[0].has("subject", "service test"), "{viewers:?}");
    assert_eq!(viewers[0].parent.as_deref(), Some("connection"));
    let mut transports = Vec::new();
    for span in spans.named("subscription") {
        assert!(span.has("log", "agent/a1"), "{span:?}");
        transports.push(span.fields["transport"].clone());
    }
    transports.sort();
    assert_eq!(transports, ["page", "sse", "websocket"]);
    let appends = spans.named("append");
    let of_events = appends.iter().filter(|span| span.has("events", "3")).collect::<Vec<_>>();
    assert!(
        matches!(&of_events[..], [one] if one.has("log", "agent/a1") && one.has("head", "3")),
        "{appends:?}"
    );

    // Events are counted by metrics: a hundred more, to two readers, are one more append and nothing else.
    let before = spans.count();
    wrapper.send(&append(4, &["x"; 100])).await;
    assert_eq!(wrapper.next().await["through"], 103);
    viewer.until("events").await;
    assert_eq!(spans.count(), before + 1, "{:?}", spans.0.lock().unwrap());
    drop(sse);
    server.stop().await;
}

/// Every span of the relay, in the order in which they were made.
#[derive(Debug, Clone, Default)]
struct Spans(Arc<Mutex<BTreeMap<u64, Span>>>);

#[derive(Debug, Clone)]
struct Span {
    name: &'static str,
    parent: Option<String>,
    fields: BTreeMap<&'static str, String>,
}

impl Span {
    /// Whether a field begins so.
    fn has(&self, field: &str, beginning: &str) -> bool {
        self.fields.get(field).is_some_and(|value| value.starts_with(beginning))
    }
}

impl Spans {
    fn named(&self, name: &str) -> Vec<Span> {
        self.0.lock().unwrap().values().filter(|span| span.name == name).cloned().collect()
    }

    fn count(&self) -> usize {
        self.0.lock().unwrap().len()
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Spans {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        if !attributes.metadata().target().starts_with("gastown_relay") {
            return;
        }
        let parent = context.span(id).and_then(|span| span.parent()).map(|parent| parent.name().to_owned());
        let mut span = Span { name: attributes.metadata().name(), parent, fields: BTreeMap::new() };
        attributes.record(&mut span);
        let mut spans = self.0.lock().unwrap();
        let number = spans.len() as u64;
        spans.insert(number, span);
        if let Some(made) = context.span(id) {
            made.extensions_mut().insert(number);
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        let number = context.span(id).and_then(|span| span.extensions().get::<u64>().copied());
        let mut spans = self.0.lock().unwrap();
        if let Some(span) = number.and_then(|number| spans.get_mut(&number)) {
            values.record(span);
        }
    }
}

impl Visit for Span {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.fields.insert(field.name(), format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.fields.insert(field.name(), value.to_owned());
    }
}
