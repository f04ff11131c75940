//! Faults, one after the other, on real agent servers: each is made, what must be seen of it is waited for, and then the agent
//! must be as sound as before ([`Tried::is_sound`]). The rows are the table of `docs/faults.md`, which a test compares with them.
//!
//! Faults of one scene share a town and an agent, so that one fault's leftovers would be the next one's trouble.

mod committing;
mod disks;
mod ends;
mod hangs;
mod kills;
mod models;
mod starts;
mod states;
mod tried;

use std::{fmt::Write as _, time::Duration};

use futures_util::future::LocalBoxFuture;
use tokio::time::Instant;

use self::tried::Tried;
use crate::support::agent_server::{Server, on_both_servers};

on_both_servers!(
    #[ignore = "nightly: nine restarts of a real server"]
    p1_p2_p10_p16_kills_of_an_agent_at_rest,
    p1_p2_p7_p10_p16_kills_of_an_agent_at_work,
    p2_p5_p6_p10_p14_p21_hangs_starts_and_faults_of_the_model,
    p2_p7_p10_p15_p16_full_disks_and_ends,
);

async fn p1_p2_p10_p16_kills_of_an_agent_at_rest(server: Server) {
    try_all(kills::AT_REST, server).await;
}

async fn p1_p2_p7_p10_p16_kills_of_an_agent_at_work(server: Server) {
    try_all(kills::AT_WORK, server).await;
}

/// At the same time: what hangs costs time and no work.
async fn p2_p5_p6_p10_p14_p21_hangs_starts_and_faults_of_the_model(server: Server) {
    let (first, others) = hangs::FAULTS.split_at(2);
    let busy = models::FAULTS.iter().chain(starts::FAULTS);
    tokio::join!(try_all(first, server), try_all(others, server), try_all(busy, server));
}

async fn p2_p7_p10_p15_p16_full_disks_and_ends(server: Server) {
    try_all(disks::FAULTS.iter().chain(ends::FAULTS), server).await;
}

/// How long what an agent began may live after its wrapper's death (P16).
const NO_ORPHAN: Duration = Duration::from_secs(5);
/// How long an agent may live that a wrapper of a newer generation has taken over (P6).
const FENCED: Duration = Duration::from_secs(10);

/// The sections of the table, in its order.
const SECTIONS: &[(&str, &[Fault])] = &[
    ("Killed at rest", kills::AT_REST),
    ("Killed at work", kills::AT_WORK),
    ("Starts", starts::FAULTS),
    ("Hangs", hangs::FAULTS),
    ("The model", models::FAULTS),
    ("Disks", disks::FAULTS),
    ("Ends", ends::FAULTS),
];

/// A row of the table.
pub(crate) struct Fault {
    /// What goes wrong.
    name: &'static str,
    /// How the test makes it.
    made: &'static str,
    /// What it waits for.
    seen: &'static str,
    /// Makes the fault, and sees what must be seen.
    run: for<'a> fn(&'a mut Tried) -> LocalBoxFuture<'a, ()>,
}

/// A row whose function is given the agent, and what else is said.
macro_rules! fault {
    ($name:literal, $made:literal, $seen:literal, $run:path $(, $more:expr)* $(,)?) => {
        $crate::faults::Fault {
            name: $name,
            made: $made,
            seen: $seen,
            run: |tried| Box::pin($run(tried $(, $more)*)),
        }
    };
}
pub(crate) use fault;

/// Tries an agent with these faults.
async fn try_all(faults: impl IntoIterator<Item = &Fault>, server: Server) {
    let mut tried = Tried::start(server).await;
    for fault in faults {
        eprintln!("{server:?}: {}", fault.name);
        let began = Instant::now();
        (fault.run)(&mut tried).await;
        let seen = began.elapsed();
        tried.is_sound().await;
        eprintln!("{server:?}: {}: seen after {seen:.1?}, sound after {:.1?}", fault.name, began.elapsed());
    }
    tried.ends().await;
}

#[test]
fn the_table_in_the_docs_has_these_rows_and_no_others() {
    let docs = include_str!("../../docs/faults.md");
    let rows: Vec<&str> =
        docs.lines().filter(|line| line.starts_with('|') || line.starts_with("## ")).collect();
    let expected = table();
    let expected: Vec<&str> = expected.lines().filter(|line| !line.is_empty()).collect();
    assert!(rows == expected, "docs/faults.md is to have these lines:\n\n{}", table());
}

/// The table as the docs have it.
fn table() -> String {
    let mut table = String::new();
    for (section, faults) in SECTIONS {
        writeln!(table, "## {section}\n\n| fault | how it is made | what is seen |")
            .expect("a string takes everything");
        writeln!(table, "|---|---|---|").expect("a string takes everything");
        for Fault { name, made, seen, .. } in *faults {
            writeln!(table, "| {name} | {made} | {seen} |").expect("a string takes everything");
        }
        table.push('\n');
    }
    table
}
