//! The wrapper's part of `docs/benchmarks.md`, from what a run has written. No figure in it is written by hand: what stands between its
//! marks is replaced, all else stays.

use std::{fs, path::Path};

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};

use crate::measure::{Measured, Pace, Reader};

const MARK: &str = "<!-- measured: wrapper -->\n";

/// What a run has written.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Results {
    pub(crate) started: String,
    pub(crate) runs: Vec<Measured>,
}

/// Writes the tables between the marks.
pub(crate) fn write(results: &Path, into: &Path) -> Result<()> {
    let read =
        |path: &Path| fs::read_to_string(path).with_context(|| format!("{} cannot be read", path.display()));
    let results = serde_json::from_str(&read(results)?).context("the results are not understood")?;
    fs::write(into, replaced(&read(into)?, &part(&results))?)?;
    Ok(())
}

fn replaced(text: &str, part: &str) -> Result<String> {
    let pieces: Vec<&str> = text.split(MARK).collect();
    let [before, _, after] = pieces[..] else {
        bail!("the text does not have two marks `{}`", MARK.trim());
    };
    Ok(format!("{before}{MARK}{part}{MARK}{after}"))
}

fn part(results: &Results) -> String {
    let mut text = format!(
        "\n{}; other processes used {:.2} cores in the median.\n\n{TARGETS}",
        results.started,
        median(&results.runs, |run| Some(run.other_cores)).unwrap_or(0.0)
    );
    let paced: Vec<Measured> = results.of(Reader::Wrapper, |pace| pace != Pace::Full);
    for (what, target, digits, of) in TARGET_ROWS {
        let measured = median(&paced, *of);
        let is_met = measured.is_some_and(|measured| measured <= *target);
        let word = if is_met { "met" } else { "**missed**" };
        text += &format!("| {what} | {target} | {} | {word} |\n", number(measured, *digits));
    }
    text += &format!("\n{HEADS}");
    for paced in [true, false] {
        for (title, reader) in [("**gastown-wrapper**", Reader::Wrapper), ("bare client", Reader::Bare)] {
            text += &row(title, &results.of(reader, |pace| (pace != Pace::Full) == paced));
        }
    }
    text + "\n"
}

type Figure = fn(&Measured) -> Option<f64>;

const TARGETS: &str = "| what, at 300 events/s | at most | measured |  |\n| --- | --- | --- | --- |\n";
const TARGET_ROWS: &[(&str, f64, usize, Figure)] = &[
    ("memory (RSS), MiB", 15.0, 1, |run| Some(run.rss_mib)),
    ("CPU, % of a core", 3.0, 1, |run| Some(100.0 * run.cpu_s / run.seconds)),
    ("deltas, beyond the window, p99, ms", 2.0, 2, |run| Some(run.deltas?.p99_ms)),
    ("other events, p99, ms", 2.0, 2, |run| Some(run.others?.p99_ms)),
];

const HEADS: &str = "| reader | events/s | CPU, % of a core | CPU, ms per 1,000 events | RSS, MiB | PSS, MiB | its guard's PSS, MiB | \
                     deltas p50 / p99, ms | others p50 / p99, ms | runs |\n\
                     | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n";

fn row(title: &str, runs: &[Measured]) -> String {
    let show = |of: Figure, digits| number(median(runs, of), digits);
    format!(
        "| {title} | {} | {} | {} | {} | {} | {} | {} / {} | {} / {} | {} |\n",
        show(|run| Some(run.events as f64 / run.seconds), 0),
        show(|run| Some(100.0 * run.cpu_s / run.seconds), 1),
        show(|run| Some(1e6 * run.cpu_s / run.events as f64), 0),
        show(|run| Some(run.rss_mib), 1),
        show(|run| Some(run.pss_mib), 1),
        show(|run| (run.reader == Reader::Wrapper).then_some(run.helpers_pss_mib), 1),
        show(|run| Some(run.deltas?.p50_ms), 2),
        show(|run| Some(run.deltas?.p99_ms), 2),
        show(|run| Some(run.others?.p50_ms), 2),
        show(|run| Some(run.others?.p99_ms), 2),
        runs.len(),
    )
}

impl Results {
    fn of(&self, reader: Reader, paces: impl Fn(Pace) -> bool) -> Vec<Measured> {
        self.runs.iter().filter(|run| run.reader == reader && paces(run.pace)).copied().collect()
    }
}

fn median(runs: &[Measured], of: Figure) -> Option<f64> {
    let mut values: Vec<f64> = runs.iter().filter_map(of).collect();
    values.sort_by(f64::total_cmp);
    let middle = |place: usize| values.get(place).copied();
    Some(f64::midpoint(middle(values.len().checked_sub(1)? / 2)?, middle(values.len() / 2)?))
}

fn number(value: Option<f64>, digits: usize) -> String {
    value.map_or_else(|| "–".to_owned(), |value| format!("{value:.digits$}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::Latency;

    #[test]
    fn the_tables_show_medians_and_what_is_met() {
        let run = |reader, pace, cpu_s| Measured {
            reader,
            pace,
            events: 4_000,
            seconds: 10.0,
            cpu_s,
            rss_mib: 13.0,
            pss_mib: 9.0,
            helpers_pss_mib: 2.0,
            other_cores: 0.1,
            deltas: (reader == Reader::Wrapper).then_some(Latency { p50_ms: 1.0, p99_ms: 2.5 }),
            others: None,
        };
        let paced = Pace::PerSecond(300);
        let runs = [0.2, 0.4, 9.0].map(|cpu_s| run(Reader::Wrapper, paced, cpu_s));
        let mut runs = runs.to_vec();
        runs.push(run(Reader::Bare, paced, 0.1));
        let text = part(&Results { started: "today".to_owned(), runs });
        assert!(text.contains("| CPU, % of a core | 3 | 4.0 | **missed** |"), "{text}");
        assert!(text.contains("| memory (RSS), MiB | 15 | 13.0 | met |"), "{text}");
        assert!(
            text.contains("| bare client | 400 | 1.0 | 25 | 13.0 | 9.0 | – | – / – | – / – | 1 |"),
            "{text}"
        );
    }

    #[test]
    fn the_text_in_the_repository_has_the_marks_and_only_what_is_between_them_is_replaced() {
        let text = include_str!("../../../docs/benchmarks.md");
        let new = replaced(text, "new\n").unwrap();
        assert!(new.contains(&format!("{MARK}new\n{MARK}")));
        assert_eq!(replaced(&new, "new\n").unwrap(), new);
        replaced("a text without them", "new\n").unwrap_err();
    }
}
