//! Logging in: one-use links, and how often one may be wrong.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use protocol::Timestamp;
use relay::auth::Secret;

use crate::{
    digest::Digest,
    limits::{LOGIN_ADDRESSES, LOGIN_FAILURES, LOGIN_LINK_LIFE, LOGIN_LINKS, LOGIN_WINDOW},
};

/// Keys of login links that were not used yet, with when they end. Not kept over a restart.
#[derive(Debug, Default)]
pub(crate) struct LoginLinks(Mutex<BTreeMap<Digest, Timestamp>>);

impl LoginLinks {
    /// A key for a new link.
    pub(crate) fn issue(&self, now: Timestamp) -> Secret {
        let key = Secret::random();
        let mut links = self.links();
        links.retain(|_, ends| *ends > now);
        while links.len() >= LOGIN_LINKS {
            let oldest = links.iter().min_by_key(|(_, ends)| **ends).map(|(digest, _)| digest.clone());
            links.remove(&oldest.expect("a map at its limit is not empty"));
        }
        links.insert(Digest::of(key.expose()), now.after(LOGIN_LINK_LIFE));
        key
    }

    /// Whether this key is good; it is not any more afterwards.
    pub(crate) fn redeem(&self, key: &str, now: Timestamp) -> bool {
        self.links().remove(&Digest::of(key)).is_some_and(|ends| ends > now)
    }

    fn links(&self) -> MutexGuard<'_, BTreeMap<Digest, Timestamp>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Counts failed logins by address; `None` is whoever's address is not known.
#[derive(Debug, Default)]
pub(crate) struct LoginLimiter(Mutex<BTreeMap<Option<IpAddr>, Vec<Timestamp>>>);

impl LoginLimiter {
    /// How long this address has to wait before its next try, if it has to.
    pub(crate) fn wait(&self, address: Option<IpAddr>, now: Timestamp) -> Option<Duration> {
        let mut failures = self.failures();
        let recent = failures.get_mut(&address)?;
        recent.retain(|at| now.since(*at) < LOGIN_WINDOW);
        if recent.len() < LOGIN_FAILURES {
            return None;
        }
        recent.first().map(|oldest| oldest.after(LOGIN_WINDOW).since(now))
    }

    /// This address gave a wrong token.
    pub(crate) fn failed(&self, address: Option<IpAddr>, now: Timestamp) {
        let mut failures = self.failures();
        failures.retain(|_, recent| recent.last().is_some_and(|at| now.since(*at) < LOGIN_WINDOW));
        if failures.len() >= LOGIN_ADDRESSES && !failures.contains_key(&address) {
            let oldest =
                failures.iter().min_by_key(|(_, recent)| recent.last().copied()).map(|(name, _)| *name);
            failures.remove(&oldest.expect("a map at its limit is not empty"));
        }
        failures.entry(address).or_default().push(now);
    }

    fn failures(&self) -> MutexGuard<'_, BTreeMap<Option<IpAddr>, Vec<Timestamp>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_link_works_once_and_for_an_hour() {
        let links = LoginLinks::default();
        let key = links.issue(at(0));
        assert!(!links.redeem("another", at(1)));
        assert!(links.redeem(key.expose(), at(1)));
        assert!(!links.redeem(key.expose(), at(1)));
        let late = links.issue(at(0));
        assert!(!links.redeem(late.expose(), at(3600)));
    }

    #[test]
    fn links_that_nobody_uses_do_not_pile_up() {
        let links = LoginLinks::default();
        let first = links.issue(at(0));
        for n in 1..=LOGIN_LINKS as i64 {
            links.issue(at(n));
        }
        assert_eq!(links.links().len(), LOGIN_LINKS);
        assert!(!links.redeem(first.expose(), at(100)));
    }

    #[test]
    fn after_ten_failures_in_a_minute_an_address_waits_and_others_do_not() {
        let limiter = LoginLimiter::default();
        let (guesser, other) = (Some(IpAddr::from([10, 0, 0, 1])), Some(IpAddr::from([10, 0, 0, 2])));
        for n in 0..LOGIN_FAILURES as i64 {
            assert_eq!(limiter.wait(guesser, at(n)), None);
            limiter.failed(guesser, at(n));
        }
        assert_eq!(limiter.wait(guesser, at(10)), Some(Duration::from_secs(50)));
        assert_eq!(limiter.wait(other, at(10)), None);
        assert_eq!(limiter.wait(guesser, at(60)), None);
    }

    #[test]
    fn counting_does_not_grow_with_the_number_of_addresses() {
        let limiter = LoginLimiter::default();
        for n in 0..2 * LOGIN_ADDRESSES as u32 {
            limiter.failed(Some(IpAddr::from(n.to_be_bytes())), at(1));
        }
        assert!(limiter.failures().len() <= LOGIN_ADDRESSES);
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_unix_ms(seconds * 1000)
    }
}
