use std::{
    sync::{Arc, Barrier},
    time::Duration,
};

use protocol::{AgentId, NewEvent, Timestamp, limits};
use serde_json::{Value, json};
use store::{Append, EventStore, MemoryStore, RetentionPolicy};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::*;

mod users;

#[test]
fn p17_a_wrapper_token_reaches_its_own_log_and_brings_in_its_own_generation() {
    let town = Town::new();
    let grant = town.bearer(&town.wrapper(3), 0).unwrap();
    assert_eq!((grant.generation, &grant.town), (Some(3), &"main".parse().unwrap()));
    for (capability, log, allowed) in [
        (Capability::Ingest, "agent/a1", true),
        (Capability::Read, "agent/a1", true),
        (Capability::Steer, "agent/a1", false),
        (Capability::Admin, "agent/a1", false),
        (Capability::Ingest, "agent/a2", false),
        (Capability::Read, "agent/a2", false),
        (Capability::Read, "town/main", false),
    ] {
        assert_eq!(grant.allows(capability, &log.parse().unwrap()), allowed, "{capability:?} {log}");
    }
}

#[test]
fn p17_what_is_not_known_is_refused() {
    let town = Town::new();
    let nothing = Credentials::default();
    assert_eq!(town.authority.authenticate(&nothing, at(0)).unwrap_err(), AuthError::Missing);
    let cookie = Credentials { cookie: Some("gastown_session=x"), ..nothing };
    assert_eq!(town.authority.authenticate(&cookie, at(0)).unwrap_err(), AuthError::Missing);
    let of_another_key = Keys::random().sign(&town.claims(3));
    let mut changed = town.wrapper(3).expose().to_owned();
    changed.push('A');
    // `alg: none` with the payload of a token that is good.
    let payload = town.wrapper(3).expose().split('.').nth(1).unwrap().to_owned();
    let unsigned = format!("eyJhbGciOiJub25lIn0.{payload}.");
    for token in [of_another_key.expose(), &changed, &unsigned, "", "a.b.c", "x"] {
        assert_eq!(town.bearer(&Secret::new(token), 0).unwrap_err(), AuthError::Invalid);
    }
}

#[test]
fn p17_a_relay_of_one_town_refuses_every_token_of_another_that_its_key_has_signed() {
    let town = Town::new();
    let other = town.authority.clone().with_town("other".parse().unwrap());
    let own = town.authority.clone().with_town("main".parse().unwrap());
    let (token, ticket) = (town.wrapper(3), town.issue(&["agent/a1"], None).unwrap());
    let bearer = Credentials { bearer: Some(token.expose()), ..Credentials::default() };
    let query = Credentials { ticket: Some(ticket.expose()), ..Credentials::default() };
    for credentials in [bearer, query] {
        assert_eq!(other.authenticate(&credentials, at(0)).unwrap_err(), AuthError::ForeignTown);
        assert_eq!(own.authenticate(&credentials, at(0)).unwrap().town.as_str(), "main");
    }
}

#[test]
fn p17_a_token_ends_at_its_time() {
    let town = Town::new();
    assert!(town.bearer(&town.wrapper(3), 59_999).is_ok());
    assert_eq!(town.bearer(&town.wrapper(3), 60_000).unwrap_err(), AuthError::Expired);
}

#[test]
fn p17_a_token_that_is_no_ticket_or_share_is_not_taken_from_the_query() {
    let town = Town::new();
    assert_eq!(town.ticket(&town.wrapper(3), None, 0).unwrap_err(), AuthError::Invalid);
}

#[test]
fn p17_a_share_link_that_no_journal_knows_is_refused() {
    let town = Town::new();
    assert_eq!(town.ticket(&town.share("a1"), None, 0).unwrap_err(), AuthError::Revoked);
}

#[tokio::test]
async fn p17_a_share_link_reads_one_log_until_it_is_revoked() {
    let town = Town::new();
    let share = town.share("a1");
    let journal = town.follow_journal();
    journal.say("town.share.issued", &share_issued("s1", 60_000)).await;
    town.shares.known(&main(), "s1").await;
    let grant = town.ticket(&share, None, 0).unwrap();
    assert!(grant.allows(Capability::Read, &"agent/a1".parse().unwrap()));
    assert!(!grant.allows(Capability::Read, &"agent/a2".parse().unwrap()));
    assert!(!grant.allows(Capability::Read, &"town/main".parse().unwrap()));
    assert!(!grant.has(Capability::Steer));
    assert!(town.ticket(&share, None, 0).is_ok(), "it is not used up");
    assert!(!grant.lease.is_over());
    assert_eq!(town.ticket(&town.share("a2"), None, 0).unwrap_err(), AuthError::Invalid, "another log's");

    journal.say("town.share.revoked", &json!({ "share": "s1" })).await;
    grant.lease.ended().await;
    assert!(grant.lease.is_over());
    assert_eq!(town.ticket(&share, None, 0).unwrap_err(), AuthError::Revoked);
    journal.end().await;
}

#[tokio::test]
async fn p17_a_share_link_ends_with_its_agent_and_with_its_journal() {
    let town = Town::new();
    let journal = town.follow_journal();
    for end in ["town.agent.removed", "the journal is gone"] {
        journal.say("town.share.issued", &share_issued("s1", 60_000)).await;
        town.shares.known(&main(), "s1").await;
        let lease = town.ticket(&town.share("a1"), None, 0).unwrap().lease;
        if end == "town.agent.removed" {
            journal.say(end, &json!({ "agent": "a1", "generation": 1 })).await;
        } else {
            journal.store.remove(&"town/main".parse().unwrap()).await.unwrap();
            journal.say("town.agent.registered", &json!({})).await;
        }
        lease.ended().await;
        assert_eq!(town.ticket(&town.share("a1"), None, 0).unwrap_err(), AuthError::Revoked, "{end}");
    }
    journal.end().await;
}

#[tokio::test(start_paused = true)]
async fn p17_a_share_link_ends_what_it_opened_when_its_time_is_over() {
    let town = Town::new();
    let journal = town.follow_journal();
    journal.say("town.share.issued", &share_issued("s1", 60_000)).await;
    town.shares.known(&main(), "s1").await;
    let begun = tokio::time::Instant::now();
    town.ticket(&town.share("a1"), None, 10_000).unwrap().lease.ended().await;
    let lasted = begun.elapsed().as_millis();
    assert!((50_000..50_100).contains(&lasted), "{lasted}");
    assert_eq!(town.ticket(&town.share("a1"), None, 60_000).unwrap_err(), AuthError::Expired);
    journal.end().await;
}

#[tokio::test]
async fn p18_a_share_link_makes_no_ticket_since_that_could_not_be_taken_back() {
    let town = Town::new();
    let journal = town.follow_journal();
    journal.say("town.share.issued", &share_issued("s1", 60_000)).await;
    town.shares.known(&main(), "s1").await;
    let grant = town.bearer(&town.share("a1"), 0).unwrap();
    let logs = ["agent/a1".parse().unwrap()].into();
    let refused = town.book.issue(&town.keys, &grant, logs, &READ.into(), None, at(0)).unwrap_err();
    assert_eq!(refused, AuthError::Invalid);
    journal.end().await;
}

#[test]
fn p17_a_client_token_does_what_its_holder_may_and_in_its_own_town_only() {
    let town = Town::new();
    let capabilities = [Capability::Read, Capability::Steer, Capability::Ingest].into();
    let claims = ClientClaims {
        town: main(),
        subject: "operator".into(),
        capabilities,
        user: None,
        expires: at(60_000),
    };
    let token = town.keys.sign(&Claims::Client(claims));
    let grant = town.bearer(&token, 0).unwrap();
    assert!(grant.allows(Capability::Steer, &"agent/a1".parse().unwrap()));
    assert!(grant.allows(Capability::Read, &"town/main".parse().unwrap()));
    assert!(!grant.allows(Capability::Read, &"town/other".parse().unwrap()));
    assert!(!grant.has(Capability::Admin) && !grant.has(Capability::Ingest));
    assert_eq!(town.ticket(&token, None, 0).unwrap_err(), AuthError::Invalid, "it is no ticket");
}

#[test]
fn p18_of_100_concurrent_uses_of_a_ticket_one_succeeds() {
    let town = Town::new();
    let ticket = town.issue(&["agent/a1"], None).unwrap();
    let barrier = Barrier::new(100);
    let results = std::thread::scope(|scope| {
        let tries = (0..100).map(|_| {
            scope.spawn(|| {
                barrier.wait();
                town.ticket(&ticket, None, 1)
            })
        });
        let tries = tries.collect::<Vec<_>>();
        tries.into_iter().map(|one| one.join().unwrap()).collect::<Vec<_>>()
    });
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1);
    assert_eq!(results.iter().filter(|result| **result == Err(AuthError::Used)).count(), 99);
}

#[test]
fn p18_a_ticket_lives_for_a_minute() {
    let town = Town::new();
    let ticket = town.issue(&["agent/a1"], None).unwrap();
    assert_eq!(town.ticket(&ticket, None, limits::TICKET_LIFE_MS).unwrap_err(), AuthError::Expired);
    assert!(town.ticket(&ticket, None, limits::TICKET_LIFE_MS - 1).is_ok());
}

#[test]
fn p18_a_ticket_is_bound_to_its_logs_and_capabilities() {
    let town = Town::new();
    let grant = town.ticket(&town.issue(&["agent/a1"], None).unwrap(), None, 0).unwrap();
    assert!(grant.allows(Capability::Read, &"agent/a1".parse().unwrap()));
    assert!(!grant.allows(Capability::Read, &"agent/a2".parse().unwrap()));
    assert!(!grant.has(Capability::Admin), "the issuer has it, and a ticket carries it to nobody");
}

#[test]
fn p18_a_ticket_is_no_bearer_token_and_is_not_used_up_as_one() {
    let town = Town::new();
    let ticket = town.issue(&["agent/a1"], None).unwrap();
    assert_eq!(town.bearer(&ticket, 0).unwrap_err(), AuthError::Invalid);
    assert!(town.ticket(&ticket, None, 0).is_ok());
}

#[test]
fn p18_a_ticket_is_bound_to_its_origin_and_a_wrong_one_does_not_use_it_up() {
    let town = Town::new();
    let ticket = town.issue(&["agent/a1"], Some("http://localhost:1")).unwrap();
    assert_eq!(town.ticket(&ticket, None, 0).unwrap_err(), AuthError::WrongOrigin);
    assert_eq!(town.ticket(&ticket, Some("http://evil.example"), 0).unwrap_err(), AuthError::WrongOrigin);
    assert!(town.ticket(&ticket, Some("http://localhost:1"), 0).is_ok());
}

#[test]
fn p18_no_ticket_reaches_further_than_its_issuer() {
    let town = Town::new();
    let wrapper = town.bearer(&town.wrapper(3), 0).unwrap();
    let issue = |logs: &[&str]| {
        let logs = logs.iter().map(|log| log.parse().unwrap()).collect();
        let steer = [Capability::Read, Capability::Steer].into();
        town.book.issue(&town.keys, &wrapper, logs, &steer, None, at(0))
    };
    assert_eq!(issue(&["agent/a1", "agent/a2"]).unwrap_err(), AuthError::Invalid);
    let grant = town.ticket(&issue(&["agent/a1"]).unwrap(), None, 0).unwrap();
    assert!(!grant.has(Capability::Steer), "the issuer does not have it");
}

#[test]
fn p18_the_thousand_and_first_outstanding_ticket_is_refused_until_one_is_used_or_ends() {
    let town = Town::new();
    let first = town.issue(&["agent/a1"], None).unwrap();
    for _ in 1..limits::TICKETS_OUTSTANDING {
        town.issue(&["agent/a1"], None).unwrap();
    }
    let refused = town.issue(&["agent/a1"], None).unwrap_err();
    assert_eq!((refused, refused.code()), (AuthError::TooManyTickets, ErrorCode::RateLimited));
    town.ticket(&first, None, 0).unwrap();
    town.issue(&["agent/a1"], None).unwrap();
    let grant = town.operator();
    let later = at(limits::TICKET_LIFE_MS);
    town.book
        .issue(&town.keys, &grant, ["agent/a1".parse().unwrap()].into(), &READ.into(), None, later)
        .unwrap();
}

#[test]
fn p18_a_ticket_of_before_the_start_is_refused_since_its_use_is_not_remembered() {
    let town = Town::new();
    let ticket = town.issue(&["agent/a1"], None).unwrap();
    let restarted = JwtAuthority::new(town.keys.clone(), std::sync::Arc::new(TicketBook::new(at(1))));
    let credentials = Credentials { ticket: Some(ticket.expose()), ..Credentials::default() };
    assert_eq!(restarted.authenticate(&credentials, at(2)).unwrap_err(), AuthError::Expired);
}

#[test]
fn p19_no_debug_text_and_no_error_shows_a_secret() {
    let town = Town::new();
    let key = [0xab; 32];
    let keys = Keys::from_bytes(&key);
    let token = keys.sign(&town.claims(3));
    let credentials = Credentials {
        bearer: Some(token.expose()),
        ticket: Some(token.expose()),
        cookie: Some("gastown_session=canary"),
        origin: None,
    };
    let errors = town.authority.authenticate(&credentials, at(0)).unwrap_err();
    let texts = format!("{keys:?} {token:?} {credentials:?} {:?} {errors} {errors:?}", town.authority);
    let hidden = [token.expose(), "canary", "abab", "171, 171"];
    assert!(hidden.iter().all(|secret| !texts.contains(secret)), "{texts}");
}

#[test]
fn a_secret_is_itself_and_nothing_else() {
    let secret = Secret::new("s3cret");
    assert!(secret.is("s3cret"));
    for other in ["", "s3cre", "s3crex", "s3crett"] {
        assert!(!secret.is(other));
    }
    assert_ne!(Secret::random().expose(), Secret::random().expose());
}

#[test]
fn a_key_file_is_made_once_for_its_owner_only() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("signing-key");
    let town = Town::new();
    let token = Keys::load_or_create(&path).unwrap().sign(&town.claims(3));
    assert!(
        Keys::load_or_create(&path).unwrap().verify(token.expose()).is_ok(),
        "the same key is read again"
    );

    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(Keys::load_or_create(&path), Err(KeyError::Permissions { .. })));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    }
    std::fs::write(&path, "not a key").unwrap();
    assert!(matches!(Keys::load(&path), Err(KeyError::Format { .. })));
    assert!(matches!(Keys::load(&dir.path().join("none")), Err(KeyError::File { .. })));
}

const READ: [Capability; 1] = [Capability::Read];

struct Town {
    keys: Keys,
    book: Arc<TicketBook>,
    shares: Arc<CredentialBook>,
    authority: JwtAuthority,
}

impl Town {
    fn new() -> Self {
        let (keys, book) = (Keys::random(), Arc::new(TicketBook::new(at(0))));
        let shares = Arc::new(CredentialBook::default());
        let authority = JwtAuthority::new(keys.clone(), book.clone()).with_book(shares.clone());
        Self { keys, book, shares, authority }
    }

    /// The token of the share link `s1`.
    fn share(&self, agent: &str) -> Secret {
        let log = format!("agent/{agent}").parse().unwrap();
        let claims = ShareClaims { jti: "s1".into(), town: main(), log, expires: at(60_000) };
        self.keys.sign(&Claims::Share(claims))
    }

    fn follow_journal(&self) -> Journal {
        let store: Arc<dyn EventStore> = Arc::new(MemoryStore::new(RetentionPolicy::default()));
        let end = CancellationToken::new();
        let (shares, followed, ended) = (self.shares.clone(), store.clone(), end.clone());
        shares.attend(&main());
        let following = tokio::spawn(async move { shares.follow(followed, ended).await });
        Journal { store, end, following }
    }

    fn claims(&self, generation: u64) -> Claims {
        let agent = "a1".parse::<AgentId>().unwrap();
        Claims::Ingest(WrapperClaims {
            town: "main".parse().unwrap(),
            agent,
            generation,
            expires: at(60_000),
        })
    }

    fn wrapper(&self, generation: u64) -> Secret {
        self.keys.sign(&self.claims(generation))
    }

    fn operator(&self) -> Grant {
        Grant {
            subject: "operator".into(),
            town: "main".parse().unwrap(),
            logs: LogScope::All,
            capabilities: [Capability::Read, Capability::Steer, Capability::Admin].into(),
            generation: None,
            user: None,
            lease: Lease::default(),
        }
    }

    fn issue(&self, logs: &[&str], origin: Option<&str>) -> Result<Secret, AuthError> {
        let logs = logs.iter().map(|log| log.parse().unwrap()).collect();
        let asked = [Capability::Read, Capability::Admin].into();
        self.book.issue(&self.keys, &self.operator(), logs, &asked, origin.map(str::to_owned), at(0))
    }

    fn bearer(&self, token: &Secret, ms: u64) -> Result<Grant, AuthError> {
        let credentials = Credentials { bearer: Some(token.expose()), ..Credentials::default() };
        self.authority.authenticate(&credentials, at(ms))
    }

    fn ticket(&self, token: &Secret, origin: Option<&str>, ms: u64) -> Result<Grant, AuthError> {
        let credentials = Credentials { ticket: Some(token.expose()), origin, ..Credentials::default() };
        self.authority.authenticate(&credentials, at(ms))
    }
}

/// A town's journal that a book of shares follows.
struct Journal {
    store: Arc<dyn EventStore>,
    end: CancellationToken,
    following: JoinHandle<()>,
}

impl Journal {
    async fn say(&self, kind: &str, change: &Value) {
        let data = json!({ "by": { "actor": "operator", "command": "test" }, "change": change });
        let event = NewEvent::of(at(0), kind, &data).unwrap();
        self.store.append(&"town/main".parse().unwrap(), Append::of(vec![event])).await.unwrap();
    }

    async fn end(self) {
        self.end.cancel();
        self.following.await.unwrap();
    }
}

fn share_issued(id: &str, expires_ms: u64) -> Value {
    json!({ "share": id, "agent": "a1", "issued": at(0), "expires": at(expires_ms), "label": "for the review" })
}

fn main() -> TownId {
    "main".parse().unwrap()
}

fn at(ms: u64) -> Timestamp {
    Timestamp::from_unix_ms(1_795_198_984_000).after(Duration::from_millis(ms))
}
