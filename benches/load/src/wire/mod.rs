//! The least of each protocol that a client needs, without sockets. A function that is fed takes the bytes at hand and
//! says how many of them it used; the rest is offered again with what follows.

pub(crate) mod http;
pub(crate) mod resp;
pub(crate) mod websocket;
