//! A day of one whole wrapper: the real one, with its outbox, its link and the life of its agent, around a simulated agent server,
//! before the real relay. Bad hours, in which everything fails, and good ones; a person who prompts through both. After each bad
//! hour the agent answers again, what a viewer folded is what the agent said, and nothing is left waiting.

mod agent_server;
mod held;
mod person;
mod turn;
mod wrapper_host;

use std::time::Duration;

use rand::{RngExt, rngs::StdRng};

pub(crate) use agent_server::{AgentServer, Trouble};
pub(crate) use person::Person;
pub(crate) use wrapper_host::live as wrapper_lives;

use crate::{
    faults::{Change, Schedule},
    world::Run,
};

/// Time after a bad hour in which a prompt is answered: a wrapper starts, an aborted turn ends, a turn takes two minutes.
const ANSWERED: Duration = Duration::from_secs(300);
/// Restarts of an agent in this time (docs/protocol.md §10).
const BUDGET: usize = 3;
const BUDGET_WINDOW: Duration = Duration::from_secs(600);

/// The day's own part of a run.
#[derive(Clone)]
pub(crate) struct Day {
    pub(crate) server: AgentServer,
    pub(crate) person: Person,
}

impl Day {
    pub(crate) fn new(seed: u64) -> Self {
        Self { server: AgentServer::new(seed), person: Person::new(seed) }
    }

    /// Whether the last prompt was answered and everybody knows everything.
    fn is_settled(&self) -> bool {
        let held = self.server.held();
        let answered = self.person.last_taken().is_some_and(|prompt| held.has_answered(&prompt));
        answered && self.person.see(|view| held.difference(view).is_none())
    }

    /// What is still wrong, for whoever has to find out why.
    fn complaint(&self) -> String {
        let held = self.server.held();
        let prompt = self.person.last_taken();
        let difference = self.person.see(|view| held.difference(view));
        let doing = self.person.see(|view| format!("{:?}", view.agent().lifecycle));
        format!("the last prompt that was taken is {prompt:?}, the agent is {doing}, and {difference:?}")
    }

    /// The promises that hold over the whole day.
    fn verdict(&self) -> Result<(), String> {
        let held = self.server.held();
        let twice = held.taken_twice();
        if !twice.is_empty() {
            return Err(format!("prompts that reached the agent more than once: {twice:?}"));
        }
        match self.person.accepted().iter().find(|prompt| held.times_taken(prompt) == 0) {
            Some(prompt) => Err(format!("{prompt} was accepted and never reached the agent")),
            None => Ok(()),
        }
    }
}

/// Plays so much of the day.
pub(crate) fn play(run: &mut Run, day: &Day, length: Duration) -> Result<(), String> {
    let mut random = run.random();
    let (mut hours, mut events) = (0, 0);
    while run.elapsed() < length {
        let end = run.elapsed() + Duration::from_secs(random.random_range(300..3_600));
        run.until_with(bad_hour(&mut random, run.elapsed(), end), end)?;
        run.heal();
        day.server.heal();
        day.person.ask_until_taken();
        let healed = run.elapsed();
        while !(day.is_settled() && run.all_acked()) {
            run.pass(Duration::from_secs(1))?;
            if run.elapsed() > healed + ANSWERED {
                return Err(format!(
                    "{} s after everything was well: {}",
                    ANSWERED.as_secs(),
                    day.complaint()
                ));
            }
        }
        hours += 1;
        events = day.person.see(|view| view.seq().get());
        run.say(format!(
            "WELL after {} s, hour {hours}, {events} events",
            (run.elapsed() - healed).as_secs()
        ));
        run.pass(Duration::from_secs(random.random_range(60..3_600)))?;
    }
    eprintln!("{hours} bad hours, {events} events");
    day.verdict()
}

/// What fails in a bad hour.
fn bad_hour(random: &mut StdRng, begin: Duration, end: Duration) -> Schedule {
    let mut schedule = Schedule::default();
    let mean_s = random.random_range(20..300);
    let mut now = begin;
    while now < end {
        trouble(&mut schedule, now, random);
        now += Duration::from_secs(random.random_range(0..2 * mean_s));
    }
    schedule
}

/// One fault with its end: half of them are the agent server's, the other half the way to the relay's.
fn trouble(schedule: &mut Schedule, now: Duration, random: &mut StdRng) {
    let later = now + Duration::from_secs(random.random_range(3..90));
    let server = match random.random_range(0..12) {
        0..3 => [Some(Trouble::Dies), None],
        3..5 => [Some(Trouble::Freezes), Some(Trouble::Recovers)],
        5..8 => [Some(Trouble::StreamBreaks), Some(Trouble::Recovers)],
        8 => [Some(Trouble::DoesNotStart { times: random.random_range(1..3) }), Some(Trouble::Dies)],
        9 => [Some(Trouble::ModelFallsSilent), None],
        _ => return schedule.fault_of_the_way(now, later, random),
    };
    for (time, trouble) in [now, later].into_iter().zip(server) {
        if let Some(trouble) = trouble {
            schedule.at(time, Change::Server(trouble));
        }
    }
}

/// P21: no more restarts of the agent than the budget has, in one life of a wrapper.
pub(crate) fn assert_budget(starts: &[Duration]) -> Result<(), String> {
    let too_many = starts.windows(BUDGET + 2).find(|window| window[BUDGET + 1] - window[0] < BUDGET_WINDOW);
    too_many.map_or(Ok(()), |window| Err(format!("P21: the agent was started at {window:?}")))
}
