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
    /// Bytes are taken, and arrive nowhere; new connections are accepted, and answered by nobody. What was taken stays
    /// lost: a connection that lost some is reset when the weather changes.
    HalfOpen,
    /// One bit of each piece is flipped, in a way that the receiver can see: the bit that no ASCII text has. A change
    /// that makes other valid text is for TCP's checksum and for TLS to find, as docs/operations.md says.
    Corrupted,
    /// In one of so many pieces one bit is flipped, whichever: for TLS to find.
    Flipped {
        one_in: u32,
    },
    /// Connections are reset, and new ones are too.
    Cut,
}

/// What the weather is, and how often it reset all connections: a reset that is over at once is one all the same.
#[derive(Debug, Clone, Copy)]
struct Sky {
    weather: Weather,
    cuts: u64,
}

/// Forwards connections to one address until it is dropped.
pub(crate) struct Proxy {
    /// Where to connect to.
    pub(crate) address: String,
    sky: watch::Sender<Sky>,
    passed: Arc<Mutex<u64>>,
    task: JoinHandle<()>,
}

impl Proxy {
    pub(crate) async fn to(target: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("it is bound").to_string();
        let sky = watch::Sender::new(Sky { weather: Weather::Fair, cuts: 0 });
        let passed = Arc::default();
        let task = tokio::spawn(forward(listener, target.to_owned(), sky.clone(), Arc::clone(&passed)));
        Self { address, sky, passed, task }
    }

    pub(crate) fn set(&self, weather: Weather) {
        self.sky.send_modify(|sky| {
            sky.weather = weather;
            sky.cuts += u64::from(weather == Weather::Cut);
        });
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

async fn forward(listener: TcpListener, target: String, sky: watch::Sender<Sky>, passed: Arc<Mutex<u64>>) {
    let mut connections = JoinSet::new();
    loop {
        let Ok((near, _)) = listener.accept().await else { continue };
        while connections.try_join_next().is_some() {}
        if sky.borrow().weather == Weather::Cut {
            continue;
        }
        let (target, sky, passed) = (target.clone(), sky.subscribe(), Arc::clone(&passed));
        connections.spawn(async move {
            let Ok(far) = TcpStream::connect(target).await else { return };
            let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
            let up = pass(near_in, far_out, sky.clone(), &passed);
            let down = pass(far_in, near_out, sky, &passed);
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
    mut sky: watch::Receiver<Sky>,
    passed: &Mutex<u64>,
) {
    let mut piece = vec![0; 16 * 1024];
    let (cuts, mut has_lost) = (sky.borrow().cuts, false);
    loop {
        let read = tokio::select! {
            biased;
            over = sky.wait_for(|sky| sky.cuts > cuts || (has_lost && sky.weather != Weather::HalfOpen)) => {
                return drop(over);
            }
            read = from.read(&mut piece) => read,
        };
        let Ok(len @ 1..) = read else { return };
        let bytes = &mut piece[..len];
        let now = sky.borrow_and_update().weather;
        let step = match now {
            Weather::Chopped => 1,
            Weather::Throttled(_) => 512,
            Weather::Fair
            | Weather::Delayed(_)
            | Weather::HalfOpen
            | Weather::Corrupted
            | Weather::Flipped { .. }
            | Weather::Cut => len,
        };
        if now == Weather::Corrupted {
            bytes[len / 2] ^= 0x80;
        }
        if let Weather::Flipped { one_in } = now
            && rand::random_ratio(1, one_in)
        {
            let bit = rand::random_range(0..8 * len);
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
        for some in bytes.chunks(step) {
            match now {
                Weather::HalfOpen => {
                    has_lost = true;
                    continue;
                }
                Weather::Delayed(by) => sleep_until(Instant::now() + by).await,
                Weather::Throttled(rate) => {
                    sleep_until(Instant::now() + Duration::from_millis(some.len() as u64 * 1_000 / rate))
                        .await;
                }
                Weather::Fair
                | Weather::Chopped
                | Weather::Corrupted
                | Weather::Flipped { .. }
                | Weather::Cut => {}
            }
            if to.write_all(some).await.is_err() {
                return;
            }
            *passed.lock().unwrap_or_else(PoisonError::into_inner) += some.len() as u64;
        }
    }
}
