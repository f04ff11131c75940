//! A rendered page as a tree of elements with ids, and the one way a page changes: [`diff`] between two trees, and
//! [`since`] for a reader who holds the page as it was at a cursor.
//!
//! The law: applying `diff(old, new)` to the HTML of `old` gives the HTML of `new`. Nothing else in the dashboard makes
//! patch operations, so nothing else can break it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use protocol::{Seq, frame::PatchOp};

/// One element with an id, as patches address it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Node {
    /// The element's id, unique on the page.
    pub id: Arc<str>,
    /// The position in the log of the last change of what this element itself shows, its children not counted.
    /// [`ALWAYS`] for an element that does not know.
    pub changed: Seq,
    /// What the element holds.
    pub content: Content,
}

/// For elements that do not know when they changed last: whoever joins is given them.
pub(crate) const ALWAYS: Seq = Seq::new(u64::MAX);

/// What an element holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Content {
    /// HTML that changes only as a whole.
    Leaf(Arc<str>),
    /// Text that grows at its end: `open`, the text, `close`. The text is the only content of the element `target`.
    Text {
        /// HTML before the text, up to and with the start tag of `target`.
        open: Arc<str>,
        /// The id of the element that text is appended to.
        target: Arc<str>,
        /// The text, not escaped.
        text: Arc<str>,
        /// HTML after the text.
        close: Arc<str>,
    },
    /// Elements that come and go: `open`, the children, `close`. The children are the only content of `container`.
    Branch {
        /// HTML before the children, up to and with the start tag of `container`.
        open: Arc<str>,
        /// The id of the children's parent element.
        container: Arc<str>,
        /// The children in their order.
        children: Vec<Node>,
        /// HTML after the children.
        close: Arc<str>,
    },
}

impl Node {
    /// An element that changes only as a whole. The HTML is one element with this id.
    pub(crate) fn leaf(id: impl Into<Arc<str>>, changed: Seq, html: impl Into<Arc<str>>) -> Self {
        Self { id: id.into(), changed, content: Content::Leaf(html.into()) }
    }

    /// The element's HTML.
    pub(crate) fn html(&self) -> String {
        let mut out = String::new();
        self.write(&mut out);
        out
    }

    fn write(&self, out: &mut String) {
        match &self.content {
            Content::Leaf(html) => out.push_str(html),
            Content::Text { open, text, close, .. } => {
                out.push_str(open);
                escape_into(text, out);
                out.push_str(close);
            }
            Content::Branch { open, children, close, .. } => {
                out.push_str(open);
                for child in children {
                    child.write(out);
                }
                out.push_str(close);
            }
        }
    }

    /// The same with only the children from this one on.
    pub(crate) fn html_from(&self, first: usize) -> String {
        let Content::Branch { open, children, close, .. } = &self.content else { return self.html() };
        let mut out = open.to_string();
        for child in children.iter().skip(first) {
            child.write(&mut out);
        }
        out.push_str(close);
        out
    }

    /// Whether it shows nothing at present.
    pub(crate) fn is_hidden(&self) -> bool {
        matches!(&self.content, Content::Leaf(html) if html.ends_with(" hidden></li>"))
    }

    /// The elements directly inside, of a branch.
    pub(crate) fn children(&self) -> &[Self] {
        match &self.content {
            Content::Branch { children, .. } => children,
            Content::Leaf(_) | Content::Text { .. } => &[],
        }
    }
}

/// The operations that make `new` of `old`. Both are the same element: their ids are equal.
pub(crate) fn diff(old: &Node, new: &Node) -> Vec<PatchOp> {
    let mut ops = Vec::new();
    // Removals come first: an element that moves to another parent must not be removed after it was inserted there.
    removals(old, new, &mut ops);
    changes(old, new, &mut ops);
    ops
}

/// The operations for a reader whose page shows everything up to and including `seq`: what changed later. Only elements
/// that were there at `seq` and are no more cannot be told from this tree: where a row may vanish, it stays as a hidden
/// one, and after a removal in the log the reader is given the [`whole`].
///
/// Elements that the reader may or may not have are inserted: inserting an element whose id exists puts the new one in
/// its place.
pub(crate) fn since(page: &Node, seq: Seq) -> Vec<PatchOp> {
    let mut ops = Vec::new();
    if page.changed > seq {
        ops.push(PatchOp::Replace(page.id.to_string(), page.html()));
    } else {
        children_since(page, seq, &mut ops);
    }
    ops
}

/// The operations that put the whole page in place of whatever the reader has.
pub(crate) fn whole(page: &Node) -> Vec<PatchOp> {
    vec![PatchOp::Replace(page.id.to_string(), page.html())]
}

/// Every position at which `new` differs from `old` is set to `seq`, so that [`since`] knows what the fold does not.
pub(crate) fn stamp(old: &Node, new: &mut Node, seq: Seq) {
    if new.changed == ALWAYS {
        return;
    }
    match (&old.content, &mut new.content) {
        (
            Content::Branch { open, close, children, .. },
            Content::Branch { open: new_open, close: new_close, children: new_children, .. },
        ) => {
            if open != new_open || close != new_close {
                new.changed = seq;
            }
            let known: BTreeMap<&str, &Node> = children.iter().map(|child| (&*child.id, child)).collect();
            for child in new_children {
                match known.get(&*child.id) {
                    Some(old_child) => stamp(old_child, child, seq),
                    None if child.changed != ALWAYS => child.changed = seq,
                    None => {}
                }
            }
        }
        (before, after) => {
            if *before != *after {
                new.changed = seq;
            }
        }
    }
}

/// Text as HTML text or attribute value.
pub(crate) fn escape_into(text: &str, out: &mut String) {
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            // HTML parsers drop or replace these: the page and its patches would differ.
            '\0' => out.push('\u{fffd}'),
            '\r' => out.push('\n'),
            _ => out.push(c),
        }
    }
}

/// Text as an operation of the page module appends it: the same characters that [`escape_into`] writes.
fn appended(text: &str) -> String {
    text.replace('\0', "\u{fffd}").replace('\r', "\n")
}

fn removals(old: &Node, new: &Node, ops: &mut Vec<PatchOp>) {
    if !same_shell(old, new) {
        return;
    }
    let kept: BTreeMap<&str, &Node> = new.children().iter().map(|child| (&*child.id, child)).collect();
    for child in old.children() {
        match kept.get(&*child.id) {
            Some(new_child) => removals(child, new_child, ops),
            None => ops.push(PatchOp::Remove(child.id.to_string())),
        }
    }
}

fn changes(old: &Node, new: &Node, ops: &mut Vec<PatchOp>) {
    match (&old.content, &new.content) {
        (Content::Leaf(before), Content::Leaf(after)) if before == after => {}
        (Content::Text { text: before, .. }, Content::Text { text: after, target, .. })
            if same_shell(old, new) && after.starts_with(&**before) =>
        {
            if after.len() > before.len() {
                ops.push(PatchOp::Append(target.to_string(), appended(&after[before.len()..])));
            }
        }
        (Content::Branch { children: before, .. }, Content::Branch { children: after, container, .. })
            if same_shell(old, new) =>
        {
            child_changes(container, before, after, ops);
        }
        (_, _) => ops.push(PatchOp::Replace(new.id.to_string(), new.html())),
    }
}

fn child_changes(container: &Arc<str>, before: &[Node], after: &[Node], ops: &mut Vec<PatchOp>) {
    let places: BTreeMap<&str, usize> = before.iter().enumerate().map(|(i, child)| (&*child.id, i)).collect();
    let stay = in_order(after.iter().map(|child| places.get(&*child.id).copied()));
    // From the last to the first: the element before which one is inserted is then always in its place.
    for (i, child) in after.iter().enumerate().rev() {
        match places.get(&*child.id) {
            Some(place) if stay.contains(&i) => changes(&before[*place], child, ops),
            Some(_) | None => ops.push(insert(container, after.get(i + 1), child)),
        }
    }
}

fn children_since(node: &Node, seq: Seq, ops: &mut Vec<PatchOp>) {
    let Content::Branch { container, children, .. } = &node.content else { return };
    for (i, child) in children.iter().enumerate().rev() {
        if child.changed > seq {
            ops.push(insert(container, children.get(i + 1), child));
        } else {
            children_since(child, seq, ops);
        }
    }
}

fn insert(container: &str, next: Option<&Node>, child: &Node) -> PatchOp {
    PatchOp::Insert(container.to_owned(), next.map(|next| next.id.to_string()), child.html())
}

fn same_shell(old: &Node, new: &Node) -> bool {
    match (&old.content, &new.content) {
        (
            Content::Text { open, target, close, .. },
            Content::Text { open: new_open, target: new_target, close: new_close, .. },
        ) => open == new_open && target == new_target && close == new_close,
        (
            Content::Branch { open, container, close, .. },
            Content::Branch { open: new_open, container: new_container, close: new_close, .. },
        ) => open == new_open && container == new_container && close == new_close,
        (Content::Leaf(_) | Content::Text { .. } | Content::Branch { .. }, _) => false,
    }
}

/// Which of the new positions can stay where they are: a longest run whose old positions rise.
fn in_order(old_places: impl Iterator<Item = Option<usize>>) -> BTreeSet<usize> {
    let places: Vec<(usize, usize)> =
        old_places.enumerate().filter_map(|(new, old)| Some((new, old?))).collect();
    // Patience sorting: `ends[k]` is the index of the smallest end of a rising run of k + 1 places.
    let mut ends: Vec<usize> = Vec::new();
    let mut previous = vec![None; places.len()];
    for (i, (_, old)) in places.iter().enumerate() {
        let k = ends.partition_point(|&end| places[end].1 < *old);
        previous[i] = k.checked_sub(1).map(|k| ends[k]);
        if k == ends.len() {
            ends.push(i);
        } else {
            ends[k] = i;
        }
    }
    let mut stay = BTreeSet::new();
    let mut at = ends.last().copied();
    while let Some(i) = at {
        stay.insert(places[i].0);
        at = previous[i];
    }
    stay
}
