//! The purity gate: what the pure crates may not depend on.

use anyhow::bail;

use crate::command::output;

/// A package built without features, and the crates that must not appear below it.
const GATES: &[(&str, &[&str])] = &[
    ("gastown-event-protocol", &["tokio", "axum", "hyper", "rusqlite", "rand"]),
    ("gastown-event-store", &["tokio", "axum", "hyper", "rusqlite"]),
    ("gastown-core", &["tokio", "axum", "hyper", "rusqlite", "rand"]),
    ("gastown-relay", &["tokio", "axum", "hyper", "rusqlite"]),
];

/// Pairs that must not see each other: the first must not depend on the second.
const APART: &[(&str, &str)] = &[
    ("gastown-relay", "gastown-wrapper"),
    ("gastown-wrapper", "gastown-relay"),
    ("gastown-relay", "gastown-worker"),
    ("gastown-wrapper", "gastown-worker"),
];

/// Fails if a pure crate depends on something impure, or two crates see each other that must not.
pub(crate) fn check() -> anyhow::Result<()> {
    for (package, banned) in GATES {
        let crates = dependencies(package, &["--no-default-features"])?;
        if let Some(found) = banned.iter().find(|name| crates.iter().any(|c| c == *name)) {
            bail!(
                "{package} without features depends on {found}: see `cargo tree -p {package} --no-default-features -e normal -i {found}`"
            );
        }
    }
    for (package, other) in APART {
        if dependencies(package, &[])?.iter().any(|c| c == other) {
            bail!("{package} depends on {other}, which it must not see");
        }
    }
    println!("purity: {} packages hold", GATES.len() + APART.len());
    Ok(())
}

fn dependencies(package: &str, features: &[&str]) -> anyhow::Result<Vec<String>> {
    let args = [
        &["tree", "--package", package, "--edges", "normal", "--prefix", "none", "--format", "{p}"],
        features,
    ]
    .concat();
    let tree = output("cargo", &args)?;
    Ok(tree.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect())
}
