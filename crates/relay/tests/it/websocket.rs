//! RFC 6455 over raw TCP, section by section: what a relay answers to each sequence of bytes, on the viewer's socket and on
//! the wrapper's, written at once and byte by byte. No WebSocket library stands in between: it would not send most of this.

mod closing;
mod control;
mod fragments;
mod framing;
mod handshake;
mod raw;
mod text;
