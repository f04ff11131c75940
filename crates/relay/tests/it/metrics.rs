//! `/metrics`: what it counts, and that document, dashboard and alerts speak of the same metrics.

use std::collections::{BTreeMap, BTreeSet};

use gastown_relay::server::RelayConfig;
use serde_json::json;
use store::{MemoryStore, Retention, RetentionPolicy};

use crate::support::{Server, append, http, within};

#[tokio::test]
async fn metrics_count_what_passes() {
    let server = open(RetentionPolicy::default()).await;
    let mut wrapper = server.wrapper("a1", "p1", 1).await;
    let mut viewer = server.stream("/v1/agents/none/stream").await;
    assert_eq!(viewer.close_code().await, 4404);
    wrapper.send(&append(1, &["1", "2"])).await;
    wrapper.next().await;
    let mut viewer = server.stream("/v1/agents/a1/stream").await;
    viewer.until("live").await;
    wrapper.send(&append(3, &["3"])).await;
    wrapper.next().await;
    viewer.until("events").await;
    assert_eq!(within(http().get(server.http("/v1/agents/a1/view")).send()).await.unwrap().status(), 401);
    let found = server.metrics().await;
    for (name, value) in [
        ("gastown_relay_events_in_total", 3.0),
        ("gastown_relay_append_events_count", 2.0),
        ("gastown_relay_append_events_sum", 3.0),
        ("gastown_relay_append_events_bucket{le=\"1\"}", 1.0),
        ("gastown_relay_append_events_bucket{le=\"2\"}", 2.0),
        ("gastown_relay_append_seconds_count", 2.0),
        ("gastown_relay_appends_failed_total", 0.0),
        ("gastown_relay_events_out_total", 3.0),
        ("gastown_relay_deliver_seconds_bucket{le=\"+Inf\"}", found["gastown_relay_deliver_seconds_count"]),
        ("gastown_relay_viewers_catching_up", 0.0),
        ("gastown_relay_links", 1.0),
        ("gastown_relay_gaps_total", 0.0),
        ("gastown_relay_refused_total{code=\"unauthenticated\"}", 1.0),
        ("gastown_relay_closes_total{code=\"4404\"}", 1.0),
    ] {
        assert_eq!(found.get(name), Some(&value), "{name} in {found:#?}");
    }
    for name in [
        "gastown_relay_deliver_seconds_count",
        "gastown_relay_bytes_in_total",
        "gastown_relay_bytes_out_total",
    ] {
        assert!(found[name] >= 1.0, "{name} in {found:#?}");
    }
}

#[tokio::test]
async fn a_page_counts_as_a_stream_does() {
    let server = open(RetentionPolicy::default()).await;
    server.append("agent/a1", &["1", "2"]).await;
    let page = server.get("/v1/agents/a1/events?after=7").await.text().await.unwrap();
    let found = server.metrics().await;
    for (name, value) in [
        ("gastown_relay_events_out_total", 2.0),
        ("gastown_relay_bytes_out_total", page.len() as f64),
        ("gastown_relay_gaps_total", 1.0),
    ] {
        assert_eq!(found.get(name), Some(&value), "{name} in {found:#?}");
    }
}

#[tokio::test]
async fn gaps_commands_and_what_was_not_committed_are_counted() {
    let server = open(RetentionPolicy {
        agent: Retention { events: 3, ..Retention::AGENT },
        ..RetentionPolicy::default()
    })
    .await;
    for n in 0..100 {
        server.append("agent/a1", &[&n.to_string()]).await;
    }
    server.stream("/v1/agents/a1/stream?after=1").await.until("gap").await;
    let command = http().post(server.http("/v1/agents/a1/commands")).bearer_auth(server.operator().expose());
    within(command.json(&json!({"type": "ping"})).send()).await.unwrap();
    let hole = json!({"producer": "p1", "generation": 1, "first": 1, "events": append(1, &["1"])["events"]});
    for (first, status) in [(1, 200), (9, 400)] {
        let mut body = hole.clone();
        body["first"] = json!(first);
        let post = http().post(server.http("/v1/agents/a2/events")).bearer_auth(server.operator().expose());
        assert_eq!(within(post.json(&body).send()).await.unwrap().status(), status);
    }
    let found = server.metrics().await;
    for name in
        ["gastown_relay_gaps_total", "gastown_relay_commands_total", "gastown_relay_appends_failed_total"]
    {
        assert_eq!(found[name], 1.0, "{name}");
    }
}

#[tokio::test]
async fn a_viewer_that_has_gone_is_counted_no_longer() {
    let server = open(RetentionPolicy::default()).await;
    server.append("agent/a1", &["1"]).await;
    let mut viewer = server.stream("/v1/agents/a1/stream").await;
    viewer.until("live").await;
    assert_eq!(server.metrics().await["gastown_relay_viewers"], 1.0);
    drop(viewer);
    let gone = async { while server.metrics().await["gastown_relay_viewers"] > 0.0 {} };
    within(gone).await;
}

#[tokio::test]
async fn the_document_describes_every_metric_and_the_dashboard_and_the_alerts_know_no_other() {
    let server = open(RetentionPolicy::default()).await;
    let text = server.metrics_text().await;
    let kinds = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    let families = kinds.collect::<BTreeMap<_, _>>();
    let document = include_str!("../../../../docs/operations.md");
    for name in families.keys() {
        assert!(document.contains(&format!("`{name}`")), "docs/operations.md does not describe {name}");
    }
    let is_known = |name: &str| {
        let of_histogram = ["_bucket", "_sum", "_count"].iter().filter_map(|end| name.strip_suffix(end));
        families.contains_key(name)
            || of_histogram.into_iter().any(|base| families.get(base) == Some(&"histogram"))
    };
    let dashboard = include_str!("../../../../docs/grafana-dashboard.json");
    serde_json::from_str::<serde_json::Value>(dashboard).expect("the dashboard is JSON");
    for (file, text) in [
        ("operations.md", document),
        ("grafana-dashboard.json", dashboard),
        ("alerts.yaml", include_str!("../../../../docs/alerts.yaml")),
    ] {
        let named = names(text);
        assert!(!named.is_empty(), "docs/{file} names metrics");
        let unknown = named.iter().filter(|name| !is_known(name)).collect::<Vec<_>>();
        assert!(unknown.is_empty(), "docs/{file} names what is no metric: {unknown:?}");
    }
    let shown = names(dashboard);
    let hidden = families.keys().filter(|name| !shown.iter().any(|shown| shown.starts_with(**name)));
    assert_eq!(hidden.collect::<Vec<_>>(), Vec::<&&str>::new(), "the dashboard shows everything");
}

async fn open(retention: RetentionPolicy) -> Server {
    Server::with(MemoryStore::new(retention), RelayConfig::default().with_open_metrics()).await
}

/// The names of metrics in a text.
fn names(text: &str) -> BTreeSet<&str> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    let is_metric =
        |word: &&str| ["gastown_relay_", "gastown_store_", "process_"].iter().any(|p| word.starts_with(p));
    words.filter(is_metric).collect()
}

impl Server {
    async fn metrics_text(&self) -> String {
        within(http().get(self.http("/metrics")).send()).await.unwrap().text().await.unwrap()
    }

    /// Every line's name, with its labels, and its value.
    async fn metrics(&self) -> BTreeMap<String, f64> {
        let text = self.metrics_text().await;
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let pair = |line: &str| {
            let (name, value) = line.rsplit_once(' ').unwrap();
            (name.to_owned(), value.parse().unwrap())
        };
        lines.map(pair).collect()
    }
}
