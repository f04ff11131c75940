//! What the load harnesses measure with. Linux only.
//!
//! [`clock`] is the one clock of a harness; [`processes`] is what the system says of a server, of the harness, and of all
//! others.

pub mod clock;
pub mod processes;
