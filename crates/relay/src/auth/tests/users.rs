//! What was got with a user token ends with it.

use super::*;

#[tokio::test]
async fn p17_what_a_user_token_opened_ends_when_it_is_revoked_and_what_it_made_is_good_for_nothing() {
    let town = Town::new();
    let journal = town.follow_journal();
    journal.say("town.token.issued", &issued("t1", None)).await;
    journal.say("town.token.issued", &issued("t2", None)).await;
    town.shares.known(&main(), "t2").await;
    let [client, ticket, unused] = [town.client("t1"), town.user_ticket("t1"), town.user_ticket("t1")];
    let streams = [town.bearer(&client, 1).unwrap(), town.ticket(&ticket, None, 1).unwrap()];
    let other = town.bearer(&town.client("t2"), 1).unwrap();
    for grant in &streams {
        assert_eq!(grant.user.as_deref(), Some("t1"));
        assert!(grant.lease.is_limited() && !grant.lease.is_over());
    }

    journal.say("town.token.revoked", &json!({ "token": "t1", "name": "ann" })).await;
    town.shares.gone(&main(), "t1").await;
    assert!(streams.iter().all(|grant| grant.lease.is_over()));
    assert_eq!(town.bearer(&client, 2).unwrap_err(), AuthError::Revoked);
    assert_eq!(town.ticket(&unused, None, 2).unwrap_err(), AuthError::Revoked);
    assert!(!other.lease.is_over() && town.bearer(&town.client("t2"), 2).is_ok(), "another's goes on");
    journal.end().await;
}

#[tokio::test(start_paused = true)]
async fn p17_what_a_user_token_opened_ends_when_its_time_is_over() {
    let town = Town::new();
    let journal = town.follow_journal();
    journal.say("town.token.issued", &issued("t1", Some(30_000))).await;
    town.shares.known(&main(), "t1").await;
    let begun = tokio::time::Instant::now();
    town.bearer(&town.client("t1"), 10_000).unwrap().lease.ended().await;
    let lasted = begun.elapsed().as_millis();
    assert!((20_000..20_100).contains(&lasted), "{lasted}");
    assert_eq!(town.bearer(&town.client("t1"), 30_000).unwrap_err(), AuthError::Expired);
    journal.end().await;
}

#[tokio::test]
async fn p17_a_user_token_is_refused_as_long_as_its_journal_was_not_read() {
    let town = Town::new();
    let refused = town.bearer(&town.client("t1"), 0).unwrap_err();
    assert_eq!((refused, refused.code()), (AuthError::NoJournal, ErrorCode::Draining), "for now");
    let journal = town.follow_journal();
    town.shares.ready().await;
    assert_eq!(town.bearer(&town.client("t1"), 0).unwrap_err(), AuthError::NoJournal, "there is none");
    journal.say("town.token.issued", &issued("t2", None)).await;
    town.shares.known(&main(), "t2").await;
    assert_eq!(town.bearer(&town.client("t1"), 0).unwrap_err(), AuthError::Revoked, "for good");
    journal.end().await;
}

#[tokio::test]
async fn after_a_restart_the_book_is_ready_once_it_knows_what_the_journal_tells() {
    let town = Town::new();
    let journal = town.follow_journal();
    journal.say("town.token.issued", &issued("t1", None)).await;
    journal.say("town.token.issued", &issued("t2", None)).await;
    journal.say("town.token.revoked", &json!({ "token": "t1", "name": "ann" })).await;
    let again = Arc::new(CredentialBook::default());
    let (book, store, end) = (again.clone(), journal.store.clone(), journal.end.clone());
    let following = tokio::spawn(async move { book.follow(store, end).await });
    again.ready().await;
    assert!(again.user_lease(&main(), "t2", at(0)).is_ok());
    assert_eq!(again.user_lease(&main(), "t1", at(0)).unwrap_err(), AuthError::Revoked);
    journal.end().await;
    following.await.unwrap();
}

impl super::Town {
    /// A client token that the worker made for a user.
    fn client(&self, user: &str) -> Secret {
        self.keys.sign(&Claims::Client(ClientClaims {
            town: main(),
            subject: "user ann".into(),
            capabilities: READ.into(),
            user: Some(user.to_owned()),
            expires: at(60_000),
        }))
    }

    /// A ticket that it made for a user.
    fn user_ticket(&self, user: &str) -> Secret {
        let lease = self.shares.user_lease(&main(), user, at(0)).unwrap();
        let issuer = Grant { user: Some(user.to_owned()), lease, ..self.operator() };
        let logs = ["agent/a1".parse().unwrap()].into();
        self.book.issue(&self.keys, &issuer, logs, &READ.into(), None, at(0)).unwrap()
    }
}

fn issued(id: &str, expires_ms: Option<u64>) -> Value {
    json!({ "token": id, "name": id, "scope": "read", "digest": "d", "issued": at(0), "expires": expires_ms.map(at) })
}
