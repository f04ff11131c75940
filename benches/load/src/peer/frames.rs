//! The plainest way to speak with a server: WebSockets on both sides, a message per event, a message back as its ack.

use anyhow::{Result, bail};

use super::{Acked, Heard, ProducerCodec, ViewerCodec};
use crate::wire::websocket::{Socket, TEXT, client_frame};

/// A viewer whose messages are events.
pub(crate) struct FrameViewer {
    hello: Vec<u8>,
    socket: Socket,
}

impl FrameViewer {
    pub(crate) fn new(hello: Vec<u8>) -> Self {
        Self { hello, socket: Socket::default() }
    }
}

impl ViewerCodec for FrameViewer {
    fn open(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.hello)
    }

    fn feed(&mut self, bytes: &[u8], heard: &mut Heard<'_>) -> Result<usize> {
        let events = &mut *heard.events;
        let fed = self.socket.feed(bytes, &mut heard.reply, |message| {
            events(message);
            Ok(())
        })?;
        heard.ready |= fed.opened;
        heard.closed |= fed.closed;
        Ok(fed.used)
    }
}

/// A producer that sends a frame per event, and gets one for each as its ack.
pub(crate) struct FrameProducer {
    hello: Vec<u8>,
    socket: Socket,
}

impl FrameProducer {
    pub(crate) fn new(hello: Vec<u8>) -> Self {
        Self { hello, socket: Socket::default() }
    }
}

impl ProducerCodec for FrameProducer {
    fn open(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.hello)
    }

    fn encode(&mut self, events: &[Vec<u8>], out: &mut Vec<u8>) {
        for event in events {
            client_frame(TEXT, event, out);
        }
    }

    fn feed(&mut self, bytes: &[u8], acked: &mut Acked) -> Result<usize> {
        let mut events = 0;
        let fed = self.socket.feed(bytes, &mut acked.reply, |_| {
            events += 1;
            Ok(())
        })?;
        acked.events += events;
        acked.ready |= fed.opened;
        if fed.closed {
            bail!("the server closed the producer's socket");
        }
        Ok(fed.used)
    }
}
