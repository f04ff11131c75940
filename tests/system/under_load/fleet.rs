//! Producers and viewers of a relay, and what they sent and saw.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::StreamExt;
use protocol::{AgentId, LogId, Seq, Timestamp, frame::RuntimeInfo};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use relay::{
    Delivery,
    client::{Client, Connection},
};
use tempfile::TempDir;
use tokio::{
    sync::{Notify, watch},
    task::{AbortHandle, JoinSet},
    time::timeout,
};
use tokio_util::task::TaskTracker;
use wrapper::{
    Clock,
    link::{self, Dial, Link, LinkConfig},
    outbox::{Outbox, OutboxLimits},
};

use super::process::{RelayProcess, town};
use crate::{
    life,
    oracle::{Acked, Seen, Sent, Viewer},
    support::{server::PATIENCE, viewer::stored},
};

/// Everyone who uses one relay.
pub(crate) struct Fleet {
    seed: u64,
    producers: Vec<Producer>,
    viewers: Vec<Watcher>,
    tasks: JoinSet<()>,
    /// Producers that may still say something.
    talking: TaskTracker,
    /// Whether producers are to say nothing new.
    quiet: watch::Sender<bool>,
    /// How links get to the relay, if not over TCP alone.
    dial: Option<Arc<dyn Dial>>,
}

struct Producer {
    id: AgentId,
    outbox: Outbox,
    sent: Arc<Mutex<Vec<Sent>>>,
    _link: Link,
    _folder: TempDir,
}

/// A viewer that reads on by itself.
pub(crate) struct Watcher {
    log: LogId,
    name: String,
    seen: Arc<Mutex<Vec<Seen>>>,
    position: watch::Receiver<Seq>,
    /// How its connection stands.
    pub(crate) connection: watch::Receiver<Connection>,
    task: AbortHandle,
}

impl Fleet {
    pub(crate) fn new(seed: u64) -> Self {
        eprintln!("seed {seed}");
        let quiet = watch::Sender::new(false);
        Self {
            seed,
            producers: Vec::new(),
            viewers: Vec::new(),
            tasks: JoinSet::new(),
            talking: TaskTracker::new(),
            quiet,
            dial: None,
        }
    }

    /// Producers that are added from now on reach the relay this way.
    pub(crate) fn link_over(&mut self, dial: Arc<dyn Dial>) {
        self.dial = Some(dial);
    }

    /// Adds producers that reach the relay at this address, each with an agent that says up to so many events at once,
    /// again whenever half of them are acked.
    pub(crate) fn produce(&mut self, relay: &RelayProcess, address: &str, producers: usize, at_once: usize) {
        for _ in 0..producers {
            let number = self.producers.len() as u64;
            let id: AgentId = format!("a{number}").parse().expect("it is an id");
            let folder = tempfile::tempdir().expect("a temporary folder");
            let outbox = Outbox::open(folder.path(), OutboxLimits::default()).expect("it is fresh");
            let config = LinkConfig {
                relay: format!("http://{address}"),
                token: relay.wrapper_token(&id, 1),
                agent: id.clone(),
                town: town(),
                generation: 1,
                runtime: RuntimeInfo { name: "test".to_owned(), version: "1".to_owned() },
                seed: self.seed ^ number,
            };
            let (queue, clock) = (outbox.clone(), Clock::start());
            let link = match &self.dial {
                Some(dial) => link::spawn_over(Arc::clone(dial), config, queue, clock),
                None => link::spawn(config, queue, clock),
            };
            let link = link.expect("the URL is good");
            let sent = Arc::default();
            let talker = Talker {
                id: id.clone(),
                outbox: outbox.clone(),
                sent: Arc::clone(&sent),
                random: StdRng::seed_from_u64(self.seed ^ (number << 8)),
                quiet: self.quiet.subscribe(),
            };
            self.tasks.spawn(self.talking.track_future(talker.talk(at_once)));
            self.producers.push(Producer { id, outbox, sent, _link: link, _folder: folder });
        }
    }

    /// Adds viewers, each of the next producer's log, that go this way.
    pub(crate) fn watch(&mut self, client: &Client, viewers: usize) {
        for _ in 0..viewers {
            let number = self.viewers.len();
            let log = LogId::Agent(self.producers[number % self.producers.len()].id.clone());
            let watcher = Watcher::begin(client, log, format!("viewer {number}"), &mut self.tasks);
            self.viewers.push(watcher);
        }
    }

    pub(crate) fn viewers(&self) -> &[Watcher] {
        &self.viewers
    }

    pub(crate) fn logs(&self) -> Vec<LogId> {
        self.producers.iter().map(|producer| LogId::Agent(producer.id.clone())).collect()
    }

    /// Events that are acked, of all producers.
    pub(crate) fn acked(&self) -> u64 {
        self.producers.iter().map(|producer| producer.outbox.progress().borrow().acked).sum()
    }

    /// Waits until so many more are acked than now.
    pub(crate) async fn acks(&self, more: u64) {
        let wanted = self.acked() + more;
        let moved = Arc::new(Notify::new());
        let mut watching = JoinSet::new();
        for producer in &self.producers {
            let (mut progress, moved) = (producer.outbox.progress(), Arc::clone(&moved));
            watching.spawn(async move {
                while progress.changed().await.is_ok() {
                    moved.notify_one();
                }
            });
        }
        let waiting = async {
            while self.acked() < wanted {
                moved.notified().await;
            }
        };
        timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("{more} more acks do not come"));
    }

    /// Waits until so many events wait in every outbox.
    pub(crate) async fn spooled(&self, events: u64) {
        for producer in &self.producers {
            let mut progress = producer.outbox.progress();
            let waiting = progress.wait_for(|progress| progress.events >= events);
            timeout(PATIENCE, waiting).await.expect("the outbox takes events").expect("the outbox is open");
        }
    }

    /// Waits until so many more are acked, or wait in every outbox: whether anything gets through is not known.
    pub(crate) async fn acks_or_spooled(&self, events: u64) {
        tokio::select! {
            () = self.acks(events) => {}
            () = self.spooled(events) => {}
        }
    }

    /// Ends the noise, and waits until everything is acked.
    pub(crate) async fn quiet(&self) {
        self.quiet.send_replace(true);
        self.talking.close();
        timeout(PATIENCE, self.talking.wait()).await.expect("everyone falls silent");
        for producer in &self.producers {
            let mut progress = producer.outbox.progress();
            let waiting = progress.wait_for(|progress| progress.events == 0);
            let all = timeout(PATIENCE, waiting).await.is_ok();
            assert!(all, "{} is not acked: {:?}", producer.id, producer.outbox.progress().borrow());
        }
    }

    /// Ends the noise, waits until everything is acked and everyone has everything, and judges.
    pub(crate) async fn assert_history_holds(mut self, relay: &RelayProcess) {
        self.quiet().await;
        let client = relay.client();
        for producer in &self.producers {
            let log = LogId::Agent(producer.id.clone());
            let mut history = stored(&client, &log).await;
            let head = history.stored.last().map_or(Seq::ZERO, |event| event.seq);
            for watcher in self.viewers.iter_mut().filter(|watcher| watcher.log == log) {
                watcher.until(head).await;
            }
            let name = producer.outbox.producer().to_string();
            history.acked =
                vec![Acked { producer: name, through: producer.outbox.progress().borrow().acked }];
            history.sent = lock(&producer.sent).clone();
            let of_log = self.viewers.iter().filter(|watcher| watcher.log == log);
            history.viewers = of_log.map(Watcher::history).collect();
            history.verdict().unwrap_or_else(|broken| panic!("{log}, seed {}: {broken}", self.seed));
        }
    }
}

impl Watcher {
    fn begin(client: &Client, log: LogId, name: String, tasks: &mut JoinSet<()>) -> Self {
        let mut follow = client.follow_when_there(log.clone(), None);
        let connection = follow.connection();
        let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let (reached, position) = watch::channel(Seq::ZERO);
        let into = Arc::clone(&seen);
        let task = tasks.spawn(async move {
            while let Some(delivery) = follow.next().await {
                match delivery.expect("no reconnect was refused") {
                    Delivery::Event(event) => {
                        lock(&into).push(Seen::Event((*event).clone()));
                        reached.send_replace(event.seq);
                    }
                    Delivery::Gap { from, to, reason } => lock(&into).push(Seen::Gap { from, to, reason }),
                    Delivery::Subscribed { .. }
                    | Delivery::Live { .. }
                    | Delivery::Presence { .. }
                    | Delivery::Ended { .. }
                    | _ => {}
                }
            }
        });
        Self { log, name, seen, position, connection, task }
    }

    /// Waits until it was given everything up to here.
    pub(crate) async fn until(&mut self, seq: Seq) {
        let waiting = self.position.wait_for(|position| *position >= seq);
        let reached = timeout(PATIENCE, waiting).await.is_ok_and(|reached| reached.is_ok());
        assert!(reached, "{} of {} does not reach {seq}: {:?}", self.name, self.log, self.position.borrow());
    }

    fn history(&self) -> Viewer {
        Viewer { name: self.name.clone(), start: Seq::ZERO, seen: lock(&self.seen).clone(), stayed: true }
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// An agent that says something whenever half of what it said is acked.
struct Talker {
    id: AgentId,
    outbox: Outbox,
    sent: Arc<Mutex<Vec<Sent>>>,
    random: StdRng,
    quiet: watch::Receiver<bool>,
}

impl Talker {
    async fn talk(mut self, at_once: usize) {
        static MARKS: AtomicU64 = AtomicU64::new(0);
        let producer = self.outbox.producer().to_string();
        let mut progress = self.outbox.progress();
        while !*self.quiet.borrow() {
            let events: Vec<_> = (0..self.random.random_range(1..=at_once))
                .map(|_| {
                    let mark = MARKS.fetch_add(1, Ordering::Relaxed);
                    life::event(self.id.as_str(), mark, Timestamp::from_unix_ms(0), &mut self.random)
                })
                .collect();
            let first = progress.borrow().next;
            let sent = events.iter().cloned().zip(first..).map(|(event, pseq)| Sent {
                producer: producer.clone(),
                generation: 1,
                pseq,
                event,
            });
            lock(&self.sent).extend(sent);
            self.outbox.push(events).await.expect("the disk takes it");
            // While no ack comes, it goes on at its own pace: an agent does not know of the relay.
            let half = progress.wait_for(|progress| progress.events <= at_once as u64 / 2);
            tokio::select! {
                _ = half => {}
                _ = self.quiet.changed() => {}
                () = tokio::time::sleep(Duration::from_millis(50)) => {}
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
