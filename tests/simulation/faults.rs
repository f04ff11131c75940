//! What befalls a run: drawn from its seed, each fault with its end.

use std::{collections::BTreeMap, time::Duration};

use rand::{RngExt, rngs::StdRng, seq::IndexedRandom};

use crate::{agents::Order, day::Trouble, network::Condition, seeds::Planted};

/// One change of the world.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Change {
    /// The power of the relay's machine goes, and with it what was not synced.
    RelayCrashes,
    RelayStarts,
    /// SIGTERM: it tells everyone, and ends.
    RelayDrains,
    Wrapper(Order),
    /// A machine goes without a word: its connections stay half open.
    WrapperLosesPower {
        agent: usize,
    },
    /// Of connections whose owner begins so.
    Connections {
        owner: String,
        condition: Condition,
    },
    Chop {
        owner: String,
        bytes: usize,
    },
    /// Nothing passes between the relay and this machine; what was sent comes later.
    Partition {
        machine: &'static str,
    },
    Join {
        machine: &'static str,
    },
    /// Messages take up to so long.
    Latency {
        ms: u64,
    },
    DiskFull(bool),
    SyncFails,
    SyncTakes {
        ms: u64,
    },
    /// An agent's time of day jumps.
    ClockJumps {
        agent: usize,
        ms: i64,
    },
    /// Of the agent server whose day it is.
    Server(Trouble),
}

/// A kind of fault.
#[derive(Debug, Clone, Copy)]
enum Kind {
    RelayCrash,
    RelayDrain,
    WrapperKill,
    PowerLoss,
    Move,
    Cut,
    /// A gateway gives up on a relay whose disk is slow.
    Severed,
    Stall,
    HalfOpen,
    Chop,
    Partition,
    Latency,
    DiskFull,
    SyncFailure,
    SlowSync,
    /// Everyone comes back, again and again.
    Storm,
    ClockJump,
}

/// Each kind, and how often it is drawn among the others.
const KINDS: [(Kind, u32); 17] = [
    (Kind::RelayCrash, 10),
    (Kind::RelayDrain, 4),
    (Kind::WrapperKill, 12),
    (Kind::PowerLoss, 4),
    (Kind::Move, 6),
    (Kind::Cut, 10),
    (Kind::Severed, 6),
    (Kind::Stall, 10),
    (Kind::HalfOpen, 6),
    (Kind::Chop, 4),
    (Kind::Partition, 6),
    (Kind::Latency, 3),
    (Kind::DiskFull, 5),
    (Kind::SyncFailure, 4),
    (Kind::SlowSync, 4),
    (Kind::Storm, 4),
    (Kind::ClockJump, 4),
];

/// The kinds of one run: all of them, or a few, since where everything fails at once much never gets so far as to go wrong.
fn mix(random: &mut StdRng, planted: Option<Planted>) -> Vec<(Kind, u32)> {
    // What is planted is to be found by what brings it out.
    if let Some(Planted::NoDedupe) = planted {
        return vec![(Kind::Severed, 1)];
    }
    if random.random_bool(0.5) {
        return KINDS.to_vec();
    }
    let kinds = random.random_range(1..5);
    KINDS.sample(random, kinds).copied().collect()
}

/// What happens when; several changes of one time in their order.
#[derive(Debug, Default)]
pub(crate) struct Schedule(BTreeMap<(Duration, usize), Change>);

impl Schedule {
    /// Faults from the first second on, until `end`.
    pub(crate) fn draw(
        random: &mut StdRng,
        planted: Option<Planted>,
        end: Duration,
        agents: usize,
        viewers: usize,
    ) -> Self {
        let mut schedule = Self::default();
        for agent in 0..agents {
            schedule.at(Duration::ZERO, Change::Wrapper(Order::Start { agent }));
        }
        let mean_ms = random.random_range(200..3_000);
        let kinds = mix(random, planted);
        let mut now = Duration::from_secs(1);
        while now < end {
            let (kind, _) = kinds.choose_weighted(random, |(_, weight)| *weight).expect("there are some");
            schedule.fault(*kind, now, random, agents, viewers);
            now += Duration::from_millis(random.random_range(0..2 * mean_ms));
        }
        schedule
    }

    pub(crate) fn at(&mut self, time: Duration, change: Change) {
        self.0.insert((time, self.0.len()), change);
    }

    /// What is due.
    pub(crate) fn next(&mut self, now: Duration) -> Option<Change> {
        let first = self.0.first_entry()?;
        (first.key().0 <= now).then(|| first.remove())
    }

    /// Something between one agent and its readers fails, until then.
    pub(crate) fn fault_of_the_way(&mut self, now: Duration, end: Duration, random: &mut StdRng) {
        let owner = ["agent/0/", "viewer/"][random.random_range(0..2)].to_owned();
        let connections = |condition| Change::Connections { owner: owner.clone(), condition };
        let machine = ["agents", "viewers"][random.random_range(0..2)];
        let (fault, mended) = match random.random_range(0..11) {
            0 => (Change::RelayCrashes, Change::RelayStarts),
            1 => return self.at(now, Change::RelayDrains),
            2 | 3 => (Change::Wrapper(Order::Kill { agent: 0 }), Change::Wrapper(Order::Start { agent: 0 })),
            4 => return self.at(now, connections(Condition::Cut)),
            5 => (connections(Condition::Stalled), connections(Condition::Good)),
            6 => return self.at(now, connections(Condition::HalfOpen)),
            7 => return self.at(now, connections(Condition::Severed)),
            8 => (Change::Partition { machine }, Change::Join { machine }),
            9 => (Change::DiskFull(true), Change::DiskFull(false)),
            _ => return self.at(now, Change::SyncFails),
        };
        self.at(now, fault);
        self.at(end, mended);
    }

    fn fault(&mut self, kind: Kind, now: Duration, random: &mut StdRng, agents: usize, viewers: usize) {
        let mut later = |most_ms: u64| now + Duration::from_millis(random.random_range(20..most_ms));
        let (soon, end) = (later(2_000), later(6_000));
        let agent = random.random_range(0..agents);
        let owner = match random.random_range(0..10) {
            0 => String::new(),
            1..5 => format!("agent/{agent}/"),
            _ => format!("viewer/{}/", random.random_range(0..viewers)),
        };
        let machine = ["agents", "viewers"][random.random_range(0..2)];
        match kind {
            Kind::RelayCrash => {
                self.at(now, Change::RelayCrashes);
                self.at(soon, Change::RelayStarts);
            }
            Kind::RelayDrain => self.at(now, Change::RelayDrains),
            Kind::WrapperKill => {
                self.at(now, Change::Wrapper(Order::Kill { agent }));
                self.at(soon, Change::Wrapper(Order::Start { agent }));
            }
            Kind::PowerLoss => {
                self.at(now, Change::WrapperLosesPower { agent });
                self.at(soon, Change::Wrapper(Order::Start { agent }));
            }
            Kind::Move => self.at(now, Change::Wrapper(Order::Move { agent })),
            Kind::Cut => self.at(now, Change::Connections { owner, condition: Condition::Cut }),
            Kind::Severed => {
                // What it has passed on goes on arriving, and the wrapper is back before that is committed.
                let owner = format!("agent/{agent}/");
                self.at(now, Change::SyncTakes { ms: random.random_range(2_000..8_000) });
                self.at(soon, Change::Connections { owner, condition: Condition::Severed });
                self.at(end + Duration::from_secs(4), Change::SyncTakes { ms: 10 });
            }
            Kind::Stall => {
                self.at(now, Change::Connections { owner: owner.clone(), condition: Condition::Stalled });
                self.at(end, Change::Connections { owner, condition: Condition::Good });
            }
            Kind::HalfOpen => self.at(now, Change::Connections { owner, condition: Condition::HalfOpen }),
            Kind::Chop => self.at(now, Change::Chop { owner, bytes: random.random_range(1..4) }),
            Kind::Partition => {
                self.at(now, Change::Partition { machine });
                self.at(end, Change::Join { machine });
            }
            Kind::Latency => {
                self.at(now, Change::Latency { ms: random.random_range(100..1_500) });
                self.at(end, Change::Latency { ms: 40 });
            }
            Kind::DiskFull => {
                self.at(now, Change::DiskFull(true));
                self.at(end, Change::DiskFull(false));
            }
            Kind::SyncFailure => self.at(now, Change::SyncFails),
            Kind::SlowSync => {
                self.at(now, Change::SyncTakes { ms: random.random_range(50..3_000) });
                self.at(end, Change::SyncTakes { ms: 10 });
            }
            Kind::Storm => {
                for n in 0..5 {
                    let time = now + Duration::from_millis(200 * n);
                    self.at(time, Change::Connections { owner: String::new(), condition: Condition::Cut });
                }
            }
            Kind::ClockJump => {
                let ms = random.random_range(-100_000_000..100_000_000);
                self.at(now, Change::ClockJumps { agent, ms });
            }
        }
    }
}
