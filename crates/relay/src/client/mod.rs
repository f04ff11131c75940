//! The resuming Rust client of a relay (§4 to §8).
//!
//! [`Client::follow`] gives the events of one log, each once and in order, and reconnects for as long as that can
//! help: it holds the cursor, answers and watches heartbeats, waits between attempts (1 s·2ⁿ, at most 5 s, times 0.5
//! to 1.5), gets a fresh ticket for each connection, and passes gaps on. The other methods are one HTTP request each and
//! are not repeated: only the caller knows whether that is wanted. A command may be sent again with the same id, since
//! an agent carries it out at most once.
//!
//! ```no_run
//! use futures_util::StreamExt as _;
//! use gastown_relay::{Delivery, client::{Client, Credentials, Token}};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let token = Token::new(&std::fs::read_to_string("/home/me/.gastown/operator-token")?);
//! let client = Client::new("http://127.0.0.1:4280", Credentials::bearer(token))?;
//! let mut log = client.follow("agent/toast".parse()?, None);
//! while let Some(delivery) = log.next().await {
//!     if let Delivery::Event(event) = delivery? {
//!         println!("{} {}", event.seq, event.kind);
//!     }
//! }
//! # Ok(())
//! # }
//! ```

mod credentials;
mod dial;
mod endpoint;
mod error;
mod follow;
mod http;
mod search;
mod session;
mod trust;

pub use credentials::{Credentials, TicketError, TicketSource, Token, TokenSource};
pub use dial::{Dial, Stream};
pub use error::{ClientError, FollowError};
pub use follow::Follow;
pub use http::{Acked, Client, EventPage, PageGap, Producer, Verb};
pub use session::Connection;

#[cfg(all(test, feature = "server"))]
mod against_relay;
