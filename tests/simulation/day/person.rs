//! Somebody who watches the agent and prompts it, over the real client.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::StreamExt;
use protocol::{Command, CommandResult, Prompt, Timestamp, view::SessionView};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use relay::{
    Delivery,
    auth::{Claims, ServiceClaims},
    client::{Client, Credentials, Dial as _, Token},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::watch,
    time::{sleep, timeout},
};

use crate::{
    agents::{agent_id, log_of},
    network::{Dialer, RELAY_PORT, RELAY_URL},
    oracle::Seen,
    relay_host,
    world::World,
};

/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(60);
/// How a prompt begins whose answer somebody waits for.
pub(super) const PROBE: &str = "probe";
/// Between two tries of what has to be taken.
const RETRY: Duration = Duration::from_secs(3);

/// What a person has seen and said. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Person {
    knows: Arc<Mutex<Knows>>,
    /// Counts what is to be asked until it is taken.
    wanted: watch::Sender<u64>,
    seed: u64,
}

#[derive(Default)]
struct Knows {
    view: SessionView,
    /// Prompts that were accepted.
    accepted: Vec<String>,
    /// The last one that was to be taken, once it was.
    last_taken: Option<String>,
    said: u64,
}

impl Person {
    pub(super) fn new(seed: u64) -> Self {
        Self { knows: Arc::default(), wanted: watch::Sender::new(0), seed }
    }

    /// Has the agent asked something, again and again until it takes it.
    pub(super) fn ask_until_taken(&self) {
        self.knows().last_taken = None;
        self.wanted.send_modify(|wanted| *wanted += 1);
    }

    pub(super) fn last_taken(&self) -> Option<String> {
        self.knows().last_taken.clone()
    }

    pub(super) fn accepted(&self) -> Vec<String> {
        self.knows().accepted.clone()
    }

    pub(super) fn see<T>(&self, look: impl FnOnce(&SessionView) -> T) -> T {
        look(&self.knows().view)
    }

    fn knows(&self) -> MutexGuard<'_, Knows> {
        self.knows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One life of the person's machine.
    pub(crate) async fn live(self, world: World) -> turmoil::Result {
        let watching = tokio::spawn(self.clone().watch(world.clone()));
        self.prompt_now_and_then(&world).await;
        watching.await?;
        Ok(())
    }

    async fn watch(self, world: World) {
        let log = log_of(0);
        world.book().opens(0, &log);
        let client = Client::new(RELAY_URL, Credentials::bearer(Token::new(&token())))
            .expect("the relay's URL is one")
            .with_dialer(Arc::new(world.network.dialer("viewer/0/")));
        let mut stream = client.follow_when_there(log, None);
        while let Some(delivery) = stream.next().await {
            match delivery {
                Ok(Delivery::Event(event)) => {
                    let key = event.key.as_ref().map_or("", |key| key.as_str());
                    world.trace.say(format!("{} {} {key}", event.seq, event.kind));
                    self.knows().view.apply(&event);
                    world.book().seen(0, Seen::Event((*event).clone()));
                }
                Ok(Delivery::Gap { from, to, reason }) => {
                    world.book().seen(0, Seen::Gap { from, to, reason });
                }
                Ok(_) => {}
                Err(error) => return world.fail(format!("the viewer: {error:?}")),
            }
        }
        world.fail("the viewer's stream ended".to_owned());
    }

    async fn prompt_now_and_then(&self, world: &World) {
        let mut random = StdRng::seed_from_u64(self.seed ^ 0x9e37);
        let mut wanted = self.wanted.subscribe();
        let dialer = world.network.dialer("viewer/1/");
        loop {
            let is_wanted = tokio::select! {
                biased;
                changed = wanted.changed() => changed.is_ok(),
                () = sleep(Duration::from_secs(random.random_range(30..900))) => false,
            };
            if !is_wanted {
                self.prompt(world, &dialer, "prompt").await;
                continue;
            }
            let taken = loop {
                // Whatever is under way is not waited for.
                self.command(world, &dialer, Command::Abort).await;
                match self.prompt(world, &dialer, PROBE).await {
                    Some(prompt) => break prompt,
                    None => sleep(RETRY).await,
                }
            };
            self.knows().last_taken = Some(taken);
        }
    }

    /// Prompts once; gives the prompt if it was accepted.
    async fn prompt(&self, world: &World, dialer: &Dialer, name: &str) -> Option<String> {
        let text = {
            let mut knows = self.knows();
            knows.said += 1;
            format!("{name}-{}", knows.said)
        };
        let prompt = Prompt { text: Some(text.clone()), ..Prompt::default() };
        let is_ok = self.command(world, dialer, Command::Prompt(prompt)).await;
        if is_ok {
            self.knows().accepted.push(text.clone());
        }
        is_ok.then_some(text)
    }

    async fn command(&self, world: &World, dialer: &Dialer, command: Command) -> bool {
        let id = {
            let mut knows = self.knows();
            knows.said += 1;
            format!("c-{}", knows.said)
        };
        let text = if let Command::Prompt(prompt) = &command { prompt.text.clone() } else { None };
        let name = text.unwrap_or_else(|| "abort".to_owned());
        let result = timeout(PATIENCE, post(dialer, &id, &command)).await.ok().flatten();
        let said = match &result {
            Some(CommandResult { error: Some(error), .. }) => error.code.to_string(),
            Some(_) => "done".to_owned(),
            None => "no answer".to_owned(),
        };
        world.trace.say(format!("{name}: {said}"));
        result.is_some_and(|result| result.ok)
    }
}

/// Gives the agent a command; nothing if the relay did not answer.
async fn post(dialer: &Dialer, id: &str, command: &Command) -> Option<CommandResult> {
    let body = serde_json::to_string(command).expect("a command serialises");
    let request = format!(
        "POST /v1/agents/{}/commands HTTP/1.1\r\nHost: relay\r\nConnection: close\r\nAuthorization: Bearer {}\r\n\
         Idempotency-Key: {id}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        agent_id(0),
        token(),
        body.len()
    );
    let mut stream = dialer.dial("relay", RELAY_PORT).await.ok()?;
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.ok()?;
    serde_json::from_str(answer.split_once("\r\n\r\n")?.1).ok()
}

/// What reads and steers every agent of the town.
fn token() -> String {
    let claims = ServiceClaims {
        town: World::town(),
        service: "simulation".to_owned(),
        expires: Timestamp::from_unix_ms(1_000_000_000_000),
    };
    relay_host::keys().sign(&Claims::Service(claims)).expose().to_owned()
}
