//! What befalls a run: drawn from its seed, each fault with its end.

use std::{collections::BTreeMap, time::Duration};

use rand::{RngExt, rngs::StdRng};

use crate::{agents::Order, network::Condition};

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
}

/// What happens when; several changes of one time in their order.
#[derive(Debug, Default)]
pub(crate) struct Schedule(BTreeMap<(Duration, usize), Change>);

impl Schedule {
    /// Faults from the first second on, until `end`.
    pub(crate) fn draw(random: &mut StdRng, end: Duration, agents: usize, viewers: usize) -> Self {
        let mut schedule = Self::default();
        for agent in 0..agents {
            schedule.at(Duration::ZERO, Change::Wrapper(Order::Start { agent }));
        }
        let mean_ms = random.random_range(200..1_500);
        let mut now = Duration::from_secs(1);
        while now < end {
            schedule.fault(now, random, agents, viewers);
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

    fn fault(&mut self, now: Duration, random: &mut StdRng, agents: usize, viewers: usize) {
        let mut later = |most_ms: u64| now + Duration::from_millis(random.random_range(20..most_ms));
        let (soon, end) = (later(2_000), later(6_000));
        let agent = random.random_range(0..agents);
        let owner = match random.random_range(0..10) {
            0 => String::new(),
            1..5 => format!("agent/{agent}/"),
            _ => format!("viewer/{}/", random.random_range(0..viewers)),
        };
        let machine = ["agents", "viewers"][random.random_range(0..2)];
        match random.random_range(0..100) {
            0..10 => {
                self.at(now, Change::RelayCrashes);
                self.at(soon, Change::RelayStarts);
            }
            10..14 => self.at(now, Change::RelayDrains),
            14..26 => {
                self.at(now, Change::Wrapper(Order::Kill { agent }));
                self.at(soon, Change::Wrapper(Order::Start { agent }));
            }
            26..30 => {
                self.at(now, Change::WrapperLosesPower { agent });
                self.at(soon, Change::Wrapper(Order::Start { agent }));
            }
            30..36 => self.at(now, Change::Wrapper(Order::Move { agent })),
            36..50 => self.at(now, Change::Connections { owner, condition: Condition::Cut }),
            50..60 => {
                self.at(now, Change::Connections { owner: owner.clone(), condition: Condition::Stalled });
                self.at(end, Change::Connections { owner, condition: Condition::Good });
            }
            60..66 => self.at(now, Change::Connections { owner, condition: Condition::HalfOpen }),
            66..70 => self.at(now, Change::Chop { owner, bytes: random.random_range(1..4) }),
            70..76 => {
                self.at(now, Change::Partition { machine });
                self.at(end, Change::Join { machine });
            }
            76..79 => {
                self.at(now, Change::Latency { ms: random.random_range(100..1_500) });
                self.at(end, Change::Latency { ms: 40 });
            }
            79..84 => {
                self.at(now, Change::DiskFull(true));
                self.at(end, Change::DiskFull(false));
            }
            84..88 => self.at(now, Change::SyncFails),
            88..92 => {
                self.at(now, Change::SyncTakes { ms: random.random_range(50..3_000) });
                self.at(end, Change::SyncTakes { ms: 10 });
            }
            92..96 => {
                // A storm: everyone comes back, again and again.
                for n in 0..5 {
                    let time = now + Duration::from_millis(200 * n);
                    self.at(time, Change::Connections { owner: String::new(), condition: Condition::Cut });
                }
            }
            _ => {
                let ms = random.random_range(-100_000_000..100_000_000);
                self.at(now, Change::ClockJumps { agent, ms });
            }
        }
    }
}
