//! Each rule of the town by example.

use std::time::Duration;

use gastown_core::{
    AgentPhase, Change, Command, Desired, Effect, Registration, Rejection, Repository, Request, Role,
    Runtime, RuntimeKind, Scope, StartCause, Town, TownEvent, WrapperExit, effects, limits,
};
use protocol::{AgentId, ErrorCode, Timestamp};

#[test]
fn an_agent_is_registered_under_its_name_in_lower_case() {
    let mut town = Desk::new();
    let effects = town.register("Toast", false).unwrap();
    assert_eq!(effects, [Effect::Announce { agent: id("toast") }]);
    let agent = town.town.agent(&id("toast")).unwrap();
    assert_eq!((agent.name.as_str(), agent.generation, agent.desired), ("Toast", 0, Desired::Stopped));
}

#[test]
fn a_name_is_taken_whatever_its_case() {
    let mut town = Desk::new();
    town.register("Toast", false).unwrap();
    let rejection = town.register("tOAST", false).unwrap_err();
    assert_eq!(rejection.to_string(), "the name \"tOAST\" is taken: agent toast has it");
    assert_eq!(rejection.code(), ErrorCode::Conflict);
}

#[test]
fn what_cannot_work_is_not_registered() {
    let mut town = Desk::new();
    for (name, runtime, directory) in [
        ("", Runtime::of(RuntimeKind::Kilo), "/src"),
        ("a b", Runtime::of(RuntimeKind::Kilo), "/src"),
        ("../x", Runtime::of(RuntimeKind::Kilo), "/src"),
        ("a", Runtime::of(RuntimeKind::Kilo), "src"),
        ("a", Runtime::of(RuntimeKind::Kilo), "/src\n"),
        ("a", Runtime::of(RuntimeKind::Scripted), "/src"),
        ("a", Runtime::of(RuntimeKind::Replay), "/src"),
        ("a", Runtime::of(RuntimeKind::Acp), "/src"),
        ("a", Runtime::of(RuntimeKind::Replay).with_recording("r.jsonl"), "/src"),
        ("a", Runtime::of(RuntimeKind::Kilo).with_agent_bin("kilo"), "/src"),
        ("a", Runtime::of(RuntimeKind::Kilo).with_speed("-1"), "/src"),
        ("a", Runtime::of(RuntimeKind::Kilo).with_speed("inf"), "/src"),
    ] {
        let (name, directory) = (name.to_owned(), directory.to_owned());
        let registration = Registration { name, role: Role::Crew, runtime, directory, repository: None };
        let shown = format!("{registration:?}");
        let rejection = town.ask(Command::Register { registration, start: false }).unwrap_err();
        assert_eq!(rejection.code(), ErrorCode::BadRequest, "{shown}");
    }
    assert!(town.town.agents().is_empty());
}

#[test]
fn a_speed_is_a_factor_or_one_of_two_words() {
    for speed in ["4", "0.5", "max", "step"] {
        let mut town = Desk::new();
        let runtime = Runtime::of(RuntimeKind::Replay).with_recording("/r.jsonl").with_speed(speed);
        let registration = Registration { runtime, ..registration("film") };
        assert!(town.ask(Command::Register { registration, start: false }).is_ok(), "{speed}");
    }
}

#[test]
fn an_agent_keeps_its_repository_and_one_that_is_no_repository_is_refused() {
    let mut town = Desk::new();
    let good =
        Repository::at("https://example.org/acme/app.git").with_branch("trunk").with_token_file("/token");
    let with = |name: &str, repository: Repository| Registration {
        repository: Some(repository),
        ..registration(name)
    };
    town.ask(Command::Register { registration: with("toast", good.clone()), start: false }).unwrap();
    assert_eq!(town.town.agent(&id("toast")).unwrap().repository, Some(good));
    for bad in [
        Repository::at(""),
        Repository::at("--upload-pack=x"),
        Repository::at("https://example.org/a\nb"),
        Repository::at("https://me:hunter2@example.org/app"),
        Repository::at("/src").with_branch("-x"),
        Repository::at("/src").with_token_file("token"),
    ] {
        let rejection =
            town.ask(Command::Register { registration: with("nux", bad), start: false }).unwrap_err();
        assert_eq!(rejection.code(), ErrorCode::BadRequest);
        assert!(!rejection.to_string().contains("hunter2"));
    }
}

#[test]
fn each_start_has_a_higher_generation() {
    let mut town = Desk::new();
    town.register("toast", true).unwrap();
    for generation in 1..4 {
        assert_eq!(town.agent().generation, generation);
        town.ask(stop(false)).unwrap();
        town.exited(WrapperExit::Finished);
        assert_eq!(town.agent().phase, AgentPhase::Stopped { reason: None });
        let effects = town.ask(start()).unwrap();
        assert_eq!(effects, [Effect::Launch { agent: id("toast"), generation: generation + 1 }]);
    }
}

#[test]
fn asking_for_what_is_so_does_nothing() {
    let mut town = Desk::new();
    town.register("toast", false).unwrap();
    assert_eq!(town.ask(stop(false)), Ok(vec![]));
    town.ask(start()).unwrap();
    assert_eq!(town.ask(start()), Ok(vec![]));
    town.ask(stop(false)).unwrap();
    assert_eq!(town.ask(stop(false)), Ok(vec![]));
}

#[test]
fn an_agent_that_stops_is_not_started_meanwhile() {
    let mut town = Desk::new();
    town.register("toast", true).unwrap();
    town.ask(stop(true)).unwrap();
    assert_eq!(town.ask(start()), Err(Rejection::Stopping { agent: id("toast") }));
}

#[test]
fn a_drain_is_cut_short_by_a_stop_and_not_the_other_way_round() {
    let mut town = Desk::new();
    town.register("toast", true).unwrap();
    town.ask(stop(true)).unwrap();
    assert_eq!(town.ask(stop(true)), Ok(Vec::new()));
    let effects = town.ask(stop(false)).unwrap();
    assert_eq!(effects, [Effect::Stop { agent: id("toast"), generation: 1, drain: false }]);
    assert_eq!(town.ask(stop(true)), Ok(Vec::new()));
    assert_eq!(town.agent().phase, AgentPhase::Stopping { drain: false, remove: false });
}

#[test]
fn a_running_agent_is_stopped_before_it_is_removed() {
    let mut town = Desk::new();
    town.register("toast", true).unwrap();
    let effects = town.ask(remove()).unwrap();
    assert_eq!(effects, [Effect::Stop { agent: id("toast"), generation: 1, drain: false }]);
    assert_eq!(town.agent().phase, AgentPhase::Stopping { drain: false, remove: true });
    let effects = town.exited(WrapperExit::Crashed { reason: "killed".into() });
    assert_eq!(effects, [Effect::Forget { agent: id("toast") }]);
    assert!(town.town.agents().is_empty());
}

#[test]
fn p6_whoever_takes_the_name_of_a_removed_agent_starts_above_its_generations() {
    let mut town = Desk::new();
    town.register("toast", true).unwrap();
    town.ask(remove()).unwrap();
    town.exited(WrapperExit::Finished);
    let effects = town.register("toast", true).unwrap();
    assert!(effects.contains(&Effect::Launch { agent: id("toast"), generation: 2 }), "{effects:?}");
}

#[test]
fn a_crash_is_answered_with_a_restart_after_a_wait_that_doubles() {
    let mut town = Desk::new();
    town.register("toast", true).unwrap();
    for seconds in [1, 2, 4] {
        town.exited(crash());
        let due = town.now.after(Duration::from_secs(seconds));
        assert_eq!(town.town.next_deadline(), Some(due));
        assert_eq!(town.agent().desired, Desired::Running);
        town.now = due;
        let effects = town.ask(Command::Tick).unwrap();
        assert!(matches!(effects[..], [Effect::Launch { .. }]), "{effects:?}");
    }
    town.exited(crash());
    let AgentPhase::Failed { reason } = &town.agent().phase else { panic!("{:?}", town.agent()) };
    assert!(reason.contains("exit code 3"), "{reason}");
    assert_eq!(town.town.next_deadline(), None);
}

#[test]
fn a_start_on_request_fills_the_restart_budget_again() {
    let mut town = Desk::new();
    town.register("toast", true).unwrap();
    town.crash_until_failed();
    town.ask(start()).unwrap();
    town.exited(crash());
    assert!(matches!(town.agent().phase, AgentPhase::BackingOff { .. }));
}

#[test]
fn p21_a_wrapper_lost_with_its_machine_costs_nothing_of_the_budget() {
    let mut town = Desk::new();
    town.register("toast", true).unwrap();
    for generation in 2..10 {
        let lost = Command::WrapperLost { agent: id("toast"), generation: generation - 1 };
        assert_eq!(town.ask(lost).unwrap(), [Effect::Launch { agent: id("toast"), generation }]);
    }
    assert!(town.agent().restarts.is_empty());
}

#[test]
fn what_a_restart_does_not_cure_is_not_restarted() {
    let mut town = Desk::new();
    town.register("toast", true).unwrap();
    town.exited(WrapperExit::Unusable { reason: "no kilo on PATH: install it".into() });
    assert_eq!(town.agent().phase, AgentPhase::Failed { reason: "no kilo on PATH: install it".into() });
    assert_eq!(town.agent().desired, Desired::Stopped);
}

#[test]
fn a_report_of_an_older_generation_is_refused() {
    let mut town = Desk::new();
    town.register("toast", true).unwrap();
    town.ask(Command::WrapperLost { agent: id("toast"), generation: 1 }).unwrap();
    let late = Command::WrapperExited { agent: id("toast"), generation: 1, exit: crash() };
    let rejection = Rejection::StaleGeneration { agent: id("toast"), generation: 1, latest: 2 };
    assert_eq!(town.ask(late), Err(rejection));
}

#[test]
fn a_key_is_carried_out_once_in_a_day() {
    let mut town = Desk::new();
    town.register("toast", true).unwrap();
    assert_eq!(town.ask_with_key("k", stop(false)).unwrap().len(), 1);
    town.exited(WrapperExit::Finished);
    town.ask(start()).unwrap();
    assert_eq!(town.ask_with_key("k", stop(false)), Ok(vec![]), "the repetition of an old request");
    assert_eq!(town.agent().phase, AgentPhase::Running);
    town.now = town.now.after(Duration::from_secs(24 * 3600));
    assert_eq!(town.ask_with_key("k", stop(false)).unwrap().len(), 1);
}

#[test]
fn a_key_is_not_taken_for_another_request() {
    let mut town = Desk::new();
    town.register("toast", true).unwrap();
    town.ask_with_key("k", stop(false)).unwrap();
    assert_eq!(town.ask_with_key("k", remove()), Err(Rejection::KeyReused));
    assert_eq!(town.ask_with_key("", remove()), Err(Rejection::BadKey));
}

#[test]
fn a_registration_that_is_repeated_under_its_key_is_no_conflict() {
    let mut town = Desk::new();
    let register = || Command::Register { registration: registration("toast"), start: true };
    assert_eq!(town.ask_with_key("k", register()).unwrap().len(), 2);
    assert_eq!(town.ask_with_key("k", register()), Ok(vec![]));
    assert_eq!(town.agent().generation, 1);
}

#[test]
fn the_journal_says_who_asked_for_what_and_why() {
    let town = Town::new("main".parse().unwrap());
    let register = Command::Register { registration: registration("toast"), start: true };
    let request = Request::by("operator", register).with_key("k");
    let events = town.decide(Timestamp::from_unix_ms(5), &request).unwrap();
    let started = &events[1];
    assert_eq!((started.by.actor.as_str(), started.by.command.as_str()), ("operator", "register"));
    assert_eq!(started.by.key.as_deref(), Some("k"));
    let change = Change::AgentStarted { agent: id("toast"), generation: 1, cause: StartCause::Requested };
    assert_eq!(started.change, change);
}

#[test]
fn a_share_link_is_there_until_it_is_revoked_or_its_time_is_over() {
    let mut town = Desk::new();
    town.register("toast", false).unwrap();
    town.ask(share("s1", 60)).unwrap();
    town.ask(share("s2", 10)).unwrap();
    assert_eq!(town.shares(), ["s1", "s2"]);
    town.now = town.now.after(Duration::from_secs(10));
    assert_eq!(town.shares(), ["s1"]);
    let unknown = Rejection::UnknownShare { agent: id("toast"), share: "s2".into() };
    assert_eq!(town.ask(unshare("s2")), Err(unknown), "it has expired");
    town.ask(unshare("s1")).unwrap();
    assert!(town.shares().is_empty());
    assert!(matches!(town.ask(unshare("s1")), Err(Rejection::UnknownShare { .. })));
}

#[test]
fn a_share_link_goes_with_its_agent_and_does_not_come_back_with_its_name() {
    let mut town = Desk::new();
    town.register("toast", false).unwrap();
    town.ask(share("s1", 60)).unwrap();
    town.ask(remove()).unwrap();
    town.register("toast", false).unwrap();
    assert!(town.shares().is_empty());
}

#[test]
fn a_share_link_has_a_life_and_a_label_within_limits() {
    let mut town = Desk::new();
    town.register("toast", false).unwrap();
    let year = limits::SHARE_LIFE.as_secs();
    assert_eq!(town.ask(share("s0", 0)), Err(Rejection::BadExpiry));
    assert_eq!(town.ask(share("s0", year + 1)), Err(Rejection::BadExpiry));
    assert!(town.ask(share("s1", year)).is_ok());
    let labelled = |label: String| {
        let Command::Share { agent, share, lasts, .. } = share("s2", 1_000) else { unreachable!() };
        Command::Share { agent, share, lasts, label: Some(label) }
    };
    assert_eq!(town.ask(labelled("x".repeat(limits::LABEL_BYTES + 1))), Err(Rejection::BadLabel));
    assert_eq!(town.ask(labelled("a\nb".into())), Err(Rejection::BadLabel));
    assert!(town.ask(labelled("x".repeat(limits::LABEL_BYTES))).is_ok());
    for n in 2..limits::SHARES {
        town.ask(share(&format!("t{n}"), year)).unwrap();
    }
    assert_eq!(town.ask(share("one more", 60)), Err(Rejection::TooManyShares));
}

#[test]
fn a_user_token_is_there_until_it_is_revoked_or_its_time_is_over() {
    let mut town = Desk::new();
    town.ask(token("t1", "ann", Some(60))).unwrap();
    town.ask(token("t2", "ben", Some(10))).unwrap();
    town.ask(token("t3", "ci", None)).unwrap();
    assert_eq!(town.tokens(), ["ann", "ben", "ci"]);
    let good_until = town.now.after(Duration::from_millis(9_999));
    assert!(town.town.user_token("t2", good_until).is_some());
    town.now = town.now.after(Duration::from_secs(10));
    assert!(town.town.user_token("t2", town.now).is_none());
    assert_eq!(town.tokens(), ["ann", "ci"]);
    assert_eq!(
        town.ask(revoke("ben")),
        Err(Rejection::UnknownToken { name: "ben".into() }),
        "it has expired"
    );
    town.ask(revoke("Ann")).unwrap();
    assert_eq!(town.tokens(), ["ci"]);
    assert!(matches!(town.ask(revoke("ann")), Err(Rejection::UnknownToken { .. })));
    town.now = town.now.after(100 * limits::TOKEN_LIFE);
    assert_eq!(town.tokens(), ["ci"], "it has no end");
}

#[test]
fn the_name_of_a_user_token_is_free_again_once_no_good_token_has_it() {
    let mut town = Desk::new();
    town.ask(token("t1", "ann", Some(60))).unwrap();
    assert_eq!(
        town.ask(token("t2", "Ann", Some(60))),
        Err(Rejection::TokenNameTaken { name: "Ann".into() }),
        "case does not tell them apart"
    );
    town.ask(revoke("ann")).unwrap();
    town.ask(token("t2", "ann", Some(60))).unwrap();
    assert!(town.town.user_token("t1", town.now).is_none(), "the new one does not bring the old one back");
    town.now = town.now.after(Duration::from_secs(60));
    town.ask(token("t3", "ann", Some(100))).unwrap();
    assert_eq!(town.tokens(), ["ann"]);
}

#[test]
fn a_user_token_has_a_name_and_a_life_within_limits() {
    let mut town = Desk::new();
    for bad in ["", "two words", "-x", "@x", "a/b", "é", "a\n", &"x".repeat(limits::TOKEN_NAME_BYTES + 1)] {
        assert!(matches!(town.ask(token("t0", bad, None)), Err(Rejection::BadTokenName { .. })), "{bad:?}");
    }
    let longest = limits::TOKEN_LIFE.as_secs();
    for bad in [0, longest + 1] {
        assert_eq!(town.ask(token("t0", "ann", Some(bad))), Err(Rejection::BadTokenExpiry), "{bad} s");
    }
    town.ask(token("t0", &"x".repeat(limits::TOKEN_NAME_BYTES), Some(longest))).unwrap();
    town.ask(token("t1", "brief", Some(1))).unwrap();
    for n in 2..limits::TOKENS {
        town.ask(token(&format!("t{n}"), &format!("ann.{n}_@-"), None)).unwrap();
    }
    assert_eq!(town.ask(token("more", "more", None)), Err(Rejection::TooManyTokens));
}

/// A town with its clock; whatever is asked is committed at once.
struct Desk {
    town: Town,
    now: Timestamp,
}

impl Desk {
    fn new() -> Self {
        Self { town: Town::new("main".parse().unwrap()), now: Timestamp::from_unix_ms(1_000_000) }
    }

    fn ask(&mut self, command: Command) -> Result<Vec<Effect>, Rejection> {
        self.request(&Request::by("operator", command))
    }

    fn ask_with_key(&mut self, key: &str, command: Command) -> Result<Vec<Effect>, Rejection> {
        self.request(&Request::by("operator", command).with_key(key))
    }

    fn request(&mut self, request: &Request) -> Result<Vec<Effect>, Rejection> {
        let events: Vec<TownEvent> = self.town.decide(self.now, request)?;
        events.iter().for_each(|event| self.town.evolve(event));
        Ok(events.iter().flat_map(effects).collect())
    }

    fn register(&mut self, name: &str, start: bool) -> Result<Vec<Effect>, Rejection> {
        self.ask(Command::Register { registration: registration(name), start })
    }

    fn exited(&mut self, exit: WrapperExit) -> Vec<Effect> {
        let generation = self.agent().generation;
        self.ask(Command::WrapperExited { agent: id("toast"), generation, exit }).unwrap()
    }

    fn crash_until_failed(&mut self) {
        while !matches!(self.agent().phase, AgentPhase::Failed { .. }) {
            self.exited(crash());
            if let Some(due) = self.town.next_deadline() {
                self.now = due;
                self.ask(Command::Tick).unwrap();
            }
        }
    }

    fn shares(&self) -> Vec<&str> {
        self.town.shares(self.now).map(|share| share.share.as_str()).collect()
    }

    /// The names of the user tokens that are good.
    fn tokens(&self) -> Vec<&str> {
        self.town.user_tokens(self.now).map(|token| token.name.as_str()).collect()
    }

    fn agent(&self) -> &gastown_core::Agent {
        self.town.agent(&id("toast")).unwrap()
    }
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

fn start() -> Command {
    Command::Start { agent: id("toast") }
}

fn stop(drain: bool) -> Command {
    Command::Stop { agent: id("toast"), drain }
}

fn remove() -> Command {
    Command::Remove { agent: id("toast") }
}

/// A link that is good for so long.
fn share(share: &str, seconds: u64) -> Command {
    let lasts = Duration::from_secs(seconds);
    Command::Share { agent: id("toast"), share: share.into(), lasts, label: None }
}

fn unshare(share: &str) -> Command {
    Command::Unshare { agent: id("toast"), share: share.into() }
}

/// A token that is good for so long, or for ever.
fn token(token: &str, name: &str, seconds: Option<u64>) -> Command {
    Command::IssueToken {
        token: token.into(),
        name: name.into(),
        scope: Scope::Read,
        digest: "d".into(),
        lasts: seconds.map(Duration::from_secs),
    }
}

fn revoke(name: &str) -> Command {
    Command::RevokeToken { name: name.into() }
}

fn crash() -> WrapperExit {
    WrapperExit::Crashed { reason: "exit code 3".into() }
}

fn id(text: &str) -> AgentId {
    text.parse().unwrap()
}
