//! The producers of one run.

use std::{cell::RefCell, collections::VecDeque, rc::Rc, sync::Arc, time::Duration};

use anyhow::{Context as _, Result, bail};
use hdrhistogram::Histogram;
use meter::clock::now_ns;
use tokio::{
    io::AsyncWriteExt as _,
    net::TcpStream,
    sync::Semaphore,
    task::{JoinHandle, LocalSet, spawn_local},
};

use super::{connect, latencies, read, runtime};
use crate::{
    event,
    peer::{Acked, Peer, ProducerCodec},
};

/// Time without an ack after which a producer gives up.
const PATIENCE: Duration = Duration::from_secs(10);
/// Connects that are under way at a time.
const AT_ONCE: usize = 64;
/// Bytes that one read takes.
const READ_BYTES: usize = 64 * 1024;

/// What a producer is to do.
#[derive(Debug, Clone)]
pub(crate) struct Load {
    /// It ends after this many events,
    pub(crate) events: u64,
    /// or this time.
    pub(crate) time: Duration,
    /// Events per second; without one, as fast as they are acked.
    pub(crate) rate: Option<f64>,
    /// Events that may be unacked.
    pub(crate) window: usize,
    /// Events of one request, where the server has requests with several.
    pub(crate) batch: usize,
    /// Bytes of an event.
    pub(crate) size: usize,
    /// Events of a paced producer's schedule that are due at once: a part of one, so that many do not send in step.
    pub(crate) phase: f64,
}

/// What became of it.
#[derive(Debug)]
pub(crate) struct Produced {
    pub(crate) sent: u64,
    pub(crate) acked: u64,
    /// When the first was sent, and the last acked.
    pub(crate) began: u64,
    pub(crate) last_ack: u64,
    /// From sending to ack.
    pub(crate) latency: Histogram<u64>,
    pub(crate) error: Option<String>,
}

/// Runs one producer per channel, all on one thread, to their end.
pub(crate) fn produce(peer: &Arc<dyn Peer>, jobs: Vec<(String, Load)>) -> Vec<Produced> {
    produce_after(peer, jobs, || {})
}

/// The same; `ready` is called when all are connected and before any of them sends.
pub(crate) fn produce_after(
    peer: &Arc<dyn Peer>,
    jobs: Vec<(String, Load)>,
    ready: impl FnOnce() + Send,
) -> Vec<Produced> {
    let run = || LocalSet::new().block_on(&runtime(), produce_all(peer, jobs, ready));
    std::thread::scope(|scope| scope.spawn(run).join().expect("producers do not panic"))
}

async fn produce_all(peer: &Arc<dyn Peer>, jobs: Vec<(String, Load)>, ready: impl FnOnce()) -> Vec<Produced> {
    let buffer = Rc::new(RefCell::new(vec![0; READ_BYTES]));
    let gate = Rc::new(Semaphore::new(AT_ONCE));
    let opening = jobs.into_iter().map(|(channel, load)| {
        let (peer, buffer, gate) = (Arc::clone(peer), Rc::clone(&buffer), Rc::clone(&gate));
        spawn_local(async move {
            let _permit = gate.acquire().await?;
            Ok((Producer::open(&*peer, &channel, buffer).await?, load))
        })
    });
    let opened = joined(opening.collect()).await;
    ready();
    let running = opened.into_iter().map(|opened: Result<(Producer, Load)>| {
        spawn_local(async move {
            let mut produced =
                Produced { sent: 0, acked: 0, began: 0, last_ack: 0, latency: latencies(), error: None };
            let ended = match opened {
                Ok((mut producer, load)) => producer.run(&load, &mut produced).await,
                Err(error) => Err(error),
            };
            produced.error = ended.err().map(|error| format!("{error:#}"));
            produced
        })
    });
    joined(running.collect()).await
}

async fn joined<T>(tasks: Vec<JoinHandle<T>>) -> Vec<T> {
    let mut all = Vec::with_capacity(tasks.len());
    for task in tasks {
        all.push(task.await.expect("producers do not panic"));
    }
    all
}

/// A producer that is connected and may send.
struct Producer {
    codec: Box<dyn ProducerCodec>,
    stream: TcpStream,
    /// What all producers read into, and the beginning of what this one has not got whole.
    buffer: Rc<RefCell<Vec<u8>>>,
    rest: Vec<u8>,
}

impl Producer {
    async fn open(peer: &dyn Peer, channel: &str, buffer: Rc<RefCell<Vec<u8>>>) -> Result<Self> {
        let (mut codec, stream) = (peer.producer(channel), connect(peer.producer_address(), None).await?);
        let hello = codec.open();
        let mut producer = Self { codec, stream, buffer, rest: Vec::new() };
        if hello.is_empty() {
            return Ok(producer);
        }
        producer.stream.write_all(&hello).await?;
        while !tokio::time::timeout(PATIENCE, producer.hear()).await.context("it was not let in")??.ready {}
        Ok(producer)
    }

    /// Reads once, and answers what must be answered.
    async fn hear(&mut self) -> Result<Acked> {
        let (mut acked, codec) = (Acked::default(), &mut self.codec);
        let heard =
            read(&mut self.stream, &self.buffer, &mut self.rest, |bytes| codec.feed(bytes, &mut acked))
                .await?;
        if heard == 0 {
            bail!("the server ended the producer's connection");
        }
        if !acked.reply.is_empty() {
            self.stream.write_all(&acked.reply).await?;
        }
        Ok(acked)
    }

    async fn run(&mut self, load: &Load, produced: &mut Produced) -> Result<()> {
        produced.began = now_ns();
        let mut unacked: VecDeque<u64> = VecDeque::new();
        let (mut batch, mut out): (Vec<Vec<u8>>, _) = (Vec::new(), Vec::new());
        loop {
            let due = due(load, produced, now_ns());
            if due == Some(0) && unacked.is_empty() {
                return Ok(());
            }
            let room = load.window.saturating_sub(unacked.len()) as u64;
            let mut left = due.unwrap_or(0).min(room);
            while left > 0 {
                let count = left.min(load.batch as u64);
                batch.resize_with(usize::try_from(count)?, Vec::new);
                let sent = now_ns();
                for event in &mut batch {
                    produced.sent += 1;
                    event::encode(produced.sent, sent, load.size, event);
                    unacked.push_back(sent);
                }
                self.codec.encode(&batch, &mut out);
                left -= count;
            }
            self.codec.flush(&mut out);
            if !out.is_empty() {
                self.stream.write_all(&out).await?;
                out.clear();
            }
            let Ok(acked) = tokio::time::timeout(until_next(load, produced), self.hear()).await else {
                let oldest = unacked.front().map_or(0, |sent| now_ns() - sent);
                if Duration::from_nanos(oldest) >= PATIENCE {
                    bail!("no ack came for {} s; {} are outstanding", PATIENCE.as_secs(), unacked.len());
                }
                continue;
            };
            let (acked, now) = (acked?, now_ns());
            for _ in 0..acked.events {
                let sent = unacked.pop_front().context("more was acked than was sent")?;
                produced.latency.saturating_record(now - sent);
            }
            if acked.events > 0 {
                produced.acked += acked.events;
                produced.last_ack = now;
            }
        }
    }
}

/// How many events are to be sent, window aside: `Some(0)` at the end, `None` while a paced one has to wait.
fn due(load: &Load, produced: &Produced, now: u64) -> Option<u64> {
    let elapsed = Duration::from_nanos(now - produced.began);
    let left = load.events - produced.sent;
    if left == 0 || elapsed > load.time {
        return Some(0);
    }
    match load.rate {
        None => Some(left),
        Some(rate) => {
            let scheduled = (elapsed.as_secs_f64() * rate + load.phase) as u64;
            Some(scheduled.saturating_sub(produced.sent).min(left)).filter(|due| *due > 0)
        }
    }
}

/// How long to wait for acks before there is something to send.
fn until_next(load: &Load, produced: &Produced) -> Duration {
    let Some(rate) = load.rate else { return PATIENCE };
    let at = Duration::from_secs_f64(((produced.sent as f64 + 1.0 - load.phase) / rate).max(0.0));
    let elapsed = Duration::from_nanos(now_ns() - produced.began);
    at.saturating_sub(elapsed).clamp(Duration::from_micros(200), Duration::from_millis(500))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_paced_producer_keeps_to_its_schedule_and_catches_up() {
        let load = Load { rate: Some(10.0), ..load() };
        assert_eq!(due(&load, &after(0), 50_000_000), None);
        assert_eq!(due(&load, &after(0), 110_000_000), Some(1));
        assert_eq!(due(&load, &after(1), 110_000_000), None);
        assert_eq!(due(&load, &after(1), 510_000_000), Some(4));
    }

    #[test]
    fn a_producer_ends_with_its_events_or_its_time() {
        assert_eq!(due(&load(), &after(40), 1), Some(60));
        assert_eq!(due(&load(), &after(100), 1), Some(0));
        assert_eq!(due(&load(), &after(1), 1_000_000_001), Some(0));
    }

    fn load() -> Load {
        let time = Duration::from_secs(1);
        Load { events: 100, time, rate: None, window: 64, batch: 1, size: 512, phase: 0.0 }
    }

    fn after(sent: u64) -> Produced {
        Produced { sent, acked: 0, began: 0, last_ack: 0, latency: latencies(), error: None }
    }
}
