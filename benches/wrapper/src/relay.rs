//! The other end of the link: takes whatever comes, acks it at once, and says when it came.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use meter::clock::now_ns;
use protocol::{
    NewEvent, Seq,
    codec::Frame as _,
    frame::{FromWrapper, IngestLimits, ToWrapper},
};
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes, WebSocket, accept};

/// Frames that nobody has looked at yet: a whole turn of them.
const FRAMES: usize = 8_192;
/// How long the next frame may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// The relay. Its threads end with the process.
#[derive(Debug)]
pub(crate) struct Relay {
    pub(crate) address: SocketAddr,
    appended: Receiver<Appended>,
}

/// Events of one frame.
#[derive(Debug)]
pub(crate) struct Appended {
    /// When the frame was there.
    pub(crate) at_ns: u64,
    pub(crate) events: Vec<NewEvent>,
}

impl Relay {
    pub(crate) fn start() -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let (appends, appended) = sync_channel(FRAMES);
        thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                let appends = appends.clone();
                // A link that breaks is the wrapper's to make again.
                thread::spawn(move || serve(connection, &appends));
            }
        });
        Ok(Self { address, appended })
    }

    /// What the next frame brings.
    pub(crate) fn next(&self) -> Result<Appended> {
        self.appended.recv_timeout(PATIENCE).context("the wrapper sends nothing more")
    }
}

fn serve(connection: TcpStream, appends: &SyncSender<Appended>) -> Result<()> {
    connection.set_nodelay(true)?;
    let Ok(mut link) = accept(connection) else { bail!("no WebSocket") };
    loop {
        let message = link.read()?;
        let at_ns = now_ns();
        let Message::Text(text) = message else { continue };
        match FromWrapper::decode(text.as_bytes())? {
            FromWrapper::Hello { .. } => {
                let limits = IngestLimits::default();
                say(&mut link, &ToWrapper::Welcome { protocol: 1, acked: 0, limits, config: None })?;
            }
            FromWrapper::Append { first, events } => {
                let through = first + events.len() as u64 - 1;
                say(&mut link, &ToWrapper::Ack { through, seq: Seq::new(through) })?;
                appends.send(Appended { at_ns, events })?;
            }
            FromWrapper::Presence { .. }
            | FromWrapper::Result { .. }
            | FromWrapper::Heartbeat
            | FromWrapper::Bye { .. }
            | _ => {}
        }
    }
}

fn say(link: &mut WebSocket<TcpStream>, frame: &ToWrapper) -> Result<()> {
    Ok(link.send(Message::Text(Utf8Bytes::try_from(frame.encode())?))?)
}
