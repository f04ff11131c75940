//! The table *promise → tests*: a test that proves a part of a promise carries its id in its name (`p3_…`).

use std::{collections::BTreeMap, fmt::Write as _};

/// What each promise says, in a few words. The whole text: `docs/promises.md`.
const PROMISES: [&str; 22] = [
    "durable ack",
    "once, in order",
    "explicit gap",
    "output gate",
    "append once",
    "fencing",
    "no silent loss at the source",
    "slow viewers are alone",
    "same bytes",
    "same view",
    "integrity",
    "bounded memory",
    "recovery",
    "liveness",
    "drain",
    "no orphan",
    "authority",
    "tickets",
    "no secret out",
    "hostile input",
    "bounded work",
    "one truth",
];

/// How a test is left to the nightly run: `#[ignore = "nightly: why"]`.
const NIGHTLY: &str = "ignored, nightly: ";

/// Tests by the promise their name carries, and those that are left to the nightly run.
#[derive(Debug, Default)]
pub(crate) struct Promises {
    by_number: BTreeMap<usize, Tests>,
    nightly: Vec<String>,
}

/// The tests of one promise.
#[derive(Debug, Default)]
struct Tests {
    passed: usize,
    failed: Vec<String>,
}

impl Promises {
    /// Reads the lines of a test run (`test a::b::p3_name ... ok`).
    pub(crate) fn of_lines<'a>(lines: impl IntoIterator<Item = &'a str>) -> Self {
        let mut promises = Self::default();
        for line in lines {
            let Some((name, verdict)) = line.strip_prefix("test ").and_then(|rest| rest.split_once(" ... "))
            else {
                continue;
            };
            if let Some(why) = verdict.trim().strip_prefix(NIGHTLY) {
                promises.nightly.push(format!("{name} ({why})"));
                continue;
            }
            for promise in promises_of(name.trim_end_matches(" - should panic")) {
                let tests = promises.by_number.entry(promise).or_default();
                match verdict.trim() {
                    "ok" => tests.passed += 1,
                    _ => tests.failed.push(name.to_owned()),
                }
            }
        }
        promises
    }

    /// The table, one row a promise; then what is left to the nightly run.
    pub(crate) fn table(&self) -> String {
        let mut table = String::from("promise                              tests\n");
        for (i, says) in PROMISES.iter().enumerate() {
            let row = match self.by_number.get(&(i + 1)) {
                None => "none yet".to_owned(),
                Some(Tests { passed, failed }) if failed.is_empty() => format!("{passed} green"),
                Some(Tests { passed, failed }) => format!("{passed} green, RED: {}", failed.join(", ")),
            };
            writeln!(table, "P{:<3} {says:<31} {row}", i + 1).expect("a string takes everything");
        }
        for test in &self.nightly {
            writeln!(table, "nightly: {test}").expect("a string takes everything");
        }
        table
    }
}

/// The promises a test's path names: `p3_` or `p10_` at the beginning of its last or an earlier segment, several
/// joined as in `p2_p9_same_events`.
fn promises_of(path: &str) -> Vec<usize> {
    let name = path.rsplit("::").next().unwrap_or(path);
    name.split('_')
        .map_while(|word| word.strip_prefix('p')?.parse().ok())
        .filter(|promise| (1..=PROMISES.len()).contains(promise))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_says_which_promises_it_proves() {
        assert_eq!(promises_of("tail::p2_each_event_once"), [2]);
        assert_eq!(promises_of("p2_p10_folds_agree"), [2, 10]);
        assert!(promises_of("parses_p2_frames").is_empty());
        assert!(promises_of("p99_latency").is_empty());
    }

    #[test]
    fn a_failed_test_is_named_in_its_row() {
        let table = Promises::of_lines(["test a::p1_holds ... ok", "test a::p1_breaks ... FAILED"]).table();
        assert!(table.contains("1 green, RED: a::p1_breaks"), "{table}");
    }

    #[test]
    fn what_is_left_to_the_nightly_run_is_named_and_counts_for_nothing() {
        let lines = ["test a::p1_holds ... ok", "test b::p1_long ... ignored, nightly: takes an hour"];
        let table = Promises::of_lines(lines).table();
        assert!(table.contains("durable ack                     1 green\n"), "{table}");
        assert!(table.ends_with("nightly: b::p1_long (takes an hour)\n"), "{table}");
    }
}
