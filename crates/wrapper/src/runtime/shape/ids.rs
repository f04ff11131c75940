//! Ids that ascend, as agent servers make them: a prefix, the time in hexadecimal, and random letters.

/// Letters of the random end of an id.
const LETTERS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// Makes ids. The same seed and the same times give the same ids.
#[derive(Debug, Clone)]
pub(crate) struct Ids {
    random: u64,
    /// Time and serial number of the latest id: `ms << 12 | serial`, so that two ids of one millisecond differ.
    latest: u64,
    calls: u64,
}

impl Ids {
    /// Ids from a seed.
    pub(crate) fn new(seed: u64) -> Self {
        Self { random: seed, latest: 0, calls: 0 }
    }

    /// The next id: `msg_1fa32a199001ITn0thV64Wmrav` for the prefix `msg`. It sorts after every earlier one with its prefix.
    pub(crate) fn next(&mut self, prefix: &str, now_ms: i64) -> String {
        let time = u64::try_from(now_ms).unwrap_or(0) << 12;
        self.latest = (self.latest + 1).max(time);
        let tail: String = (0..14).map(|_| char::from(LETTERS[self.below(62)])).collect();
        format!("{prefix}_{:012x}{tail}", self.latest & 0xffff_ffff_ffff)
    }

    /// The next call id of a tool.
    pub(crate) fn call(&mut self) -> String {
        self.calls += 1;
        format!("call_{}", self.calls)
    }

    /// Forty hexadecimal digits: the name of a state of the work folder (of no git object).
    pub(crate) fn snapshot(&mut self) -> String {
        (0..40).map(|_| char::from(b"0123456789abcdef"[self.below(16)])).collect()
    }

    /// A number below `end`.
    fn below(&mut self, end: usize) -> usize {
        // SplitMix64 (Steele, Lea, Flood 2014): every seed, also 0, gives a full period.
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % end as u64).expect("a number below a usize is a usize")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_ascend_within_one_millisecond_and_when_the_clock_goes_back() {
        let mut ids = Ids::new(7);
        let made: Vec<String> = [1_795_198_984_601, 1_795_198_984_601, 1_795_198_984_000, 1_795_198_985_000]
            .map(|ms| ids.next("msg", ms))
            .into();
        assert!(made.is_sorted(), "{made:?}");
        assert!(made.iter().all(|id| id.len() == 30 && id.starts_with("msg_1fa32a")), "{made:?}");
    }

    #[test]
    fn one_seed_gives_one_sequence() {
        let sequence = |seed| {
            let mut ids = Ids::new(seed);
            (ids.next("prt", 5), ids.call(), ids.snapshot())
        };
        assert_eq!(sequence(3), sequence(3));
        assert_ne!(sequence(3), sequence(4));
    }
}
