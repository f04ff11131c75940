//! A document for tests: HTML as we write it (well-formed but for void elements), with the operations of a patch as the
//! page module carries them out.

use std::fmt::Write as _;

use protocol::frame::PatchOp;

/// An element, or a run of text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Dom {
    /// `<name attributes>children</name>`
    Element {
        /// Its name.
        name: String,
        /// Its attributes as written, values unescaped.
        attributes: Vec<(String, String)>,
        /// What is inside.
        children: Vec<Self>,
    },
    /// Text, unescaped.
    Text(String),
}

const VOID: [&str; 6] = ["br", "hr", "input", "meta", "link", "img"];

impl Dom {
    /// Parses the inside of one element.
    ///
    /// # Panics
    /// When the HTML is not well-formed: that is a bug of a renderer.
    pub(crate) fn parse(html: &str) -> Self {
        let mut stack =
            vec![Self::Element { name: "root".into(), attributes: Vec::new(), children: Vec::new() }];
        let mut rest = html;
        while let Some(at) = rest.find('<') {
            push(&mut stack, Self::Text(unescape(&rest[..at])));
            let end = tag_end(&rest[at..]);
            let tag = &rest[at + 1..at + end];
            rest = &rest[at + end + 1..];
            if tag.starts_with('!') {
                continue;
            }
            if let Some(name) = tag.strip_prefix('/') {
                let closed = stack.pop().expect("an end tag has a start tag");
                assert_eq!(closed.name(), name, "tags are nested in:\n{html}");
                push(&mut stack, closed);
            } else {
                let (name, attributes) = start_tag(tag);
                let is_void = VOID.contains(&name.as_str());
                let element = Self::Element { name, attributes, children: Vec::new() };
                if is_void { push(&mut stack, element) } else { stack.push(element) }
            }
        }
        push(&mut stack, Self::Text(unescape(rest)));
        assert_eq!(stack.len(), 1, "every element is closed in:\n{html}");
        stack.remove(0)
    }

    /// Carries out an operation, as the page module does.
    pub(crate) fn apply(&mut self, op: &PatchOp) {
        match op {
            PatchOp::Replace(id, html) => {
                if let Some(element) = self.find(id) {
                    *element = only_child(html);
                }
            }
            PatchOp::Append(id, text) => {
                if let Some(Self::Element { children, .. }) = self.find(id) {
                    append(children, Self::Text(text.clone()));
                }
            }
            PatchOp::Insert(parent, before, html) => {
                let fresh = only_child(html);
                if let Some(id) = fresh.id() {
                    self.remove(id);
                }
                if let Some(Self::Element { children, .. }) = self.find(parent) {
                    let place = |id: &String| children.iter().position(|child| child.id() == Some(id));
                    match before.as_ref().map(place) {
                        None => children.push(fresh),
                        Some(Some(at)) => children.insert(at, fresh),
                        // It belongs before something that this page begins after.
                        Some(None) => {}
                    }
                }
            }
            PatchOp::Remove(id) => self.remove(id),
        }
    }

    /// Every element, this one first.
    pub(crate) fn elements(&self) -> Vec<&Self> {
        let mut all = Vec::new();
        if let Self::Element { children, .. } = self {
            all.push(self);
            for child in children {
                all.extend(child.elements());
            }
        }
        all
    }

    /// The name; empty for text.
    pub(crate) fn name(&self) -> &str {
        if let Self::Element { name, .. } = self { name } else { "" }
    }

    /// The attributes.
    pub(crate) fn attributes(&self) -> &[(String, String)] {
        if let Self::Element { attributes, .. } = self { attributes } else { &[] }
    }

    /// The id, if there is one.
    pub(crate) fn id(&self) -> Option<&str> {
        self.attributes().iter().find(|(name, _)| name == "id").map(|(_, value)| value.as_str())
    }

    /// The document, an element or text per line: what two documents are compared by.
    pub(crate) fn outline(&self) -> String {
        let mut out = String::new();
        self.write_outline(0, &mut out);
        out
    }

    fn write_outline(&self, depth: usize, out: &mut String) {
        let indent = "  ".repeat(depth);
        match self {
            Self::Text(text) => writeln!(out, "{indent}{text:?}").expect("a string takes it"),
            Self::Element { name, attributes, children } => {
                writeln!(out, "{indent}<{name} {attributes:?}>").expect("a string takes it");
                for child in children {
                    child.write_outline(depth + 1, out);
                }
            }
        }
    }

    fn find(&mut self, id: &str) -> Option<&mut Self> {
        if self.id() == Some(id) {
            return Some(self);
        }
        let Self::Element { children, .. } = self else { return None };
        children.iter_mut().find_map(|child| child.find(id))
    }

    fn remove(&mut self, id: &str) {
        let Self::Element { children, .. } = self else { return };
        children.retain(|child| child.id() != Some(id));
        for child in children {
            child.remove(id);
        }
    }
}

fn only_child(html: &str) -> Dom {
    let Dom::Element { mut children, .. } = Dom::parse(html) else {
        unreachable!("a document is an element")
    };
    assert_eq!(children.len(), 1, "an operation carries one element: {html}");
    children.remove(0)
}

fn push(stack: &mut [Dom], child: Dom) {
    if let Some(Dom::Element { children, .. }) = stack.last_mut() {
        append(children, child);
    }
}

/// Adjacent texts are one, as they are to a reader.
fn append(children: &mut Vec<Dom>, child: Dom) {
    match (children.last_mut(), child) {
        (_, Dom::Text(text)) if text.is_empty() => {}
        (Some(Dom::Text(before)), Dom::Text(text)) => before.push_str(&text),
        (_, child) => children.push(child),
    }
}

/// Where a tag ends: `>` counts only outside of quotes.
fn tag_end(tag: &str) -> usize {
    let mut quoted = false;
    tag.char_indices()
        .find(|(_, c)| {
            quoted ^= *c == '"';
            *c == '>' && !quoted
        })
        .map(|(at, _)| at)
        .expect("a tag ends")
}

fn start_tag(tag: &str) -> (String, Vec<(String, String)>) {
    let (name, mut rest) = tag.split_once(' ').unwrap_or((tag, ""));
    let mut attributes = Vec::new();
    while !rest.trim_start().is_empty() {
        rest = rest.trim_start();
        let end = rest.find(['=', ' ']).unwrap_or(rest.len());
        let key = rest[..end].to_owned();
        if let Some(value) = rest[end..].strip_prefix("=\"") {
            let close = value.find('"').expect("a value is quoted");
            attributes.push((key, unescape(&value[..close])));
            rest = &value[close + 1..];
        } else {
            attributes.push((key, String::new()));
            rest = &rest[end..];
        }
    }
    (name.to_owned(), attributes)
}

fn unescape(text: &str) -> String {
    text.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"").replace("&amp;", "&")
}
