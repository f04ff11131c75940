//! Where the terms of a query are in a text, and the piece of it to show.

use std::{cmp::Reverse, ops::Range};

use serde::{Deserialize, Serialize};

use super::{Field, Term, Terms, Text, Word, words};

/// Bytes of a text that an excerpt shows, about.
const EXCERPT_BYTES: usize = 240;
/// Of these, how many come before the first hit, about.
const BEFORE_BYTES: usize = 60;

/// A piece of an excerpt. In a row the pieces are the excerpt, with `…` where it was cut out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Piece {
    /// Its text: plain, of whoever wrote it, not to be trusted as markup.
    pub text: String,
    /// It is what was looked for.
    #[serde(default, skip_serializing_if = "is_false")]
    pub hit: bool,
}

/// Where a text has the terms, and what is around them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Excerpt {
    /// Which of the event's texts it is from: the one with most of the terms, the first of several.
    pub field: Field,
    /// The excerpt.
    pub pieces: Vec<Piece>,
}

/// One place of one term.
struct Place {
    term: usize,
    range: Range<usize>,
}

impl Terms {
    /// An excerpt of the text, if it has every term.
    #[must_use]
    pub fn match_in(&self, text: &Text) -> Option<Excerpt> {
        let places: Vec<Vec<Place>> = text.fields.iter().map(|(_, text)| places(self, text)).collect();
        let is_there = |term: usize| places.iter().flatten().any(|place| place.term == term);
        if !(0..self.terms().len()).all(is_there) {
            return None;
        }
        let most = (0..places.len()).max_by_key(|i| (distinct(&places[*i]), Reverse(*i)))?;
        let (field, text) = &text.fields[most];
        Some(Excerpt { field: *field, pieces: cut_out(text, &places[most]) })
    }
}

/// Every place of every term, in the order of the text.
fn places(terms: &Terms, text: &str) -> Vec<Place> {
    let words: Vec<Word<'_>> = words(text).collect();
    let mut places = Vec::new();
    for at in 0..words.len() {
        for (i, term) in terms.terms().iter().enumerate() {
            if let Some(last) = end_of(term, &words[at..]) {
                let range = words[at].range.start..words[at + last].range.end;
                places.push(Place { term: i, range });
            }
        }
    }
    places
}

/// The index of the term's last word, if these words begin with the term.
fn end_of(term: &Term, words: &[Word<'_>]) -> Option<usize> {
    let last = term.words.len() - 1;
    let is_there = |(i, word): (usize, &String)| {
        words.get(i).is_some_and(|found| {
            if term.is_prefix && i == last { found.text.starts_with(word) } else { found.text == *word }
        })
    };
    term.words.iter().enumerate().all(is_there).then_some(last)
}

fn distinct(places: &[Place]) -> usize {
    let mut terms: Vec<usize> = places.iter().map(|place| place.term).collect();
    terms.sort_unstable();
    terms.dedup();
    terms.len()
}

/// The piece of the text with most of the terms, its hits marked.
fn cut_out(text: &str, places: &[Place]) -> Vec<Piece> {
    let reach = EXCERPT_BYTES - BEFORE_BYTES;
    let within = |first: usize| {
        let end = places[first].range.start + reach;
        let count = places[first..].iter().take_while(|place| place.range.end <= end).count().max(1);
        &places[first..first + count]
    };
    // A text with a word in every line has many places: the first ones tell as much as all of them.
    let first = (0..places.len().min(256)).max_by_key(|first| (distinct(within(*first)), Reverse(*first)));
    let shown = first.map_or(&[][..], within);
    let start = shown.first().map_or(0, |place| place.range.start);
    let end = shown.last().map_or(0, |place| place.range.end);
    let from = word_start(text, start.saturating_sub(BEFORE_BYTES), start);
    let to = word_end(text, (start + reach).max(end), end);

    let mut pieces = Vec::new();
    let mut at = from;
    let mut plain = String::from(if from > 0 { "…" } else { "" });
    for range in merged(shown) {
        plain.push_str(&text[at..range.start]);
        push(&mut pieces, std::mem::take(&mut plain), false);
        push(&mut pieces, text[range.clone()].to_owned(), true);
        at = range.end;
    }
    plain.push_str(&text[at..to]);
    plain.push_str(if to < text.len() { "…" } else { "" });
    push(&mut pieces, plain, false);
    pieces
}

fn push(pieces: &mut Vec<Piece>, text: String, hit: bool) {
    if !text.is_empty() {
        pieces.push(Piece { text, hit });
    }
}

/// The places without their overlaps.
fn merged(places: &[Place]) -> Vec<Range<usize>> {
    let mut ranges: Vec<Range<usize>> = Vec::new();
    for place in places {
        match ranges.last_mut() {
            Some(last) if place.range.start < last.end => last.end = last.end.max(place.range.end),
            Some(_) | None => ranges.push(place.range.clone()),
        }
    }
    ranges
}

/// Where to begin, at or after `from`: at a word, if one begins before `latest`.
fn word_start(text: &str, from: usize, latest: usize) -> usize {
    if from == 0 {
        return 0;
    }
    let from = text.floor_char_boundary(from);
    text[from..latest]
        .find(char::is_whitespace)
        .map_or(from, |space| from + space + text[from + space..].chars().next().map_or(0, char::len_utf8))
}

/// Where to end, at or before `to`: after a word, if one ends after `earliest`.
fn word_end(text: &str, to: usize, earliest: usize) -> usize {
    if to >= text.len() {
        return text.len();
    }
    let to = text.ceil_char_boundary(to);
    text[earliest..to].rfind(char::is_whitespace).map_or(to, |space| earliest + space)
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_false(hit: &bool) -> bool {
    !hit
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::search::TextKind;

    #[test]
    fn every_term_must_be_there_in_any_field() {
        let text = text(&[(Field::Input, "cargo test"), (Field::Output, "error: borrowed value")]);
        for query in ["cargo", "CARGO borrowed", "\"cargo test\" err* val*", "test cargo"] {
            assert!(matches(query, &text), "{query}");
        }
        for query in ["cargo missing", "\"test cargo\"", "\"cargo borrowed\"", "carg", "orrowed*"] {
            assert!(!matches(query, &text), "{query}");
        }
    }

    #[test]
    fn a_phrase_does_not_reach_from_one_field_into_the_next() {
        let text = text(&[(Field::Input, "one two"), (Field::Output, "three four")]);
        assert!(matches("\"one two\" three", &text));
        assert!(!matches("\"two three\"", &text));
    }

    #[test]
    fn the_excerpt_is_of_the_field_with_most_of_the_terms() {
        let text = text(&[(Field::Title, "bash"), (Field::Input, "bash x"), (Field::Output, "y")]);
        assert_eq!(excerpt("bash", &text).0, Field::Title);
        assert_eq!(excerpt("x bash", &text).0, Field::Input);
        assert_eq!(excerpt("y bash", &text).0, Field::Title);
    }

    #[test]
    fn hits_are_marked_and_the_rest_is_as_it_was() {
        let text = text(&[(Field::Text, "The borrow-checker says: Borrow later")]);
        assert_eq!(excerpt("borrow", &text).1, "The [borrow]-checker says: [Borrow] later");
        assert_eq!(excerpt("\"borrow checker\" says", &text).1, "The [borrow-checker] [says]: Borrow later");
        assert_eq!(
            excerpt("\"borrow checker\" \"checker says\"", &text).1,
            "The [borrow-checker says]: Borrow later"
        );
    }

    #[test]
    fn a_long_text_is_cut_around_the_densest_place() {
        let far = format!("{} alpha {} alpha beta {}", "w ".repeat(300), "w ".repeat(300), "w ".repeat(300));
        let (_, shown) = excerpt("alpha beta", &text(&[(Field::Text, &far)]));
        assert!(shown.starts_with("…w ") && shown.ends_with(" w…"), "{shown}");
        assert!(shown.contains("[alpha] [beta]") && shown.len() < 2 * EXCERPT_BYTES, "{shown}");
    }

    #[test]
    fn prefixes_mark_the_whole_word() {
        let text = text(&[(Field::Text, "retention retains ret")]);
        assert_eq!(excerpt("reta*", &text).1, "retention [retains] ret");
        assert_eq!(excerpt("ret*", &text).1, "[retention] [retains] [ret]");
    }

    proptest! {
        /// Without the ellipses an excerpt is a piece of the text, however the text is cut.
        #[test]
        fn an_excerpt_is_a_piece_of_the_text(words in prop::collection::vec("[aé漢]{1,9}|[^a]", 1..200), pick in any::<prop::sample::Index>()) {
            let whole = words.join(" ");
            let Ok(terms) = pick.get(&words).parse::<Terms>() else { return Ok(()) };
            let text = text(&[(Field::Text, &whole)]);
            let found = terms.match_in(&text).expect("a word of the text is in it");
            let shown: String = found.pieces.iter().map(|piece| piece.text.as_str()).collect();
            prop_assert!(found.pieces.iter().any(|piece| piece.hit));
            let shown = shown.strip_prefix('…').unwrap_or(&shown);
            let shown = shown.strip_suffix('…').unwrap_or(shown);
            prop_assert!(whole.contains(shown), "{:?} of {:?}", shown, whole);
        }
    }

    fn text(fields: &[(Field, &str)]) -> Text {
        let fields = fields.iter().map(|(field, text)| (*field, (*text).to_owned())).collect();
        Text { kind: TextKind::Tool, tool: None, fields }
    }

    fn matches(query: &str, text: &Text) -> bool {
        query.parse::<Terms>().unwrap().match_in(text).is_some()
    }

    fn excerpt(query: &str, text: &Text) -> (Field, String) {
        let found = query.parse::<Terms>().unwrap().match_in(text).unwrap();
        let show = |piece: &Piece| if piece.hit { format!("[{}]", piece.text) } else { piece.text.clone() };
        (found.field, found.pieces.iter().map(show).collect())
    }
}
