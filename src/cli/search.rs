//! `gastown search`.

use std::{collections::BTreeSet, io};

use clap::Args;
use protocol::{
    AgentId, LogId,
    limits::{SEARCH_HITS, SEARCH_HITS_MAX},
    search::{Found, Hit, Piece, Search, SinceError, Terms, TextKind, since},
};
use relay::RelayApi as _;

use super::{
    Exit,
    exit::Refusal,
    paint::{Paint, Tone, clean},
    print,
    progress::{self, say},
    server::{Server, ServerArgs, agent_id, explain_relay},
};

/// Find what agents were told, said and did
#[derive(Debug, Args)]
#[command(after_help = "\
A text is found if it has every word, in any order; case does not count. Words in double quotes follow each other, and a \
* stands for the rest of a word. What is still being written is found when it is finished. The newest come first.

Examples:
  gastown search borrow checker
  gastown search '\"cannot find crate\"' --type tool,error --since 2h
  gastown search 'migrat*' --agent toast --json | jq -r .key")]
pub(super) struct SearchCommand {
    /// Words, \"phrases\" in quotes, and beginnings of words with a * after them
    #[arg(required = true, value_name = "QUERY")]
    query: Vec<String>,
    /// Only what this agent said and did; may be repeated
    #[arg(short, long, value_parser = agent_id, value_delimiter = ',', value_name = "AGENT")]
    agent: Vec<AgentId>,
    /// Only these: prompt, text, reasoning, tool, error, question, permission, session, patch, done
    #[arg(short = 't', long = "type", value_delimiter = ',', value_name = "TYPE")]
    kinds: Vec<TextKind>,
    /// Only since then: how long ago (90s, 15m, 2h, 7d), or a time (2026-11-20T18:00:00Z)
    #[arg(short, long, value_name = "TIME")]
    since: Option<String>,
    /// At most so many
    #[arg(short = 'n', long, default_value_t = SEARCH_HITS, value_name = "COUNT")]
    limit: usize,
    /// Print the hits as they come from the server, one JSON object per line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: ServerArgs,
}

impl SearchCommand {
    pub(super) async fn run(self) -> anyhow::Result<Exit> {
        let search = self.search().map_err(|error| Refusal::because(Exit::Usage, error))?;
        let server = Server::find(&self.server)?;
        let found = progress::shown("searching", self.find(&server, search)).await?;
        let mut text = String::new();
        let paint = Paint::of(&io::stdout());
        for hit in &found.hits {
            match self.json {
                true => text.push_str(&format!("{}\n", serde_json::to_string(hit)?)),
                false => text.push_str(&shown(hit, paint)),
            }
        }
        print(&text)?;
        for damaged in &found.damaged {
            say(&format!("event {} of {} is damaged: see `gastown verify`\n", damaged.seq, damaged.log));
        }
        if found.hits.is_empty() && !self.json {
            let open = self.query.join(" ").parse::<Terms>().ok().and_then(|terms| terms.open_ended());
            let hint = open.map_or(String::new(), |open| format!("; words that begin so: {open}"));
            say(&format!("nothing was found{hint}\n"));
        } else if found.next.is_some() && !self.json {
            say("there is more: --limit COUNT\n");
        }
        Ok(Exit::Done)
    }

    /// What to ask for, or what is wrong with it.
    fn search(&self) -> Result<Search, String> {
        let terms = self.query.join(" ").parse::<Terms>().map_err(|error| error.to_string())?;
        let since = self.since.as_ref().map(|text| since(text, relay::server::now())).transpose();
        let agents = self.agent.iter().cloned().map(LogId::Agent).collect::<BTreeSet<_>>();
        Ok(Search {
            logs: (!agents.is_empty()).then_some(agents),
            kinds: self.kinds.iter().copied().collect(),
            since: since.map_err(|error: SinceError| error.to_string())?,
            ..Search::of(terms)
        })
    }

    /// As many hits as were asked for, over as many answers as it takes.
    async fn find(&self, server: &Server, mut search: Search) -> anyhow::Result<Found> {
        let relay = server.relay().await?;
        let mut all = Found::default();
        loop {
            search.limit = (self.limit - all.hits.len()).min(SEARCH_HITS_MAX);
            if search.limit == 0 {
                return Ok(all);
            }
            let found = relay.search(&search).await.map_err(|error| explain_relay(relay, error))?;
            all.hits.extend(found.hits);
            all.damaged.extend(found.damaged);
            all.next = found.next;
            if all.next.is_none() {
                return Ok(all);
            }
            search.before = all.next;
        }
    }
}

/// A line that says what it is, and the excerpt below it.
fn shown(hit: &Hit, paint: Paint) -> String {
    let time = hit.time.to_string();
    let time = time.get(..19).unwrap_or(&time).replace('T', " ");
    let agent = match &hit.log {
        LogId::Agent(agent) => agent.to_string(),
        LogId::Town(_) => hit.log.to_string(),
    };
    let title = hit.title.as_ref().or(hit.tool.as_ref()).map_or("", |title| title.as_str());
    let title = one_line(title);
    let head = format!(
        "{}  {}  {}  {}",
        paint.paint(Tone::Strong, &agent),
        paint.paint(Tone::Dim, &time),
        paint.paint(Tone::Person, hit.kind.word()),
        title
    );
    let excerpt: String = hit.snippet.iter().map(|piece| painted(piece, paint)).collect();
    format!("{}\n    {}\n", head.trim_end(), excerpt.trim())
}

fn painted(Piece { text, hit }: &Piece, paint: Paint) -> String {
    paint.paint(if *hit { Tone::Ask } else { Tone::Plain }, &one_line(text))
}

/// Foreign text in one line, with the spaces at its ends kept to one.
fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for c in clean(text).chars() {
        match c.is_whitespace() {
            true if line.ends_with(' ') => {}
            true => line.push(' '),
            false => line.push(c),
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use protocol::{Epoch, Seq, search::Field};

    use super::*;

    #[test]
    fn a_hit_is_two_lines_with_what_was_found_marked() {
        assert_eq!(
            shown(&hit(), Paint::Plain),
            "toast  2026-11-20 18:10:16  tool  bash: Run the tests\n    …error: borrow of moved value…\n"
        );
        let coloured = shown(&hit(), Paint::Colour);
        assert!(coloured.contains("\x1b[1;7;33mborrow\x1b[0m of"), "{coloured:?}");
    }

    #[test]
    fn what_an_agent_wrote_cannot_move_the_cursor() {
        let mut hit = hit();
        hit.title = Some("\x1b[2Jgone".into());
        hit.snippet[0].text = "one\r\n\ttwo \x1b]0;title\x07".into();
        let text = shown(&hit, Paint::Plain);
        assert!(text.contains("gone\n    one two borrow"), "{text:?}");
        assert!(!text.contains('\x1b'), "{text:?}");
    }

    fn hit() -> Hit {
        let piece = |text: &str, hit| Piece { text: text.into(), hit };
        Hit {
            log: "agent/toast".parse().unwrap(),
            epoch: Epoch::new("e"),
            seq: Seq::new(7),
            time: "2026-11-20T18:10:16.123Z".parse().unwrap(),
            kind: TextKind::Tool,
            session: None,
            key: None,
            tool: Some("bash".into()),
            title: Some("bash: Run the tests".into()),
            field: Field::Output,
            snippet: vec![
                piece("…error:\n  ", false),
                piece("borrow", true),
                piece(" of moved value…", false),
            ],
        }
    }
}
