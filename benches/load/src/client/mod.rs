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
