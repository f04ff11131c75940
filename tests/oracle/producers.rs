//! What producers may expect of the log: P1, P5, P6.

use std::collections::{BTreeMap, BTreeSet};

use protocol::{Event, RawData};

use super::{Acked, Log, Retired, Sent, Violation, dropped};

pub(super) fn judge(sent: &[Sent], acked: &[Acked], log: &Log<'_>, found: &mut BTreeSet<Violation>) {
    let found_at = positions(log);
    let by_mark: BTreeMap<String, &Sent> =
        sent.iter().filter_map(|sent| Some((mark_of(&sent.event.data)?, sent))).collect();
    for (mark, sent) in &by_mark {
        let Some(at) = found_at.get(mark) else { continue };
        if at.len() > 1 {
            found.insert(Violation::Twice { mark: mark.clone() });
        }
        let is_as_sent =
            |event: &&Event| event.kind == sent.event.kind && event.data.json() == sent.event.data.json();
        if !at.iter().map(|seq| &log.ever[seq]).all(is_as_sent) {
            found.insert(Violation::Altered { mark: mark.clone() });
        }
    }
    judge_order(&by_mark, log, found);
    let producers: BTreeSet<&str> = sent.iter().map(|sent| sent.producer.as_str()).collect();
    for producer in producers {
        judge_acks(producer, sent, acked, &found_at, log, found);
    }
}

/// Where each marked event lies, in all that the log ever showed.
fn positions(log: &Log<'_>) -> BTreeMap<String, BTreeSet<u64>> {
    let mut positions: BTreeMap<String, BTreeSet<u64>> = BTreeMap::new();
    for (seq, event) in &log.ever {
        if let Some(mark) = mark_of(&event.data) {
            positions.entry(mark).or_default().insert(*seq);
        }
    }
    positions
}

/// Whatever is stored stands in the order of generations, and within a producer in that of its numbers.
fn judge_order(by_mark: &BTreeMap<String, &Sent>, log: &Log<'_>, found: &mut BTreeSet<Violation>) {
    let mut generation = 0;
    let mut newest: BTreeMap<&str, u64> = BTreeMap::new();
    for (seq, event) in &log.ever {
        let Some(mark) = mark_of(&event.data) else { continue };
        let Some(sent) = by_mark.get(&mark) else { continue };
        let pseq = newest.entry(&sent.producer).or_default();
        if sent.generation < generation {
            found.insert(Violation::Unfenced { seq: *seq });
        } else if sent.pseq < *pseq {
            found.insert(Violation::Reordered { mark });
        }
        generation = generation.max(sent.generation);
        *pseq = sent.pseq.max(*pseq);
    }
}

/// Whatever was acked is stored, or it is known why not.
fn judge_acks(
    producer: &str,
    sent: &[Sent],
    acked: &[Acked],
    found_at: &BTreeMap<String, BTreeSet<u64>>,
    log: &Log<'_>,
    found: &mut BTreeSet<Violation>,
) {
    let of_producer: BTreeMap<u64, &Sent> =
        sent.iter().filter(|sent| sent.producer == producer).map(|sent| (sent.pseq, sent)).collect();
    let through = acked.iter().filter(|acked| acked.producer == producer).map(|acked| acked.through).max();
    let through = through.unwrap_or(0);
    let position = |sent: &Sent| Some(*found_at.get(&mark_of(&sent.event.data)?)?.first()?);
    // What nobody saw in the log may have been made obsolete by what came after it from the same producer.
    let numbered: Vec<(u64, Event)> = of_producer
        .values()
        .filter(|sent| position(sent).is_some())
        .map(|sent| (sent.pseq, sent.event.clone().at(protocol::Seq::new(sent.pseq))))
        .collect();
    let retired = Retired::by(numbered.iter().map(|(pseq, event)| (*pseq, event)));
    let named: Vec<_> = log.ever.values().filter_map(|event| dropped(event)).collect();
    if through > 0
        && !of_producer.contains_key(&through)
        && !named.iter().any(|range| range.contains(&through))
    {
        found.insert(Violation::AckedUnsent { producer: producer.to_owned(), pseq: through });
    }
    let mut before = 0;
    for (pseq, sent) in of_producer.range(..=through) {
        match position(sent) {
            Some(seq) => before = seq,
            None => {
                let as_numbered = sent.event.clone().at(protocol::Seq::new(*pseq));
                let may_be_pruned = before < log.floor;
                if !may_be_pruned
                    && !retired.has(*pseq, &as_numbered)
                    && !named.iter().any(|range| range.contains(pseq))
                {
                    found.insert(Violation::AckedLost { producer: producer.to_owned(), pseq: *pseq });
                }
            }
        }
    }
}

/// What tells this event from every other.
fn mark_of(data: &RawData) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Marked {
        mark: String,
    }
    data.parse::<Marked>().ok().map(|marked| marked.mark)
}
