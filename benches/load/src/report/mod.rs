//! Tables and plots from what a run has written. No figure in `docs/benchmarks.md` is written by hand: what stands between
//! two marks is replaced, all else stays.

mod picture;
mod plots;
mod soaked;
mod tables;
mod targets;

use std::{fs, path::Path};

use anyhow::{Context as _, Result};

use crate::{record::Results, workload::Workload};

/// Writes the generated parts of a text, and the plots into the directory of the measurements.
pub(crate) fn write(results: &Path, into: &Path) -> Result<()> {
    let folder = results.parent().context("the results lie in a directory")?;
    let results = Results::load(results)?;
    let mut text = fs::read_to_string(into).with_context(|| format!("{} cannot be read", into.display()))?;
    let workloads = tables::TABLES
        .iter()
        .map(|(workload, _)| (name_of(*workload), tables::workload(&results, *workload)));
    let not_measured = || "\nnot measured\n\n".to_owned();
    let parts = [
        ("soak".to_owned(), soaked::write(folder)?.unwrap_or_else(not_measured)),
        ("another machine".to_owned(), another_machine(folder)?.unwrap_or_else(not_measured)),
        ("machine".to_owned(), tables::machine(&results)),
        ("servers".to_owned(), tables::servers(&results)),
        ("targets".to_owned(), targets::table(&results)),
    ];
    for (name, part) in parts.into_iter().chain(workloads) {
        text = replaced(&text, &name, &part)?;
    }
    fs::write(into, text)?;
    plots::draw(&results, folder)
}

/// Another run, of which only the targets are shown.
fn another_machine(folder: &Path) -> Result<Option<String>> {
    let results = folder.join("another-machine.jsonl");
    if !results.exists() {
        return Ok(None);
    }
    let results = Results::load(&results)?;
    Ok(Some(tables::machine(&results) + &targets::table(&results)))
}

fn name_of(workload: Workload) -> String {
    clap::ValueEnum::to_possible_value(&workload)
        .map_or_else(String::new, |value| value.get_name().to_owned())
}

/// The text with another part between the two marks of this name.
fn replaced(text: &str, name: &str, part: &str) -> Result<String> {
    let mark = format!("<!-- measured: {name} -->\n");
    let mut pieces = text.split(mark.as_str());
    let (Some(before), Some(_), Some(after), None) =
        (pieces.next(), pieces.next(), pieces.next(), pieces.next())
    else {
        anyhow::bail!("the text does not have two marks `{}`", mark.trim());
    };
    Ok(format!("{before}{mark}{part}{mark}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_between_two_marks_is_replaced_and_nothing_else() {
        let text = "a\n<!-- measured: x -->\nold\n<!-- measured: x -->\nb\n";
        let new = replaced(text, "x", "new\n").unwrap();
        assert_eq!(new, text.replace("old", "new"));
        assert_eq!(replaced(&new, "x", "new\n").unwrap(), new);
    }

    #[test]
    fn a_text_without_the_marks_is_refused() {
        replaced("<!-- measured: x -->\n", "x", "new\n").unwrap_err();
        replaced("", "x", "new\n").unwrap_err();
    }

    #[test]
    fn the_text_in_the_repository_has_every_mark() {
        let directory = tempfile::tempdir().unwrap();
        let (results, into) =
            (directory.path().join("results.jsonl"), directory.path().join("benchmarks.md"));
        fs::write(&results, r#"{"started":"","quick":true,"machine":[],"peers":{}}"#).unwrap();
        fs::copy(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/benchmarks.md"), &into).unwrap();
        write(&results, &into).unwrap();
        let text = fs::read_to_string(&into).unwrap();
        assert!(text.contains("not measured"));
    }
}
