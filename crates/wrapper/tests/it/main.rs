//! The wrapper with real processes and sockets.

mod guard;
mod opencode;
