//! Whether the search index knows the words of the texts in the logs, and no others.

use std::collections::BTreeMap;

use protocol::{LogId, Seq};
use rusqlite::Connection;

use crate::{
    Record,
    sqlite::{
        checksum::Checksum,
        search::{is_whole, text_of, words_of},
    },
};

/// What the index should have.
#[derive(Debug, Default)]
pub(super) struct Expected {
    /// By log and position, the sum of a text's words and their places.
    texts: BTreeMap<(i64, Seq), u64>,
    /// By their ids, the logs and their floors.
    logs: BTreeMap<i64, (LogId, Seq)>,
}

impl Expected {
    /// A log, whose events come next.
    pub(super) fn add_log(&mut self, id: i64, log: &LogId, floor: Seq) {
        self.logs.insert(id, (log.clone(), floor));
    }

    /// An event that reads return.
    pub(super) fn add(&mut self, log: i64, record: &Record) {
        if let Some((text, _)) = text_of(record) {
            let words = words_of(&text);
            let words = words.split(' ').filter(|word| !word.is_empty());
            let total = words.zip(0..).fold(0, |total, (word, at)| add_word(total, word, at));
            self.texts.insert((log, record.seq), total);
        }
    }

    /// What is wrong with the index. Entries of pruned events may be left: nothing shows them.
    pub(super) fn check(mut self, conn: &Connection) -> rusqlite::Result<Vec<String>> {
        if !is_whole(conn)? {
            return Ok(vec!["it is damaged, or not there".to_owned()]);
        }
        let mut sums = sums(conn)?;
        let mut wrong = Vec::new();
        let mut select = conn.prepare("SELECT id, log, seq FROM search_texts")?;
        let mut rows = select.query([])?;
        while let Some(row) = rows.next()? {
            let (id, log): (i64, i64) = (row.get(0)?, row.get(1)?);
            let seq = Seq::new(row.get::<_, i64>(2)?.cast_unsigned());
            let found = sums.remove(&id).unwrap_or_default();
            match (self.texts.remove(&(log, seq)), self.logs.get(&log)) {
                (Some(expected), _) if expected == found => {}
                (Some(_), _) => {
                    wrong.push(format!("it has other words for event {} than the event", self.name(log, seq)))
                }
                (None, Some((_, floor))) if seq <= *floor => {}
                (None, _) => {
                    wrong.push(format!("it names event {}, which is not there", self.name(log, seq)))
                }
            }
        }
        let missing =
            self.texts.keys().map(|(log, seq)| format!("event {} is not in it", self.name(*log, *seq)));
        wrong.extend(missing.take(20));
        wrong.extend(
            sums.keys().take(1).map(|_| format!("it has words of {} texts that are not there", sums.len())),
        );
        wrong.truncate(20);
        Ok(wrong)
    }

    fn name(&self, log: i64, seq: Seq) -> String {
        match self.logs.get(&log) {
            Some((log, _)) => format!("{seq} of {log}"),
            None => format!("{seq} of a log that is not there"),
        }
    }
}

/// What the words of each text in the index add up to.
fn sums(conn: &Connection) -> rusqlite::Result<BTreeMap<i64, u64>> {
    conn.execute_batch(
        "CREATE VIRTUAL TABLE temp.search_instances USING fts5vocab(main, search_words, instance)",
    )?;
    let mut sums = BTreeMap::new();
    let mut select = conn.prepare("SELECT doc, term, offset FROM temp.search_instances")?;
    let mut rows = select.query([])?;
    while let Some(row) = rows.next()? {
        let word = row.get_ref(1)?.as_str().unwrap_or_default();
        let total = sums.entry(row.get(0)?).or_default();
        *total = add_word(*total, word, row.get(2)?);
    }
    Ok(sums)
}

/// A sum that does not depend on the order.
fn add_word(total: u64, word: &str, at: i64) -> u64 {
    total.wrapping_add(1 << 32 | u64::from(Checksum::new(at).text(Some(word)).finish()))
}
