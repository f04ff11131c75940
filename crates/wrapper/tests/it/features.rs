//! `docs/agents.md` says what works with which agent: every "yes" in it has a test, and every test that it names is there.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

#[test]
fn every_feature_that_is_said_to_work_is_shown_by_a_test_that_exists() {
    let text = fs::read_to_string(root().join("docs/agents.md")).expect("the document is there");
    let (features, shown) = (features(&text), shown(&text));
    assert!(features.len() > 10, "the table was found: {features:?}");
    assert_eq!(shown.keys().collect::<Vec<_>>(), features.keys().collect::<Vec<_>>());
    let sources = sources();
    for (feature, tests) in &shown {
        let agents: BTreeSet<&str> = tests.iter().flat_map(|(_, agents)| agents.iter().copied()).collect();
        assert_eq!(agents, features[feature], "whom the tests of {feature:?} try");
        for (test, _) in tests {
            assert!(sources.contains(&format!("fn {test}(")), "there is no test {test}");
        }
    }
}

#[test]
fn every_cell_says_what_is_so_and_not_that_there_is_nothing_to_say() {
    let text = fs::read_to_string(root().join("docs/agents.md")).expect("the document is there");
    let rows = rows(&text, "| feature | opencode ");
    for row in &rows[1..] {
        assert_eq!(row.len(), rows[0].len(), "{row:?}");
        for cell in &row[1..] {
            assert!(["yes", "no", "as recorded"].contains(cell), "{cell:?} of {:?}", row[0]);
        }
    }
}

/// The agents that a feature works with, by the feature.
fn features(text: &str) -> BTreeMap<&str, BTreeSet<&str>> {
    let rows = rows(text, "| feature | opencode ");
    let (agents, rows) = rows.split_first().expect("a table has a head");
    let works = rows.iter().map(|row| {
        let cells = row.iter().zip(agents).skip(1);
        (row[0], cells.filter(|(cell, _)| **cell == "yes").map(|(_, agent)| *agent).collect())
    });
    works.collect()
}

/// The tests of a feature and the agents that they try, by the feature.
fn shown(text: &str) -> BTreeMap<&str, Vec<(&str, Vec<&str>)>> {
    let rows = rows(text, "| feature | tests |");
    rows.iter().skip(1).map(|row| (row[0], row[1].split("), ").map(test).collect())).collect()
}

/// `` `name` (agent, agent) ``
fn test(text: &str) -> (&str, Vec<&str>) {
    let (name, agents) = text.split_once(" (").unwrap_or_else(|| panic!("a test and its agents: {text}"));
    (name.trim_matches('`'), agents.trim_end_matches(')').split(", ").collect())
}

/// The cells of a table that begins with this line, its head first.
fn rows<'a>(text: &'a str, head: &str) -> Vec<Vec<&'a str>> {
    let at = text.find(head).unwrap_or_else(|| panic!("no table {head}"));
    let lines = text[at..].lines().take_while(|line| line.starts_with('|'));
    let lines = lines.filter(|line| !line.starts_with("|---"));
    lines.map(|line| line.trim_matches('|').split(" | ").map(str::trim).collect()).collect()
}

/// All that the tests of wrapper and system are written in.
fn sources() -> String {
    let mut folders = vec![root().join("tests/system"), root().join("crates/wrapper")];
    let mut text = String::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("the folder is there").flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                text += &fs::read_to_string(&path).expect("a source is text");
            }
        }
    }
    text
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}
