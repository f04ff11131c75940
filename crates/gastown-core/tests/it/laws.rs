//! What holds after every event, whatever is asked, reported and in which order.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use gastown_core::{
    Agent, AgentPhase, Change, Command, Desired, Effect, Registration, Rejection, Request, Role, Runtime,
    RuntimeKind, Scope, StartCause, Town, TownEvent, WrapperExit, effects, limits,
};
use proptest::prelude::*;
use protocol::{AgentId, Event, Seq, Timestamp};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn p22_the_town_equals_the_fold_of_its_journal(steps in history()) {
        let run = Run::of(steps)?;
        let folded = Town::fold(run.town.id().clone(), &run.journal).unwrap();
        prop_assert_eq!(&folded, &run.town);
    }

    #[test]
    fn p22_events_of_unknown_types_between_the_others_change_nothing(steps in history(), every in 1_usize..5) {
        let run = Run::of(steps)?;
        let mut journal = Vec::new();
        for (n, event) in run.journal.iter().enumerate() {
            if n % every == 0 {
                journal.push(unknown(event));
            }
            journal.push(event.clone());
        }
        prop_assert_eq!(Town::fold(run.town.id().clone(), &journal).unwrap(), run.town);
    }

    #[test]
    fn p22_the_invariants_hold_after_every_event(steps in history()) {
        // `Run::of` checks them event by event.
        Run::of(steps)?;
    }

    #[test]
    fn p21_restarts_without_request_are_bounded_in_any_window(steps in history()) {
        let run = Run::of(steps)?;
        let mut restarts: BTreeMap<AgentId, Vec<Timestamp>> = BTreeMap::new();
        for event in &run.events {
            if let Change::AgentStarted { agent, cause, .. } = &event.change {
                let restarts = restarts.entry(agent.clone()).or_default();
                match cause {
                    StartCause::Crashed => restarts.push(event.time),
                    // A person looked at it: the budget begins anew.
                    StartCause::Requested => restarts.clear(),
                    StartCause::Lost | _ => {}
                }
                let recent = restarts.iter().filter(|at| event.time.since(**at) < limits::RESTART_WINDOW).count();
                prop_assert!(recent <= limits::RESTARTS, "{recent} restarts of {agent}");
            }
        }
    }

    #[test]
    fn nothing_is_due_before_the_deadline_and_something_is_at_it(steps in history()) {
        let run = Run::of(steps)?;
        let tick = Request::by("worker", Command::Tick);
        match run.town.next_deadline() {
            Some(deadline) => {
                let before = Timestamp::from_unix_ms(deadline.unix_ms() - 1);
                prop_assert_eq!(run.town.decide(before, &tick), Ok(vec![]));
                prop_assert!(!run.town.decide(deadline, &tick).unwrap().is_empty());
            }
            None => {
                let ever = run.now.after(Duration::from_secs(1_000_000));
                prop_assert_eq!(run.town.decide(ever, &tick), Ok(vec![]));
            }
        }
    }

    #[test]
    fn what_was_removed_is_changed_by_no_event_but_a_new_registration(steps in history()) {
        let run = Run::of(steps)?;
        for gone in run.town.retired().keys() {
            for event in run.events.iter().filter(|event| event.change.about() == gone.as_str()) {
                if matches!(event.change, Change::AgentRegistered { .. }) {
                    continue;
                }
                let mut town = run.town.clone();
                town.evolve(&TownEvent { by: without_key(event), ..event.clone() });
                prop_assert_eq!(&town, &run.town);
            }
        }
    }

    #[test]
    fn a_request_that_is_repeated_under_its_key_changes_nothing(steps in history(), last in step()) {
        let mut run = Run::of(steps)?;
        let request = Request { key: Some("last".into()), ..run.request(&last) };
        if let Ok(events) = run.town.decide(run.now, &request) && !events.is_empty() {
            events.iter().for_each(|event| run.town.evolve(event));
            prop_assert_eq!(run.town.decide(run.now, &request), Ok(vec![]));
        }
    }
}

/// One thing that happens.
#[derive(Debug, Clone)]
struct Step {
    /// Milliseconds since the one before.
    after_ms: u64,
    what: What,
    agent: usize,
    /// A key, mostly none; few enough that they repeat.
    key: Option<u8>,
}

#[derive(Debug, Clone)]
enum What {
    Register {
        start: bool,
    },
    Start,
    Stop {
        drain: bool,
    },
    Remove,
    /// A report of the newest generation, or one that many below.
    Exited {
        below: u64,
        exit: WrapperExit,
    },
    Lost {
        below: u64,
    },
    /// One of few links, so that they repeat, for that many milliseconds.
    Share {
        id: u8,
        life_ms: u64,
    },
    Unshare {
        id: u8,
    },
    /// Of one of few people, so that they repeat, for that many milliseconds or for ever.
    IssueToken {
        name: u8,
        life_ms: Option<u64>,
    },
    RevokeToken {
        name: u8,
    },
    Tick,
    /// Until the deadline, then a tick.
    Alarm,
}

/// A run of a history, with the world outside as far as it matters: which wrappers are there.
struct Run {
    town: Town,
    now: Timestamp,
    events: Vec<TownEvent>,
    journal: Vec<Event>,
    /// The wrapper that was launched last and whose end was not reported.
    live: BTreeMap<AgentId, u64>,
    highest: BTreeMap<AgentId, u64>,
}

impl Run {
    fn of(steps: Vec<Step>) -> Result<Self, TestCaseError> {
        let mut run = Self {
            town: Town::new("main".parse().unwrap()),
            now: Timestamp::from_unix_ms(0),
            events: Vec::new(),
            journal: Vec::new(),
            live: BTreeMap::new(),
            highest: BTreeMap::new(),
        };
        for step in steps {
            run.step(&step)?;
        }
        Ok(run)
    }

    fn step(&mut self, step: &Step) -> Result<(), TestCaseError> {
        self.now = self.now.after(Duration::from_millis(step.after_ms));
        if matches!(step.what, What::Alarm)
            && let Some(deadline) = self.town.next_deadline()
        {
            self.now = self.now.max(deadline);
        }
        let request = self.request(step);
        let before = self.town.clone();
        let decided = self.town.decide(self.now, &request);
        if let Command::WrapperExited { agent, generation, .. } | Command::WrapperLost { agent, generation } =
            &request.command
            && self.live.get(agent) == Some(generation)
        {
            self.live.remove(agent);
        }
        match decided {
            Ok(events) => events.into_iter().try_for_each(|event| self.commit(event)),
            Err(Rejection::StaleGeneration { generation, latest, .. }) => {
                prop_assert_ne!(generation, latest);
                Ok(())
            }
            Err(_) => {
                prop_assert_eq!(&before, &self.town);
                Ok(())
            }
        }
    }

    fn commit(&mut self, event: TownEvent) -> Result<(), TestCaseError> {
        self.town.evolve(&event);
        self.journal.push(event.to_journal().at(Seq::new(self.journal.len() as u64 + 1)));
        for effect in effects(&event) {
            match effect {
                Effect::Launch { agent, generation } => {
                    let highest = self.highest.insert(agent.clone(), generation).unwrap_or(0);
                    prop_assert!(generation > highest, "generations rise, also over a removal");
                    prop_assert_eq!(self.live.insert(agent, generation), None, "one wrapper at a time");
                }
                Effect::Stop { agent, generation, .. } => {
                    prop_assert_eq!(self.live.get(&agent), Some(&generation))
                }
                Effect::Forget { agent } => {
                    prop_assert_eq!(self.live.get(&agent), None, "stopped before removed")
                }
                Effect::Announce { .. } | _ => {}
            }
        }
        for share in self.town.shares(event.time) {
            prop_assert!(self.town.agent(&share.agent).is_some(), "a link goes with its agent: {share:?}");
        }
        let names: Vec<&str> = self.town.user_tokens(event.time).map(|token| token.name.as_str()).collect();
        let distinct: BTreeSet<&str> = names.iter().copied().collect();
        prop_assert_eq!(names.len(), distinct.len(), "one good token of a name");
        self.events.push(event);
        self.town.agents().values().try_for_each(|agent| self.check(agent))
    }

    fn check(&self, agent: &Agent) -> Result<(), TestCaseError> {
        let wanted = matches!(agent.phase, AgentPhase::Running | AgentPhase::BackingOff { .. });
        prop_assert_eq!(agent.desired == Desired::Running, wanted);
        prop_assert_eq!(agent.name.to_ascii_lowercase(), agent.id.as_str());
        prop_assert!(!self.town.retired().contains_key(&agent.id), "nobody is there and gone");
        prop_assert!(agent.restarts.len() <= limits::RESTARTS);
        if self.live.contains_key(&agent.id) {
            prop_assert!(agent.phase.has_wrapper(), "a wrapper that is there is known: {agent:?}");
        }
        Ok(())
    }

    fn request(&self, step: &Step) -> Request {
        let name = ["Toast", "jam", "Rye"][step.agent];
        let agent: AgentId = name.to_ascii_lowercase().parse().unwrap();
        let generation =
            |below: u64| self.town.agent(&agent).map_or(1, |agent| agent.generation).saturating_sub(below);
        let command = match &step.what {
            What::Register { start } => Command::Register { registration: registration(name), start: *start },
            What::Start => Command::Start { agent },
            What::Stop { drain } => Command::Stop { agent, drain: *drain },
            What::Remove => Command::Remove { agent },
            What::Exited { below, exit } => {
                Command::WrapperExited { generation: generation(*below), agent, exit: exit.clone() }
            }
            What::Lost { below } => Command::WrapperLost { generation: generation(*below), agent },
            What::Share { id, life_ms } => {
                let lasts = Duration::from_millis(*life_ms);
                Command::Share { agent, share: format!("s{id}"), lasts, label: None }
            }
            What::Unshare { id } => Command::Unshare { agent, share: format!("s{id}") },
            What::IssueToken { name, life_ms } => Command::IssueToken {
                token: format!("t{}", self.journal.len()),
                name: format!("user{name}"),
                scope: Scope::Read,
                digest: "d".into(),
                lasts: life_ms.map(Duration::from_millis),
            },
            What::RevokeToken { name } => Command::RevokeToken { name: format!("user{name}") },
            What::Tick | What::Alarm => Command::Tick,
        };
        // What the worker reports has no key: only people and programs repeat themselves.
        let is_report =
            matches!(step.what, What::Exited { .. } | What::Lost { .. } | What::Tick | What::Alarm);
        match step.key {
            Some(key) if !is_report => Request::by("operator", command).with_key(format!("key{key}")),
            _ => Request::by("operator", command),
        }
    }
}

fn history() -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec(step(), 0..80)
}

fn step() -> impl Strategy<Value = Step> {
    let gap = prop_oneof![4 => 0_u64..2_000, 2 => 0_u64..100_000, 1 => 0_u64..100_000_000];
    let key = prop_oneof![6 => Just(None), 1 => (0_u8..3).prop_map(Some)];
    (gap, what(), 0_usize..3, key).prop_map(|(after_ms, what, agent, key)| Step {
        after_ms,
        what,
        agent,
        key,
    })
}

fn what() -> impl Strategy<Value = What> {
    let exit = prop_oneof![
        1 => Just(WrapperExit::Finished),
        1 => Just(WrapperExit::Superseded),
        1 => Just(WrapperExit::Unusable { reason: "no binary".into() }),
        3 => Just(WrapperExit::Crashed { reason: "exit code 3".into() }),
    ];
    let below = prop_oneof![4 => Just(0_u64), 1 => 1_u64..3];
    prop_oneof![
        2 => any::<bool>().prop_map(|start| What::Register { start }),
        3 => Just(What::Start),
        1 => any::<bool>().prop_map(|drain| What::Stop { drain }),
        1 => Just(What::Remove),
        6 => (below.clone(), exit).prop_map(|(below, exit)| What::Exited { below, exit }),
        1 => below.prop_map(|below| What::Lost { below }),
        1 => (0_u8..4, 0_u64..200_000).prop_map(|(id, life_ms)| What::Share { id, life_ms }),
        1 => (0_u8..4).prop_map(|id| What::Unshare { id }),
        1 => (0_u8..3, prop::option::of(0_u64..200_000))
            .prop_map(|(name, life_ms)| What::IssueToken { name, life_ms }),
        1 => (0_u8..3).prop_map(|name| What::RevokeToken { name }),
        1 => Just(What::Tick),
        3 => Just(What::Alarm),
    ]
}

fn registration(name: &str) -> Registration {
    Registration {
        name: name.into(),
        role: Role::Polecat,
        runtime: Runtime::of(RuntimeKind::Opencode),
        directory: "/src".into(),
        repository: None,
    }
}

fn unknown(event: &Event) -> Event {
    Event { kind: "town.bead.closed".into(), ..event.clone() }
}

fn without_key(event: &TownEvent) -> gastown_core::By {
    gastown_core::By { key: None, ..event.by.clone() }
}
