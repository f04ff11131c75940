//! Where the names of a log's incarnations come from.

use protocol::Epoch;

/// A source of epochs that no log had before.
#[derive(Debug)]
pub(crate) enum Epochs {
    /// From the system's randomness.
    Random,
    /// The same ones for the same seed, for simulations.
    Seeded {
        /// Moves on with every epoch.
        state: u64,
    },
}

impl Epochs {
    pub(crate) fn next(&mut self) -> Epoch {
        let number = match self {
            Self::Random => uuid::Uuid::new_v4().as_u64_pair().0,
            Self::Seeded { state } => split_mix(state),
        };
        Epoch::new(&format!("{number:016x}"))
    }
}

/// SplitMix64 (Steele, Lea, Flood 2014): a full period, so no epoch repeats within one source.
fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_epochs_and_none_of_them_twice() {
        let take = |seed| {
            let mut epochs = Epochs::Seeded { state: seed };
            (0..1000).map(|_| epochs.next()).collect::<Vec<_>>()
        };
        let first = take(7);
        assert_eq!(first, take(7));
        let mut sorted = first.clone();
        sorted.sort();
        sorted.dedup();
        assert_eq!(sorted.len(), first.len());
    }

    #[test]
    fn random_epochs_differ() {
        assert_ne!(Epochs::Random.next(), Epochs::Random.next());
    }
}
