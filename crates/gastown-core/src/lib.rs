//! The town: which agents there are, what is wanted of them and what they are, as one fold of one journal.
//!
//! What it is: the rules of the control plane as pure functions. A request is decided on ([`Town::decide`]), the events
//! that come of it are committed to the town's journal by the caller, folded in ([`Town::evolve`]) and turned into what
//! must be done outside ([`effects`]); what is due without anybody asking is said by [`Town::next_deadline`]. What it is
//! not: there is no I/O here, no clock and no async. Time comes in as `now`; the caller owns journal, processes and alarm.
//!
//! ```
//! use gastown_core::{Command, Registration, Request, Role, Runtime, RuntimeKind, Town, effects};
//! use protocol::Timestamp;
//!
//! let mut town = Town::new("main".parse()?);
//! let now = Timestamp::from_unix_ms(0);
//! let registration = Registration {
//!     name: "toast".into(),
//!     role: Role::Polecat,
//!     runtime: Runtime::of(RuntimeKind::Opencode),
//!     directory: "/src/saltmarsh".into(),
//!     repository: None,
//! };
//! let request = Request::by("operator", Command::Register { registration, start: true });
//! for event in town.decide(now, &request)? {
//!     // Here the event is committed to the journal; nothing is acted on before.
//!     town.evolve(&event);
//!     for effect in effects(&event) {
//!         println!("to be done outside: {effect:?}");
//!     }
//! }
//! assert_eq!(town.agents()[&"toast".parse()?].generation, 1);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod agent;
mod command;
mod decide;
mod effect;
mod event;
pub mod limits;
mod restart;
mod share;
mod state;
mod token;

pub use agent::{Agent, AgentPhase, Desired, Repository, Role, Runtime, RuntimeKind, UnknownName};
pub use command::{Command, Registration, Rejection, Request, WrapperExit};
pub use effect::{Effect, effects};
pub use event::{By, Change, JournalError, StartCause, TownEvent};
pub use share::Share;
pub use state::Town;
pub use token::{Scope, UserToken};
