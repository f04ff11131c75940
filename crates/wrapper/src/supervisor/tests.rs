use proptest::prelude::*;

use super::*;

#[test]
fn p21_a_fourth_death_within_ten_minutes_is_the_last() {
    let mut supervisor = running();
    let mut now = Moment::START;
    for wait in [1, 2, 4] {
        supervisor.died(now, "it died");
        let until = now + Duration::from_secs(wait);
        assert_eq!(supervisor.phase(), Phase::Resting { until });
        now = until;
        supervisor.handle_timeout(now);
        assert_eq!(supervisor.phase(), Phase::Starting);
        supervisor.started();
    }
    supervisor.died(now, "it died");
    assert_eq!((supervisor.phase(), supervisor.exit()), (Phase::Failed, Exit::AgentFailed));
}

#[test]
fn deaths_long_ago_do_not_count() {
    let mut supervisor = running();
    for hour in 0..10 {
        supervisor.died(Moment::from_ms(hour * 3_600_000), "it died");
        supervisor.handle_timeout(Moment::from_ms(hour * 3_600_000 + 1_000));
        supervisor.started();
        assert_eq!(supervisor.phase(), Phase::Idle);
    }
}

#[test]
fn a_binary_that_is_not_there_spends_no_budget() {
    let mut supervisor = Supervisor::new();
    supervisor.cannot_start("no opencode on PATH");
    assert_eq!((supervisor.phase(), supervisor.exit()), (Phase::Failed, Exit::AgentFailed));
}

#[test]
fn an_agent_that_hangs_is_ended_and_started_again() {
    let mut supervisor = running();
    supervisor.turns(true);
    supervisor.hangs("it does not end its turn");
    assert_eq!((supervisor.phase(), supervisor.presence()), (Phase::Hung, WrapperState::Starting));
    supervisor.died(Moment::START, "it does not end its turn");
    assert_eq!(supervisor.phase(), Phase::Resting { until: Moment::START + BACK_OFF });
}

#[test]
fn an_agent_that_is_to_end_anyway_and_hangs_is_not_started_again() {
    let mut supervisor = running();
    supervisor.turns(true);
    supervisor.stop(Moment::START, "drained", Exit::Done, Some(SIGNAL_GRACE));
    supervisor.hangs("it does not end its turn");
    supervisor.died(Moment::START, "killed");
    assert_eq!((supervisor.phase(), supervisor.exit()), (Phase::Stopped, Exit::Done));
}

#[test]
fn a_drain_waits_for_the_turn() {
    let mut supervisor = running();
    supervisor.turns(true);
    supervisor.stop(Moment::START, "drained", Exit::Done, Some(SIGNAL_GRACE));
    supervisor.turns(true);
    assert_eq!(supervisor.phase(), Phase::Draining { until: Moment::START + SIGNAL_GRACE });
    supervisor.turns(false);
    assert_eq!(supervisor.phase(), Phase::Stopping);
}

#[test]
fn a_drain_does_not_wait_for_ever() {
    let mut supervisor = running();
    supervisor.stop(Moment::START, "drained", Exit::Done, Some(SIGNAL_GRACE));
    supervisor.handle_timeout(Moment::START + SIGNAL_GRACE);
    assert_eq!(supervisor.phase(), Phase::Stopping);
}

#[test]
fn a_second_signal_ends_the_drain() {
    let mut supervisor = running();
    supervisor.stop(Moment::START, "drained", Exit::Done, Some(SIGNAL_GRACE));
    supervisor.stop(Moment::START, "stopped", Exit::Done, None);
    assert_eq!(supervisor.phase(), Phase::Stopping);
}

#[test]
fn why_it_ended_first_stays() {
    let mut supervisor = running();
    supervisor.stop(Moment::START, "superseded", Exit::Superseded, None);
    supervisor.stop(Moment::START, "stopped", Exit::Done, None);
    assert_eq!((supervisor.exit(), supervisor.reason()), (Exit::Superseded, "superseded"));
}

#[test]
fn a_turn_is_told_in_its_states() {
    let mut supervisor = running();
    supervisor.turns(true);
    supervisor.turns(true);
    supervisor.turns(false);
    let told: Vec<_> = std::iter::from_fn(|| supervisor.poll())
        .map(|told| (told.from.name(), told.to.name(), told.reason))
        .collect();
    let expected = [
        ("starting", "idle", "it takes prompts"),
        ("idle", "active", "a turn began"),
        ("active", "idle", "the turn is over"),
    ];
    assert_eq!(told, expected.map(|(from, to, why)| (from, to, why.to_owned())));
}

#[derive(Debug, Clone)]
enum Happens {
    Started,
    Turns(bool),
    Hangs,
    Died,
    CannotStart,
    Exited,
    Stop(Option<u64>),
    Timeout,
}

proptest! {
    #[test]
    fn p21_no_order_of_deaths_starts_more_than_the_budget_in_a_window(gaps in proptest::collection::vec((0_u64..400_000, any::<bool>()), 1..40)) {
        let mut supervisor = running();
        let mut now = Moment::START;
        let mut restarts = Vec::new();
        for (gap, hangs) in gaps {
            now = now + Duration::from_millis(gap);
            if hangs {
                supervisor.hangs("it hangs");
            }
            supervisor.died(now, "it died");
            if let Phase::Resting { until } = supervisor.phase() {
                restarts.push(now);
                now = until;
                supervisor.handle_timeout(now);
                supervisor.started();
            } else {
                break;
            }
        }
        for window in restarts.windows(BUDGET + 1) {
            prop_assert!(window[BUDGET].since(window[0]) >= BUDGET_WINDOW);
        }
    }

    #[test]
    fn p14_every_state_has_an_exit_and_every_change_a_reason_that_is_told_once(
        happens in proptest::collection::vec((happening(), 0_u64..60_000), 0..60),
    ) {
        let mut supervisor = Supervisor::new();
        let mut now = Moment::START;
        let mut told = Phase::Starting;
        for (what, later) in happens {
            now = now + Duration::from_millis(later);
            let before = supervisor.phase();
            apply(&mut supervisor, now, &what);
            prop_assert!(!before.is_over() || supervisor.phase() == before, "over is over");
            while let Some(transition) = supervisor.poll() {
                prop_assert_eq!(transition.from.name(), told.name());
                prop_assert_ne!(transition.from.name(), transition.to.name());
                prop_assert!(!transition.reason.is_empty());
                told = transition.to;
            }
            prop_assert_eq!(told.name(), supervisor.phase().name());
        }
        // What waits for time has a time; what waits for the agent leaves when the agent ends, and then it is told to stop.
        if let Some(due) = supervisor.due() {
            let before = supervisor.phase();
            supervisor.handle_timeout(due);
            prop_assert_ne!(supervisor.phase(), before);
        }
        supervisor.stop(now, "stopped", Exit::Done, None);
        supervisor.died(now, "it died");
        prop_assert!(supervisor.phase().is_over(), "{:?}", supervisor.phase());
    }
}

#[test]
fn only_an_agent_that_was_never_to_end_at_once_is_drained() {
    let asked = |graces: &[Option<u64>]| {
        let mut supervisor = running();
        for grace in graces {
            supervisor.stop(Moment::START, "stopped", Exit::Done, grace.map(Duration::from_millis));
        }
        supervisor.drains()
    };
    assert!(!asked(&[]) && asked(&[Some(10)]) && asked(&[Some(10), Some(5)]));
    assert!(!asked(&[None]) && !asked(&[Some(10), None]) && !asked(&[None, Some(10)]));
}

fn happening() -> impl Strategy<Value = Happens> {
    prop_oneof![
        Just(Happens::Started),
        any::<bool>().prop_map(Happens::Turns),
        Just(Happens::Hangs),
        Just(Happens::Died),
        Just(Happens::CannotStart),
        Just(Happens::Exited),
        proptest::option::of(0_u64..30_000).prop_map(Happens::Stop),
        Just(Happens::Timeout),
    ]
}

fn apply(supervisor: &mut Supervisor, now: Moment, what: &Happens) {
    match what {
        Happens::Started => supervisor.started(),
        Happens::Turns(busy) => supervisor.turns(*busy),
        Happens::Hangs => supervisor.hangs("it hangs"),
        Happens::Died => supervisor.died(now, "it died"),
        Happens::CannotStart => supervisor.cannot_start("there is no binary"),
        Happens::Exited => supervisor.exited("it finished"),
        Happens::Stop(grace) => {
            supervisor.stop(now, "stopped", Exit::Done, grace.map(Duration::from_millis));
        }
        Happens::Timeout => supervisor.handle_timeout(now),
    }
}

fn running() -> Supervisor {
    let mut supervisor = Supervisor::new();
    supervisor.started();
    supervisor
}
