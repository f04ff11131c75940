//! What the commands that serve have in common: a socket, and signals that end it.

use std::{io, pin::Pin};

use anyhow::Context as _;
use tokio::{net::TcpListener, sync::oneshot};

use super::{
    Exit,
    exit::Refusal,
    progress::{self, say},
    signals::Signals,
};

/// A listener on this address; says what to do if it is taken.
pub(super) async fn bind(address: &str) -> anyhow::Result<TcpListener> {
    match TcpListener::bind(address).await {
        Ok(listener) => Ok(listener),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            let message = format!(
                "something listens on {address} already: is a server running? Another port: --listen"
            );
            Err(Refusal::because(Exit::Conflict, message))
        }
        Err(error) => Err(error).with_context(|| format!("cannot listen on {address}")),
    }
}

/// A listener on this address, or on a port of the system's choice if it is taken.
pub(super) async fn bind_or_any_port(address: &str) -> anyhow::Result<TcpListener> {
    match TcpListener::bind(address).await {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => bind("127.0.0.1:0").await,
        bound => bound.with_context(|| format!("cannot listen on {address}")),
    }
}

/// What tells a server to go down.
pub(super) type Shutdown = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Serves until a signal, then lets the server end in order; another signal does not wait for that.
pub(super) async fn serve_until_signal<E, F>(
    ending: &str,
    signals: &mut Signals,
    serve: impl FnOnce(Shutdown) -> F,
) -> anyhow::Result<Exit>
where
    E: std::error::Error + Send + Sync + 'static,
    F: Future<Output = Result<(), E>>,
{
    let (stop, stopped) = oneshot::channel::<()>();
    let mut serving = Box::pin(serve(Box::pin(async {
        // Dropping the sender stops it as well.
        let _ = stopped.await;
    })));
    tokio::select! {
        ended = &mut serving => {
            ended?;
            return Ok(Exit::Done);
        }
        () = signals.next() => drop(stop),
    }
    tokio::select! {
        ended = progress::shown(ending, serving) => {
            ended?;
            Ok(Exit::Done)
        }
        () = signals.next() => {
            say("ended at once\n");
            Ok(Exit::Interrupted)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::exit::exit_of, *};

    #[tokio::test]
    async fn a_port_that_is_taken_is_refused_with_what_to_do_and_the_demo_takes_another_one() {
        let taken = bind("127.0.0.1:0").await.unwrap();
        let address = taken.local_addr().unwrap().to_string();
        let error = bind(&address).await.unwrap_err();
        assert_eq!(exit_of(&error), Exit::Conflict);
        assert!(error.to_string().contains("--listen"), "{error}");
        let other = bind_or_any_port(&address).await.unwrap();
        assert_ne!(other.local_addr().unwrap(), taken.local_addr().unwrap());
    }
}
