//! The one client that every server is measured with: threads with a runtime of their own, one task per connection, and
//! one read buffer per thread. Only the codecs differ.

mod producers;
mod viewers;

use std::{cell::RefCell, future::poll_fn, net::SocketAddr, pin::Pin, task::Poll, time::Duration};

use anyhow::{Result, bail};
use hdrhistogram::Histogram;
use tokio::{
    io::{AsyncRead as _, ReadBuf},
    net::{TcpSocket, TcpStream},
};

pub(crate) use producers::{Load, produce, produce_after};
pub(crate) use viewers::{ViewerPlan, Viewers};

/// Time for one connect.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);
/// Connects that are tried: a burst of thousands overflows the backlog of some servers.
const CONNECTS: usize = 4;
/// The third digit of a latency is noise.
const DIGITS: u8 = 2;

/// The longest latency that is told from longer ones.
const LONGEST: Duration = Duration::from_secs(300);

/// A histogram of nanoseconds.
pub(crate) fn latencies() -> Histogram<u64> {
    let longest = u64::try_from(LONGEST.as_nanos()).expect("minutes fit");
    Histogram::new_with_bounds(1, longest, DIGITS).expect("the bounds and the precision are valid ones")
}

/// Runs on one thread, as each side of the client does.
fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime needs no more than memory")
}

async fn connect(address: SocketAddr, receive_buffer: Option<u32>) -> Result<TcpStream> {
    let mut tries = 1;
    loop {
        let socket = TcpSocket::new_v4()?;
        if let Some(bytes) = receive_buffer {
            socket.set_recv_buffer_size(bytes)?;
        }
        match tokio::time::timeout(CONNECT_WITHIN, socket.connect(address)).await {
            Ok(Ok(stream)) => {
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Ok(Err(error)) if tries == CONNECTS => return Err(error.into()),
            Err(_) if tries == CONNECTS => bail!("connecting took too long"),
            Ok(Err(_)) | Err(_) => tries += 1,
        }
    }
}

/// Reads once into the thread's buffer and gives it to `take`, after what it left the last time. The answer is the number
/// of bytes read; 0 is the end.
async fn read(
    stream: &mut TcpStream,
    buffer: &RefCell<Vec<u8>>,
    rest: &mut Vec<u8>,
    mut take: impl FnMut(&[u8]) -> Result<usize>,
) -> Result<usize> {
    poll_fn(|cx| {
        let mut buffer = buffer.borrow_mut();
        let mut into = ReadBuf::new(&mut buffer);
        match Pin::new(&mut *stream).poll_read(cx, &mut into) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Err(error)) => Poll::Ready(Err(error.into())),
            Poll::Ready(Ok(())) => {
                let read = into.filled();
                let taken = if rest.is_empty() {
                    take(read).map(|used| rest.extend_from_slice(&read[used..]))
                } else {
                    rest.extend_from_slice(read);
                    take(rest).map(|used| drop(rest.drain(..used)))
                };
                if rest.is_empty() {
                    rest.shrink_to(64 * 1024);
                }
                Poll::Ready(taken.map(|()| read.len()))
            }
        }
    })
    .await
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read as _, Write as _},
        net::TcpListener,
        sync::Arc,
        thread::JoinHandle,
    };

    use super::*;
    use crate::{
        event,
        judge::Verdict,
        peer::{
            Peer, ProducerCodec, ViewerCodec,
            frames::{FrameProducer, FrameViewer},
        },
        wire::websocket::{handshake, server_text, unmasked},
    };

    const PATIENCE: Duration = Duration::from_secs(20);

    #[test]
    fn what_a_bad_server_does_to_a_viewer_is_seen() {
        let (peer, serving) = serving(|mut stream| {
            let (mut bytes, mut event) = (Vec::new(), Vec::new());
            for number in [1, 3, 2, 2] {
                event::encode(number, 0, 300, &mut event);
                server_text(&event, &mut bytes);
            }
            stream.write_all(&bytes).unwrap();
            assert_eq!(stream.read(&mut [0]).unwrap(), 0, "the viewer leaves");
        });
        let viewers = Viewers::start(&peer, vec![ViewerPlan::of("a")], 1);
        viewers.wait_ready(PATIENCE).unwrap();
        viewers.drain(4, PATIENCE);
        assert_eq!(viewers.events(), 4);
        let watched = viewers.finish();
        assert_eq!(watched.verdict(|_| 5), Verdict { lost: 2, duplicates: 1, disordered: 1 });
        serving.join().unwrap();
    }

    #[test]
    fn a_viewer_that_is_sent_away_says_so() {
        let (peer, serving) = serving(drop);
        let plans = vec![ViewerPlan::of("a"); 2];
        // The second never gets in: the server has gone with the first.
        let viewers = Viewers::start(&peer, plans, 1);
        serving.join().unwrap();
        viewers.wait_ready(PATIENCE).unwrap_err();
        assert_eq!(viewers.finish().error.as_deref(), Some("the server ended a stream"));
    }

    #[test]
    fn a_producer_counts_acks_and_not_what_it_sent() {
        for (acks, error) in [(3, None), (1, Some("the server ended the producer's connection"))] {
            let (peer, serving) = serving(move |mut stream| {
                let (mut bytes, mut piece, mut events) = (Vec::new(), [0; 4096], 0);
                while events < 3 {
                    let read = stream.read(&mut piece).unwrap();
                    bytes.extend_from_slice(&piece[..read]);
                    while let Some((_, len)) = unmasked(&bytes) {
                        bytes.drain(..len);
                        events += 1;
                    }
                }
                let mut answer = Vec::new();
                (0..acks).for_each(|_| server_text(b"ok", &mut answer));
                stream.write_all(&answer).unwrap();
            });
            let load =
                Load { events: 3, time: PATIENCE, rate: None, window: 8, batch: 1, size: 300, phase: 0.0 };
            let produced = produce(&peer, vec![("a".to_owned(), load)]).remove(0);
            serving.join().unwrap();
            assert_eq!((produced.sent, produced.acked), (3, acks));
            assert_eq!(produced.error.as_deref(), error);
        }
    }

    /// A server that lets one client in and does this to it.
    fn serving(then: impl FnOnce(std::net::TcpStream) + Send + 'static) -> (Arc<dyn Peer>, JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let peer = Frames(listener.local_addr().unwrap());
        let serving = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let (mut head, mut byte) = (Vec::new(), [0]);
            while !head.ends_with(b"\r\n\r\n") {
                stream.read_exact(&mut byte).unwrap();
                head.push(byte[0]);
            }
            stream.write_all(b"HTTP/1.1 101 Switching Protocols\r\n\r\n").unwrap();
            then(stream);
        });
        (Arc::new(peer), serving)
    }

    struct Frames(SocketAddr);

    impl Peer for Frames {
        fn viewer_address(&self) -> SocketAddr {
            self.0
        }

        fn viewer(&self, _channel: &str) -> Box<dyn ViewerCodec> {
            Box::new(FrameViewer::new(handshake("here", "/", "")))
        }

        fn producer(&self, _channel: &str) -> Box<dyn ProducerCodec> {
            Box::new(FrameProducer::new(handshake("here", "/", "")))
        }
    }
}
