//! How many of something there may be: in all, and of one address.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::feed::lock;

/// Those that are there. An address of this machine has no cap of its own: a proxy beside the server is one.
#[derive(Debug)]
pub(super) struct Crowd {
    most: usize,
    most_of_address: usize,
    all: Arc<Semaphore>,
    by_address: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

/// One of them, until it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    _permit: OwnedSemaphorePermit,
    _of_address: Option<OfAddress>,
}

/// Why there is no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Full {
    /// There are too many.
    InAll(usize),
    /// There are too many of this address.
    OfAddress(usize),
}

#[derive(Debug)]
struct OfAddress {
    address: IpAddr,
    by_address: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

impl Crowd {
    pub(super) fn new(most: usize, most_of_address: usize) -> Self {
        let most = most.min(Semaphore::MAX_PERMITS);
        Self { most, most_of_address, all: Arc::new(Semaphore::new(most)), by_address: Arc::default() }
    }

    /// Takes a place for one of this address, if that is known.
    pub(super) fn admit(&self, address: Option<IpAddr>) -> Result<Place, Full> {
        let permit = self.all.clone().try_acquire_owned().map_err(|_| Full::InAll(self.most))?;
        let remote = address.map(|address| address.to_canonical()).filter(|address| !address.is_loopback());
        let of_address = remote.map(|address| self.admit_of(address)).transpose()?;
        Ok(Place { _permit: permit, _of_address: of_address })
    }

    fn admit_of(&self, address: IpAddr) -> Result<OfAddress, Full> {
        let mut by_address = lock(&self.by_address);
        let count = by_address.get(&address).copied().unwrap_or_default();
        if count >= self.most_of_address {
            return Err(Full::OfAddress(count));
        }
        by_address.insert(address, count + 1);
        drop(by_address);
        Ok(OfAddress { address, by_address: self.by_address.clone() })
    }

    /// Waits until nobody is left.
    pub(super) async fn all_gone(&self) {
        let all = u32::try_from(self.most).unwrap_or(u32::MAX);
        // The semaphore is never closed.
        let _ = self.all.acquire_many(all).await;
    }
}

impl Drop for OfAddress {
    fn drop(&mut self) {
        let mut by_address = lock(&self.by_address);
        if let Some(count) = by_address.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                by_address.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_too_many_of_an_address_is_refused_and_others_are_not() {
        let crowd = Crowd::new(100, 2);
        let [near, far, other] = ["127.0.0.1", "192.0.2.1", "192.0.2.2"].map(address);
        let first = crowd.admit(far).unwrap();
        let _second = crowd.admit(far).unwrap();
        assert_eq!(crowd.admit(far).unwrap_err(), Full::OfAddress(2));
        // The same address, as a socket for both protocols sees it.
        assert!(crowd.admit(address("::ffff:192.0.2.1")).is_err());
        let _other = crowd.admit(other).unwrap();
        let _here =
            [near, near, near, None, None, None].map(|near| crowd.admit(near).expect("it has no cap"));
        drop(first);
        assert!(crowd.admit(far).is_ok());
    }

    #[test]
    fn one_too_many_in_all_is_refused_wherever_it_is_from() {
        let crowd = Crowd::new(2, 100);
        let first = crowd.admit(address("127.0.0.1")).unwrap();
        let _second = crowd.admit(address("192.0.2.1")).unwrap();
        for from in [None, address("127.0.0.1"), address("192.0.2.2")] {
            assert_eq!(crowd.admit(from).unwrap_err(), Full::InAll(2));
        }
        drop(first);
        assert!(crowd.admit(None).is_ok());
    }

    fn address(text: &str) -> Option<IpAddr> {
        Some(text.parse().unwrap())
    }
}
