//! A proxy on loopback that does to connections what networks do.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    task::{JoinHandle, JoinSet},
    time::{Instant, sleep_until},
};

/// What happens to bytes that pass; connections that are open learn of a change at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Weather {
    Fair,
    /// Every piece arrives so much later.
    Delayed(Duration),
    /// Every byte is a piece of its own.
    Chopped,
    /// So many bytes a second.
    Throttled(u64),
    /// Bytes are taken, and arrive nowhere; new connections are accepted, and answered by nobody.
    HalfOpen,
    /// One bit of each piece is flipped.
    Corrupted,
    /// Connections are reset, and new ones are too.
    Cut,
}

/// Forwards connections to one address until it is dropped.
pub(crate) struct Proxy {
    /// Where to connect to.
    pub(crate) address: String,
    weather: watch::Sender<Weather>,
    passed: Arc<Mutex<u64>>,
    task: JoinHandle<()>,
}

impl Proxy {
    pub(crate) async fn to(target: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("it is bound").to_string();
        let weather = watch::Sender::new(Weather::Fair);
        let passed = Arc::default();
        let task = tokio::spawn(forward(listener, target.to_owned(), weather.clone(), Arc::clone(&passed)));
        Self { address, weather, passed, task }
    }

    pub(crate) fn set(&self, weather: Weather) {
        self.weather.send_replace(weather);
    }

    /// Bytes that came through so far.
    pub(crate) fn passed(&self) -> u64 {
        *self.passed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn forward(
    listener: TcpListener,
    target: String,
    weather: watch::Sender<Weather>,
    passed: Arc<Mutex<u64>>,
) {
    let mut connections = JoinSet::new();
    loop {
        let Ok((near, _)) = listener.accept().await else { continue };
        while connections.try_join_next().is_some() {}
        if *weather.borrow() == Weather::Cut {
            continue;
        }
        let (target, weather, passed) = (target.clone(), weather.clone(), Arc::clone(&passed));
        connections.spawn(async move {
            let Ok(far) = TcpStream::connect(target).await else { return };
            let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
            let up = pass(near_in, far_out, weather.subscribe(), &passed);
            let down = pass(far_in, near_out, weather.subscribe(), &passed);
            // A side that ends ends both, as a reset does.
            tokio::select! {
                () = up => {}
                () = down => {}
            }
        });
    }
}

async fn pass(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut weather: watch::Receiver<Weather>,
    passed: &Mutex<u64>,
) {
    let mut piece = vec![0; 16 * 1024];
    loop {
        let read = tokio::select! {
            biased;
            cut = weather.wait_for(|weather| *weather == Weather::Cut) => return drop(cut),
            read = from.read(&mut piece) => read,
        };
        let Ok(len @ 1..) = read else { return };
        let bytes = &mut piece[..len];
        let now = *weather.borrow_and_update();
        let step = match now {
            Weather::Chopped => 1,
            Weather::Throttled(_) => 512,
            Weather::Fair | Weather::Delayed(_) | Weather::HalfOpen | Weather::Corrupted | Weather::Cut => {
                len
            }
        };
        if now == Weather::Corrupted {
            bytes[len / 2] ^= 0x10;
        }
        for some in bytes.chunks(step) {
            match now {
                Weather::HalfOpen => continue,
                Weather::Delayed(by) => sleep_until(Instant::now() + by).await,
                Weather::Throttled(rate) => {
                    sleep_until(Instant::now() + Duration::from_millis(some.len() as u64 * 1_000 / rate))
                        .await;
                }
                Weather::Fair | Weather::Chopped | Weather::Corrupted | Weather::Cut => {}
            }
            if to.write_all(some).await.is_err() {
                return;
            }
            *passed.lock().unwrap_or_else(PoisonError::into_inner) += some.len() as u64;
        }
    }
}
