//! The limits that an operator may change (§11), as arguments of every program that serves a relay.

use std::time::Duration;

use protocol::limits;
use store::{Retention, RetentionPolicy};

use crate::server::{ServeLimits, ViewerLimits};

/// Descriptors beside those of connections: stores, logs, pipes.
const DESCRIPTORS_BESIDE: usize = 1_000;

/// How much is kept of agents' logs, and how many may read them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::Args)]
#[command(next_help_heading = "Limits")]
#[non_exhaustive]
pub struct LimitArgs {
    /// Events kept of each agent's log; the oldest go first
    #[arg(long, value_name = "N", default_value_t = limits::LOG_EVENTS, value_parser = at_least_one())]
    pub log_events: u64,
    /// Bytes kept of each agent's log
    #[arg(long, value_name = "BYTES", default_value_t = limits::LOG_BYTES, value_parser = at_least_one())]
    pub log_bytes: u64,
    /// Days without an event after which an agent's log is emptied; 0 keeps it
    #[arg(long, value_name = "DAYS", default_value_t = limits::LOG_IDLE_DAYS, value_parser = up_to(36_500))]
    pub log_idle_days: u64,
    /// Streams of one log
    #[arg(long, value_name = "N", default_value_t = limits::VIEWERS_PER_LOG as u64, value_parser = up_to(1_000_000))]
    pub viewers_per_log: u64,
    /// Streams in all
    #[arg(long, value_name = "N", default_value_t = limits::VIEWERS as u64, value_parser = up_to(1_000_000))]
    pub viewers: u64,
    /// Streams from one address, loopback excepted: more for a proxy on another machine
    #[arg(long, value_name = "N", default_value_t = limits::VIEWERS_PER_ADDRESS as u64, value_parser = up_to(1_000_000))]
    pub viewers_per_address: u64,
}

fn at_least_one() -> clap::builder::RangedU64ValueParser {
    clap::value_parser!(u64).range(1..)
}

fn up_to(most: u64) -> clap::builder::RangedU64ValueParser {
    clap::value_parser!(u64).range(..=most)
}

impl LimitArgs {
    /// How much of which log is kept.
    #[must_use]
    pub fn retention(&self) -> RetentionPolicy {
        let idle = (self.log_idle_days > 0).then(|| Duration::from_secs(self.log_idle_days * 24 * 3600));
        let agent = Retention { events: self.log_events, bytes: self.log_bytes, idle };
        RetentionPolicy { agent, ..RetentionPolicy::default() }
    }

    /// How many streams may be open.
    #[must_use]
    pub fn viewers(&self) -> ViewerLimits {
        let [per_log, in_all, per_address] = [self.viewers_per_log, self.viewers, self.viewers_per_address]
            .map(|most| usize::try_from(most).unwrap_or(usize::MAX));
        ViewerLimits { per_log, in_all, per_address }
    }

    /// What a listener takes, so that there is room for these streams.
    #[must_use]
    pub fn serve(&self) -> ServeLimits {
        ServeLimits::default().for_viewers(&self.viewers())
    }

    /// Lets this process have as many descriptors as the streams need, as far as the system lets it: a shell usually gives it
    /// 1,024.
    pub fn claim_descriptors(&self) {
        use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
        let needed = (self.serve().connections + DESCRIPTORS_BESIDE) as u64;
        let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
        if current.is_none_or(|current| current >= needed) {
            return;
        }
        let claimed = maximum.map_or(needed, |maximum| maximum.min(needed));
        match setrlimit(Resource::Nofile, Rlimit { current: Some(claimed), maximum }) {
            Err(error) => tracing::warn!(%error, needed, "the limit of open files stays as it is"),
            Ok(()) if claimed < needed => tracing::info!(
                needed,
                claimed,
                "the system gives fewer descriptors than all the streams may need: raise its limit (ulimit -n, LimitNOFILE)"
            ),
            Ok(()) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::server::RelayConfig;

    #[test]
    fn without_an_option_everything_is_as_documented() {
        let limits = parse(&[]).unwrap();
        assert_eq!(limits.retention(), RetentionPolicy::default());
        assert_eq!(limits.viewers(), RelayConfig::default().viewers);
        let (serve, default) = (limits.serve(), ServeLimits::default());
        assert_eq!((serve.connections, serve.per_address), (default.connections, default.per_address));
    }

    #[test]
    fn each_option_changes_its_limit_and_leaves_room_for_the_streams() {
        let line = "--log-events 9 --log-bytes 8 --log-idle-days 0 --viewers-per-log 7 --viewers 600000 --viewers-per-address 50000";
        let limits = parse(&line.split(' ').collect::<Vec<_>>()).unwrap();
        let agent = Retention { events: 9, bytes: 8, idle: None };
        assert_eq!(limits.retention(), RetentionPolicy { agent, town: Retention::UNBOUNDED });
        let viewers = ViewerLimits { per_log: 7, in_all: 600_000, per_address: 50_000 };
        assert_eq!(limits.viewers(), viewers);
        assert!(limits.serve().connections > 600_000 && limits.serve().per_address > 50_000);
    }

    #[test]
    fn a_limit_that_makes_no_sense_is_refused() {
        for line in
            [["--log-events", "0"], ["--log-bytes", "0"], ["--viewers", "-1"], ["--viewers", "1000001"]]
        {
            assert!(parse(&line).is_err(), "{line:?}");
        }
    }

    fn parse(line: &[&str]) -> Result<LimitArgs, clap::Error> {
        #[derive(Debug, Parser)]
        struct Line {
            #[command(flatten)]
            limits: LimitArgs,
        }
        Line::try_parse_from([&["relay"], line].concat()).map(|line| line.limits)
    }
}
