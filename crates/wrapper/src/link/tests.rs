//! A whole link, its outbox on a disk, and a relay that the test plays.

use std::time::Duration;

use protocol::{NewEvent, Seq, frame::ToWrapper};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use super::{
    testing::{Relay, config},
    *,
};
use crate::outbox::OutboxLimits;

#[tokio::test(start_paused = true)]
async fn a_relay_that_does_nothing_but_answer_pings_is_there() {
    let (mut relay, wrapper) = Wrapper::start(OutboxLimits::default());
    let mut peer = relay.welcome().await;
    tokio::select! {
        () = peer.hear_all() => panic!("the link was left"),
        () = sleep(Duration::from_secs(600)) => {}
    }
    assert_eq!(*wrapper.link.handle().state().borrow(), LinkState::Live);
}

#[tokio::test(start_paused = true)]
async fn a_relay_that_takes_nothing_any_more_is_dialled_again() {
    let (mut relay, wrapper) = Wrapper::start(OutboxLimits::default());
    let _deaf = relay.welcome().await;
    wrapper.says_much().await;
    let _peer = relay.welcome().await;
    let mut state = wrapper.link.handle().state();
    state.wait_for(|state| *state == LinkState::Live).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_link_whose_outbox_cannot_be_read_begins_anew() {
    let (mut relay, wrapper) = Wrapper::start(OutboxLimits::default());
    wrapper.push(1).await;
    for file in std::fs::read_dir(wrapper.dir.path()).unwrap() {
        std::fs::File::options().write(true).open(file.unwrap().path()).unwrap().set_len(0).unwrap();
    }
    for _ in 0..2 {
        let mut peer = relay.welcome().await;
        assert_eq!(peer.hear().await.unwrap_err(), "the outbox failed");
    }
}

#[tokio::test(start_paused = true)]
async fn p6_nobody_waits_for_the_acks_of_a_link_that_is_over() {
    let limits = OutboxLimits { bytes: 2_000, ..OutboxLimits::default() };
    let (mut relay, wrapper) = Wrapper::start(limits);
    let mut peer = relay.welcome().await;
    peer.say(&ToWrapper::Superseded).await;
    wrapper.is_superseded().await;
    let begun = Instant::now();
    for _ in 0..100 {
        wrapper.push(1).await;
    }
    assert_eq!(begun.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn what_a_relay_that_takes_nothing_said_last_is_done_when_the_link_is_over() {
    let (mut relay, wrapper) = Wrapper::start(OutboxLimits::default());
    wrapper.push(1).await;
    let mut peer = relay.welcome().await;
    wrapper.says_much().await;
    peer.say(&ToWrapper::Ack { through: 1, seq: Seq::new(1) }).await;
    peer.say(&ToWrapper::Superseded).await;
    wrapper.is_superseded().await;
    assert_eq!(wrapper.outbox.progress().borrow().acked, 1);
}

struct Wrapper {
    link: Link,
    outbox: Outbox,
    dir: TempDir,
}

impl Wrapper {
    /// One with an outbox that holds up no clock, and the relay that it has.
    fn start(limits: OutboxLimits) -> (Relay, Self) {
        let dir = tempfile::tempdir().unwrap();
        let outbox = Outbox::open_in_task(dir.path(), limits).unwrap();
        let (dial, relay) = Relay::new();
        let link = spawn_over(dial, config(), outbox.clone(), Clock::start()).unwrap();
        (relay, Self { link, outbox, dir })
    }

    async fn push(&self, number: u64) {
        let event = NewEvent::of(Timestamp::from_unix_ms(0), "todo.updated", &number).unwrap();
        self.outbox.push(vec![event]).await.unwrap();
    }

    /// More than is on the way at once.
    async fn says_much(&self) {
        let handle = self.link.handle();
        for _ in 0..500 {
            handle.presence(WrapperState::Active, Timestamp::from_unix_ms(0)).await;
        }
    }

    async fn is_superseded(&self) {
        let mut state = self.link.handle().state();
        state.wait_for(|state| *state == LinkState::Superseded).await.unwrap();
    }
}
