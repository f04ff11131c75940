//! The axum driver: [`Relay`] and its router, and [`serve`], the accept loop.

mod accept;
mod clock;
mod crowd;
mod feed;
mod follow;
mod gate;
mod links;
mod metrics;
mod problem;
mod read;
mod relay;
mod routes;
mod search;
mod socket;
mod sse;
mod steer;
mod viewer_socket;
mod wrapper_socket;
mod writer;

pub use accept::{Listener, ServeLimits, serve};
pub use clock::now;
pub use relay::{Relay, RelayConfig, ViewerLimits};
pub use routes::{Needs, ROUTES, Route};
