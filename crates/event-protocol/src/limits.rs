//! Every limit of the wire, with the reason for the number (§11).

/// An event's `data` that a wrapper sends untrimmed: a screenful of tool output is far below it.
pub const EVENT_DATA_BYTES: usize = 256 * 1024;
/// An event's `data` that the relay accepts at all.
pub const EVENT_DATA_HARD_BYTES: usize = 1024 * 1024;
/// One WebSocket message on the ingest link: one batch of [`BATCH_EVENTS`] or one event of the hard size with its envelope.
pub const INGEST_FRAME_BYTES: usize = 1024 * 1024 + 64 * 1024;
/// Events a wrapper may have sent and not yet seen acked.
pub const INGEST_WINDOW_EVENTS: usize = 1024;
/// Bytes a wrapper may have sent and not yet seen acked.
pub const INGEST_WINDOW_BYTES: usize = 4 * 1024 * 1024;
/// Events in one append, one commit's share and one `events` frame.
pub const BATCH_EVENTS: usize = 256;
/// Bytes in one append.
pub const BATCH_BYTES: usize = 1024 * 1024;
/// One message from a viewer: a subscription or a command with a prompt.
pub const VIEWER_FRAME_BYTES: usize = 16 * 1024;
/// Messages a viewer may send per second; a burst of the same size is allowed.
pub const VIEWER_FRAMES_PER_SECOND: u32 = 20;
/// Subscriptions on one socket.
pub const SUBSCRIPTIONS_PER_SOCKET: usize = 256;
/// Events kept per agent log before pruning (default).
pub const LOG_EVENTS: u64 = 2_000;
/// Bytes kept per agent log before pruning (default).
pub const LOG_BYTES: u64 = 64 * 1024 * 1024;
/// Days without a new event after which an agent's log is emptied (default).
pub const LOG_IDLE_DAYS: u64 = 7;
/// Streams of one log (default).
pub const VIEWERS_PER_LOG: usize = 5_000;
/// Streams of one relay (default).
pub const VIEWERS: usize = 20_000;
/// Streams from one address that is not loopback (default).
pub const VIEWERS_PER_ADDRESS: usize = 256;
/// Milliseconds for a request's header (default): it is one packet, or a few.
pub const HEADER_MS: u64 = 5_000;
/// Bytes of a request's header (default).
pub const HEADER_BYTES: usize = 16 * 1024;
/// Fields of a request's header (default).
pub const HEADERS: usize = 64;
/// Milliseconds for a request's body (default).
pub const BODY_MS: u64 = 15_000;
/// Milliseconds that a connection is kept without a request (default).
pub const IDLE_MS: u64 = 15_000;
/// Milliseconds in which a server ends (default).
pub const DRAIN_MS: u64 = 10_000;
/// Milliseconds without other traffic after which either side of a stream sends a heartbeat.
pub const HEARTBEAT_MS: u64 = 15_000;
/// Milliseconds without any traffic after which the other side counts as dead, if it cannot be asked: three heartbeats.
pub const DEAD_MS: u64 = 45_000;
/// Milliseconds of silence after which wrappers and clients send the relay a WebSocket ping: one heartbeat is missing.
pub const PING_AFTER_MS: u64 = 20_000;
/// Milliseconds that the relay has to answer such a ping before it counts as dead: retransmissions of a poor network take
/// no longer, and a relay that was left too early costs a reconnect with the cursor.
pub const PONG_WITHIN_MS: u64 = 5_000;
/// Milliseconds a viewer may accept no byte before it is closed as stalled (4408).
pub const STALLED_MS: u64 = 60_000;
/// Life of a stream ticket in milliseconds.
pub const TICKET_LIFE_MS: u64 = 60_000;
/// Tickets outstanding per town.
pub const TICKETS_OUTSTANDING: usize = 1_000;
/// Events in one page of `GET …/events`.
pub const PAGE_EVENTS_MAX: usize = 1_000;
/// Events in one page of `GET …/events` when the request does not say.
pub const PAGE_EVENTS: usize = 500;
/// Longest `wait` of a long poll in seconds.
pub const LONG_POLL_S: u64 = 30;
/// Hits of one answer of `GET /v1/search`.
pub const SEARCH_HITS_MAX: usize = 50;
/// Hits of one answer of `GET /v1/search` when the request does not say.
pub const SEARCH_HITS: usize = 20;
/// Bytes of a query.
pub const SEARCH_QUERY_BYTES: usize = 1024;
/// Words of a query: more are no query but a text.
pub const SEARCH_WORDS: usize = 16;
/// Bytes of one event's text that can be found: the first of it, so that a dump of a file costs no more than a page.
pub const SEARCH_TEXT_BYTES: usize = 64 * 1024;
/// Texts with every term that are held against the filters for one answer; the next one looks on.
pub const SEARCH_CANDIDATES: usize = 20_000;
/// Bytes of an HTTP body on the control plane.
pub const HTTP_BODY_BYTES: usize = 64 * 1024;
/// Bytes of an id.
pub const ID_BYTES: usize = 64;
/// Nesting that a JSON text may have (that of `serde_json`, kept on purpose).
pub const JSON_DEPTH: usize = 128;

#[cfg(test)]
mod tests {
    #[test]
    fn the_table_of_the_document_is_the_one_of_the_code() {
        let document = include_str!("../../../docs/protocol.md");
        let code = include_str!("limits.rs").split("#[cfg(test)]").next().expect("a split has a first piece");
        for line in code.lines().filter_map(|line| line.strip_prefix("pub const ")) {
            let (name, rest) = line.split_once(": ").expect("a constant has a type");
            let value = rest.split_once(" = ").expect("a constant has a value").1.trim_end_matches(';');
            let row = format!("| `{name}` | {} |", computed(value));
            assert!(document.contains(&row), "docs/protocol.md §11 has no row {row}");
        }
    }

    /// The value of sums of products of numbers, which is all that stands here.
    fn computed(expression: &str) -> u64 {
        let number = |text: &str| text.trim().replace('_', "").parse::<u64>().expect("a number");
        let product = |term: &str| term.split('*').map(number).product::<u64>();
        expression.split('+').map(product).sum()
    }
}
