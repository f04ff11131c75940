//! Search over HTTP, in process and by the client.

use std::collections::BTreeSet;

use gastown_relay::{
    ApiError, RelayApi,
    client::{Client, Credentials, Token},
    server::RelayConfig,
};
use protocol::{
    ErrorCode, LogId, NewEvent, limits,
    search::{Search, TextKind},
};
use serde_json::{Value, json};
use store::{
    Append, AppendError, Appended, Bounds, EventStore, LogSummary, MemoryStore, Page, ProducerState,
    ReadError, ReadLimit, RetentionPolicy, Snapshot, StoreError, Tail,
};

use crate::support::{Server, event, http, within};

#[tokio::test]
async fn an_answer_has_the_documented_shape() {
    let server = Server::start().await;
    server.say("a1", "cargo test", "error[E0382]: borrow of moved value").await;
    let answer = server.get("/v1/search?q=borrow+mov*&agent=a1&type=tool&since=2000-01-01T00:00:00Z").await;
    assert_eq!(answer.headers()["cache-control"], "no-store");
    let answer: Value = within(answer.json()).await.unwrap();
    let hit = &answer["hits"][0];
    assert_eq!(hit["epoch"].as_str().map(str::len), Some(16));
    let expected = json!({ "hits": [{
        "log": "agent/a1", "epoch": hit["epoch"], "seq": 1, "time": "2026-11-20T18:23:04.413Z", "type": "tool",
        "key": "part/m1/p1", "tool": "bash", "title": "bash: Test", "field": "output",
        "snippet": [{ "text": "error[E0382]: " }, { "text": "borrow", "hit": true }, { "text": " of " },
            { "text": "moved", "hit": true }, { "text": " value" }],
    }]});
    assert_eq!(answer, expected);
}

#[tokio::test]
async fn p17_nobody_finds_what_he_may_not_read() {
    let server = Server::start().await;
    for agent in ["a1", "a2"] {
        server.say(agent, "ls", "alpha").await;
    }
    let share = server.share("a1", "s1").await;
    let as_share = async |query: &str| {
        let get = http().get(server.http(&format!("/v1/search?q=alpha{query}"))).bearer_auth(share.expose());
        within(get.send()).await.unwrap()
    };
    let found: Value = within(as_share("").await.json()).await.unwrap();
    let logs: Vec<&Value> = found["hits"].as_array().unwrap().iter().map(|hit| &hit["log"]).collect();
    assert_eq!(logs, ["agent/a1"]);
    assert_eq!(as_share("&agent=a1").await.status(), 200);
    for query in ["&agent=a2", "&agent=a1,a2", "&log=agent/a2", "&log=town/main"] {
        assert_eq!(as_share(query).await.status(), 403, "{query}");
    }
}

#[tokio::test]
async fn p20_no_query_is_more_than_a_bad_request() {
    let server = Server::start().await;
    server.say("a1", "ls", "alpha").await;
    for query in [
        "",
        "?q=",
        "?q=%22",
        "?q=a*",
        "?q=alpha&limit=0",
        "?q=alpha&limit=51",
        "?q=alpha&limit=x",
        "?q=alpha&type=x",
        "?q=alpha&since=x",
        "?q=alpha&before=-1",
        "?q=alpha&agent=",
        "?q=alpha&log=x",
        "?q=%ff",
    ] {
        let answer = server.get(&format!("/v1/search{query}")).await;
        assert_eq!(answer.status(), 400, "{query}");
        assert_eq!(answer.headers()["content-type"], "application/problem+json", "{query}");
    }
    for query in
        ["alpha%20OR", "NEAR(alpha)", "%22alpha", "alpha:*", "-alpha", "alpha%00", "al*pha", "%27;--alpha"]
    {
        let answer = server.get(&format!("/v1/search?q={query}")).await;
        assert_eq!(answer.status(), 200, "{query}");
    }
    let most = limits::SEARCH_HITS_MAX;
    assert_eq!(server.get(&format!("/v1/search?q=alpha&limit={most}")).await.status(), 200);
}

#[tokio::test]
async fn over_the_network_as_in_process_and_page_by_page() {
    for server in [Server::start().await, Server::on_disk().await] {
        for n in 0..9 {
            server.say(["a1", "a2"][n % 2], "ls", &format!("alpha {n}")).await;
        }
        let token = Credentials::bearer(Token::new(server.operator().expose()));
        let client = Client::new(&server.http(""), token).unwrap();
        let search =
            Search { limit: 4, kinds: [TextKind::Tool].into(), ..Search::of("alpha".parse().unwrap()) };
        let near = pages(&server.relay, search.clone()).await;
        assert_eq!(near.len(), 9);
        assert_eq!(pages(&client, search.clone()).await, near);
        let logs: BTreeSet<LogId> = ["agent/a2".parse().unwrap()].into();
        let of_one = Search { logs: Some(logs), ..search.clone() };
        assert_eq!(pages(&server.relay, of_one.clone()).await.len(), 4);
        assert_eq!(pages(&client, of_one).await.len(), 4);
        let of_none = Search { logs: Some(BTreeSet::new()), ..search };
        assert_eq!(pages(&server.relay, of_none.clone()).await, []);
        assert_eq!(pages(&client, of_none).await, []);
    }
}

#[tokio::test]
async fn a_store_that_cannot_search_says_so() {
    let server =
        Server::with(Plain(MemoryStore::new(RetentionPolicy::default())), RelayConfig::default()).await;
    let answer = server.get("/v1/search?q=alpha").await;
    assert_eq!(answer.status(), 501);
    let answer: Value = within(answer.json()).await.unwrap();
    assert_eq!(answer["error"]["code"], "unsupported");
    let error = server.relay.search(&Search::of("alpha".parse().unwrap())).await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::Unsupported));
}

impl Server {
    /// A tool call of an agent that is over.
    async fn say(&self, agent: &str, command: &str, output: &str) {
        let log: LogId = format!("agent/{agent}").parse().unwrap();
        let n =
            self.relay.search(&Search::of("bash".parse().unwrap())).await.map_or(0, |found| found.hits.len());
        let state = json!({ "status": "completed", "input": { "command": command }, "output": output, "title": "Test" });
        let part = json!({ "id": format!("p{}", n + 1), "messageID": "m1", "type": "tool", "tool": "bash", "state": state });
        let event: NewEvent = event("message.part.updated", &json!({ "part": part }));
        self.relay.append(&log, vec![event]).await.unwrap();
    }
}

/// Log and position of every hit.
async fn pages(relay: &impl RelayApi, mut search: Search) -> Vec<(LogId, u64)> {
    let mut hits = Vec::new();
    loop {
        let found = match relay.search(&search).await {
            Ok(found) => found,
            Err(ApiError::Refused(detail)) => panic!("{}", detail.message),
            Err(error) => panic!("{error}"),
        };
        hits.extend(found.hits.into_iter().map(|hit| (hit.log, hit.seq.get())));
        search.before = found.next;
        if search.before.is_none() {
            return hits;
        }
    }
}

/// A store that keeps the contract and no more.
#[derive(Debug)]
struct Plain(MemoryStore);

#[async_trait::async_trait]
impl EventStore for Plain {
    async fn append(&self, log: &LogId, batch: Append) -> Result<Appended, AppendError> {
        self.0.append(log, batch).await
    }
    async fn read(&self, log: &LogId, after: protocol::Seq, limit: ReadLimit) -> Result<Page, ReadError> {
        self.0.read(log, after, limit).await
    }
    async fn bounds(&self, log: &LogId) -> Result<Bounds, ReadError> {
        self.0.bounds(log).await
    }
    fn tail(&self, log: &LogId) -> Tail {
        self.0.tail(log)
    }
    async fn producer(&self, log: &LogId) -> Result<Option<ProducerState>, ReadError> {
        self.0.producer(log).await
    }
    async fn snapshot(&self, log: &LogId) -> Result<Option<Snapshot>, ReadError> {
        self.0.snapshot(log).await
    }
    async fn put_snapshot(&self, log: &LogId, snapshot: Snapshot) -> Result<(), ReadError> {
        self.0.put_snapshot(log, snapshot).await
    }
    async fn remove(&self, log: &LogId) -> Result<(), StoreError> {
        self.0.remove(log).await
    }
    async fn list(&self) -> Result<Vec<LogSummary>, StoreError> {
        self.0.list().await
    }
    async fn prune_idle(&self, now: protocol::Timestamp) -> Result<u64, StoreError> {
        self.0.prune_idle(now).await
    }
}
