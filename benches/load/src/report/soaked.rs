//! What a soak has shown.

use std::{fs, path::Path};

use anyhow::{Context as _, Result};

use super::{
    picture::Picture,
    tables::{number, table},
};
use crate::workload::{Sample, Soaked};

/// The table, and the picture beside it; `None` where no soak was run.
pub(super) fn write(folder: &Path) -> Result<Option<String>> {
    let file = folder.join("soak.json");
    if !file.exists() {
        return Ok(None);
    }
    let soaked: Soaked = serde_json::from_slice(&fs::read(&file)?).context("soak.json is not understood")?;
    draw(&soaked, &folder.join("soak.svg"))?;
    Ok(Some(summary(&soaked)))
}

fn draw(soaked: &Soaked, file: &Path) -> Result<()> {
    let line = |name: &str, of: fn(&Sample) -> f64| {
        (name.to_owned(), soaked.samples.iter().map(|sample| (sample.at_s, of(sample))).collect())
    };
    let lines = [
        line("memory, MiB", |sample| sample.memory_mib),
        line("write-ahead log, MiB", |sample| sample.wal_mib),
    ];
    let title = "1,000 agents, 2,000 viewers of whom 100 are replaced every second";
    Picture { title, along: "seconds", lines: &lines }.draw_linear(file)
}

fn summary(soaked: &Soaked) -> String {
    let text = |text: &str| text.to_owned();
    let mut rows = vec![vec![text(""), text("after a third"), text("at the end"), text("most")]];
    type Of = fn(&Sample) -> f64;
    let watched: [(&str, Of); 5] = [
        ("memory, MiB", |sample| sample.memory_mib),
        ("write-ahead log, MiB", |sample| sample.wal_mib),
        ("tasks", |sample| sample.tasks),
        ("threads", |sample| sample.threads),
        ("descriptors", |sample| sample.descriptors),
    ];
    for (name, of) in watched {
        let third = soaked.samples.get(soaked.samples.len() / 3).map(of);
        let most = soaked.samples.iter().map(of).fold(0.0, f64::max);
        let shown = [third, soaked.samples.last().map(of), Some(most)].map(|value| number(value, 1.0, 0));
        rows.push([&[text(name)], &shown[..]].concat());
    }
    let minutes = soaked.samples.last().map(|sample| sample.at_s / 60.0);
    let verdict = soaked.verdict;
    let judged =
        if soaked.faults.is_empty() { text("flat") } else { format!("**{}**", soaked.faults.join("; ")) };
    format!(
        "\n{}, {} minutes: {} events, {} viewers came, {} lost, {} repeated, {} out of order; {judged}.\n{}",
        soaked.started,
        number(minutes, 1.0, 1),
        number(Some(soaked.events as f64), 1.0, 0),
        number(Some(soaked.joins as f64), 1.0, 0),
        verdict.lost,
        verdict.duplicates,
        verdict.disordered,
        table(&rows)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_soak_there_is_nothing_to_say() {
        assert_eq!(write(tempfile::tempdir().unwrap().path()).unwrap(), None);
    }

    #[test]
    fn a_soak_is_summed_up_and_its_faults_are_said() {
        let folder = tempfile::tempdir().unwrap();
        let sample = |at_s| Sample {
            at_s,
            memory_mib: at_s,
            wal_mib: 64.0,
            tasks: 1.0,
            threads: 2.0,
            descriptors: 3.0,
        };
        let soaked = Soaked {
            started: "today".to_owned(),
            samples: [60.0, 120.0, 180.0].map(sample).to_vec(),
            events: 1_234_567,
            joins: 300,
            verdict: crate::judge::Verdict::default(),
            faults: vec!["memory grew".to_owned()],
        };
        fs::write(folder.path().join("soak.json"), serde_json::to_vec(&soaked).unwrap()).unwrap();
        let text = write(folder.path()).unwrap().unwrap();
        assert!(text.contains("3.0 minutes: 1,234,567 events, 300 viewers came, 0 lost"), "{text}");
        assert!(
            text.contains("**memory grew**") && text.contains("| memory, MiB | 120 | 180 | 180 |"),
            "{text}"
        );
        assert!(folder.path().join("soak.svg").exists());
    }
}
