//! Terminal output as HTML: SGR colours become classes, a carriage return overwrites, every other control sequence is
//! dropped (ECMA-48). Output of commands is hostile input: whatever it holds, only escaped text and our own `<span>`s
//! come out.

use super::tree::escape_into;

/// Columns of one line that are kept; the rest of the line is cut with a mark.
const LINE_COLUMNS: usize = 4_000;

/// Terminal output as lines of HTML.
pub(crate) fn lines(output: &str) -> Vec<String> {
    let mut screen = Screen::default();
    let mut rest = output.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            '\u{1b}' => escape_sequence(&mut rest, &mut screen),
            '\u{9b}' => control_sequence(&mut rest, &mut screen),
            '\n' => screen.new_line(),
            '\r' => screen.column = 0,
            '\u{8}' => screen.column = screen.column.saturating_sub(1),
            '\t' => screen.put('\t'),
            c if c.is_control() => {}
            c => screen.put(c),
        }
    }
    screen.finish()
}

/// How a cell looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Style {
    foreground: Option<Hue>,
    background: Option<Hue>,
    bold: bool,
    italic: bool,
    underline: bool,
    inverse: bool,
}

/// A colour of the eight that the stylesheet knows: 1 red, 2 green, 3 yellow, 4 blue, 5 magenta, 6 cyan, 8 grey.
type Hue = u8;

#[derive(Debug, Default)]
struct Screen {
    done: Vec<String>,
    line: Vec<(char, Style)>,
    column: usize,
    style: Style,
    cut: bool,
}

impl Screen {
    fn put(&mut self, c: char) {
        if self.column >= LINE_COLUMNS {
            self.cut = true;
            return;
        }
        match self.line.get_mut(self.column) {
            Some(cell) => *cell = (c, self.style),
            None => {
                self.line.resize(self.column, (' ', Style::default()));
                self.line.push((c, self.style));
            }
        }
        self.column += 1;
    }

    fn new_line(&mut self) {
        let mut html = line_html(&self.line);
        if self.cut {
            html.push_str("<span class=\"faint\"> … line cut</span>");
        }
        self.done.push(html);
        self.line.clear();
        self.column = 0;
        self.cut = false;
    }

    fn erase_in_line(&mut self, mode: u16) {
        match mode {
            0 => self.line.truncate(self.column),
            2 => self.line.clear(),
            _ => {}
        }
    }

    fn finish(mut self) -> Vec<String> {
        if !self.line.is_empty() || self.cut {
            self.new_line();
        }
        self.done
    }
}

fn line_html(cells: &[(char, Style)]) -> String {
    let mut html = String::with_capacity(cells.len());
    let mut text = String::new();
    for run in cells.chunk_by(|a, b| a.1 == b.1) {
        text.clear();
        text.extend(run.iter().map(|cell| cell.0));
        let classes = run[0].1.classes();
        if classes.is_empty() {
            escape_into(&text, &mut html);
        } else {
            html.push_str("<span class=\"");
            html.push_str(&classes.join(" "));
            html.push_str("\">");
            escape_into(&text, &mut html);
            html.push_str("</span>");
        }
    }
    html
}

impl Style {
    fn classes(self) -> Vec<&'static str> {
        const FOREGROUND: [&str; 9] =
            ["", "ansi-1", "ansi-2", "ansi-3", "ansi-4", "ansi-5", "ansi-6", "", "ansi-8"];
        const BACKGROUND: [&str; 9] = [
            "",
            "ansi-bg-1",
            "ansi-bg-2",
            "ansi-bg-3",
            "ansi-bg-4",
            "ansi-bg-5",
            "ansi-bg-6",
            "",
            "ansi-bg-8",
        ];
        let (foreground, background) = if self.inverse {
            (self.background, Some(self.foreground.unwrap_or(8)))
        } else {
            (self.foreground, self.background)
        };
        let mut classes = Vec::new();
        classes.extend(foreground.map(|hue| FOREGROUND[usize::from(hue)]));
        classes.extend(background.map(|hue| BACKGROUND[usize::from(hue)]));
        classes.extend(self.bold.then_some("ansi-b"));
        classes.extend(self.italic.then_some("ansi-i"));
        classes.extend(self.underline.then_some("ansi-u"));
        classes.retain(|class| !class.is_empty());
        classes
    }

    /// Select Graphic Rendition (ECMA-48 §8.3.117), with the 256 colours and true colours of ISO 8613-6.
    fn select(&mut self, parameters: &[u16]) {
        if parameters.is_empty() {
            *self = Self::default();
        }
        let mut rest = parameters.iter().copied();
        while let Some(parameter) = rest.next() {
            match parameter {
                0 => *self = Self::default(),
                1 => self.bold = true,
                2 => self.foreground = Some(8),
                3 => self.italic = true,
                4 => self.underline = true,
                7 => self.inverse = true,
                22 => self.bold = false,
                23 => self.italic = false,
                24 => self.underline = false,
                27 => self.inverse = false,
                30..=37 => self.foreground = basic(parameter - 30),
                38 => self.foreground = extended(&mut rest),
                39 => self.foreground = None,
                40..=47 => self.background = basic(parameter - 40),
                48 => self.background = extended(&mut rest),
                49 => self.background = None,
                90..=97 => self.foreground = bright(parameter - 90),
                100..=107 => self.background = bright(parameter - 100),
                _ => {}
            }
        }
    }
}

/// Black and white are the ink of the page: it has to be read in light and dark.
fn basic(colour: u16) -> Option<Hue> {
    (1..=6).contains(&colour).then_some(colour as Hue)
}

fn bright(colour: u16) -> Option<Hue> {
    if colour == 0 { Some(8) } else { basic(colour) }
}

fn extended(rest: &mut impl Iterator<Item = u16>) -> Option<Hue> {
    match rest.next()? {
        5 => match rest.next()? {
            colour @ 0..=7 => basic(colour),
            colour @ 8..=15 => bright(colour - 8),
            colour @ 16..=231 => {
                let (colour, level) = (colour - 16, |n: u16| if n == 0 { 0 } else { 55 + 40 * n });
                nearest(level(colour / 36), level(colour / 6 % 6), level(colour % 6))
            }
            colour @ 232..=255 => nearest(colour * 10 - 2312, colour * 10 - 2312, colour * 10 - 2312),
            _ => None,
        },
        2 => nearest(rest.next()?, rest.next()?, rest.next()?),
        _ => None,
    }
}

/// The hue of the stylesheet that is nearest to a colour; grey where it has next to none, ink where it is light.
fn nearest(red: u16, green: u16, blue: u16) -> Option<Hue> {
    let [red, green, blue] = [red, green, blue].map(|level| level.min(255));
    let (top, low) = (red.max(green).max(blue), red.min(green).min(blue));
    if top - low < 48 {
        return (40..150).contains(&top).then_some(8);
    }
    // A level counts as on when it is in the upper half of the range that the colour spans.
    let on = |level: u16| level - low > (top - low) / 2;
    match (on(red), on(green), on(blue)) {
        (true, false, false) => Some(1),
        (false, true, false) => Some(2),
        (true, true, false) => Some(3),
        (false, false, true) => Some(4),
        (true, false, true) => Some(5),
        (false, true, true) => Some(6),
        (false, false, false) | (true, true, true) => None,
    }
}

type Rest<'a> = std::iter::Peekable<std::str::Chars<'a>>;

fn escape_sequence(rest: &mut Rest<'_>, screen: &mut Screen) {
    match rest.peek() {
        Some('[') => {
            rest.next();
            control_sequence(rest, screen);
        }
        // OSC, DCS, SOS, PM, APC: a string up to BEL or ST.
        Some(']' | 'P' | 'X' | '^' | '_') => {
            rest.next();
            control_string(rest);
        }
        Some(c) if ('\u{20}'..='\u{2f}').contains(c) => {
            rest.next();
            rest.next();
        }
        // ESC is followed by one final byte; a line end is never part of a sequence.
        Some(c) if ('\u{30}'..='\u{7e}').contains(c) => {
            rest.next();
        }
        Some(_) | None => {}
    }
}

fn control_string(rest: &mut Rest<'_>) {
    while let Some(c) = rest.next() {
        match c {
            '\u{7}' | '\u{9c}' => return,
            '\u{1b}' => {
                rest.next_if_eq(&'\\');
                return;
            }
            _ => {}
        }
        // An unfinished string must not swallow the lines that follow.
        if rest.peek() == Some(&'\n') {
            return;
        }
    }
}

fn control_sequence(rest: &mut Rest<'_>, screen: &mut Screen) {
    const PARAMETERS: usize = 32;
    let mut parameters = Vec::new();
    let mut number: Option<u16> = None;
    let mut private = false;
    while let Some(c) = rest.next_if(|c| ('\u{20}'..='\u{7e}').contains(c)) {
        match c {
            '0'..='9' => {
                let digit = c as u16 - '0' as u16;
                number = Some(number.unwrap_or(0).saturating_mul(10).saturating_add(digit));
            }
            ';' | ':' => {
                if parameters.len() < PARAMETERS {
                    parameters.push(number.unwrap_or(0));
                }
                number = None;
            }
            '<'..='?' => private = true,
            '\u{20}'..='\u{2f}' => {}
            _ => {
                if parameters.len() < PARAMETERS {
                    parameters.extend(number);
                }
                match c {
                    'm' if !private => screen.style.select(&parameters),
                    'K' if !private => screen.erase_in_line(parameters.first().copied().unwrap_or(0)),
                    'G' if !private => {
                        let column = parameters.first().copied().unwrap_or(1).saturating_sub(1);
                        screen.column = usize::from(column).min(screen.line.len());
                    }
                    _ => {}
                }
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn html(output: &str) -> String {
        lines(output).join("\n")
    }

    #[test]
    fn colours_become_classes() {
        assert_eq!(html("\u{1b}[1;32mok\u{1b}[0m done"), "<span class=\"ansi-2 ansi-b\">ok</span> done");
        assert_eq!(html("\u{1b}[91mbad\u{1b}[m"), "<span class=\"ansi-1\">bad</span>");
    }

    #[test]
    fn colours_of_256_and_true_colours_become_the_nearest_hue() {
        assert_eq!(html("\u{1b}[38;5;196mx"), "<span class=\"ansi-1\">x</span>");
        assert_eq!(html("\u{1b}[38;2;20;200;30mx"), "<span class=\"ansi-2\">x</span>");
        assert_eq!(html("\u{1b}[38;2;120;120;120mx"), "<span class=\"ansi-8\">x</span>");
        assert_eq!(html("\u{1b}[38;5;255mx"), "x", "white is the ink of the page");
        assert_eq!(
            html("\u{1b}[38:2:240:220:40mx"),
            "<span class=\"ansi-3\">x</span>",
            "colons separate as well"
        );
    }

    #[test]
    fn a_carriage_return_overwrites_the_line() {
        assert_eq!(html("10%\r50%\r100%\ndone"), "100%\ndone");
        assert_eq!(html("long line\rshort\u{1b}[K"), "short");
        assert_eq!(html("a\r\nb\r\n"), "a\nb");
    }

    #[test]
    fn cursor_and_title_sequences_are_dropped() {
        assert_eq!(html("\u{1b}]0;title\u{7}a\u{1b}[2Jb\u{1b}[?25lc\u{1b}(Bd"), "abcd");
        assert_eq!(html("\u{1b}]8;;http://evil\u{1b}\\link\u{1b}]8;;\u{1b}\\"), "link");
        assert_eq!(html("\u{1b}]never ended\nnext"), "\nnext");
    }

    #[test]
    fn inverse_swaps_ink_and_ground() {
        assert_eq!(html("\u{1b}[31;7mx"), "<span class=\"ansi-bg-1\">x</span>");
    }

    #[test]
    fn a_line_without_end_is_cut_with_a_mark() {
        let html = html(&"x".repeat(LINE_COLUMNS + 1));
        assert!(html.ends_with("… line cut</span>"), "{}", &html[html.len() - 60..]);
    }

    proptest! {
        #[test]
        fn only_our_own_tags_come_out(output in "(\u{1b}\\[[0-9;:]{0,12}[mKG]|\u{1b}|<[a-z]{1,4}>|[\\PC\r\n\u{8}\"&]){0,60}") {
            for line in lines(&output) {
                let bare = line.replace("</span>", "");
                for (i, _) in bare.match_indices('<') {
                    prop_assert!(bare[i..].starts_with("<span class=\""), "{line:?}");
                }
                prop_assert!(!line.contains(char::from(27)));
            }
        }
    }
}
