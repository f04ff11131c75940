//! The axum driver: [`Relay`] and its router, and [`serve`], the accept loop.

mod accept;
mod relay;

pub use accept::{ServeLimits, serve};
pub use relay::{Relay, RelayConfig};
