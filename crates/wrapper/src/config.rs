//! Which config a turn is run with (§10): the town's as it was when the turn began, and over it what the turn's prompts say
//! themselves. Pure.

use std::collections::BTreeMap;

use protocol::{
    Prompt,
    config::{EnvName, Secret, TownConfig, TurnConfig},
};

use crate::turn::PromptNumber;

/// The configs of one agent's turns.
#[derive(Debug, Default)]
pub(crate) struct Configs {
    /// The town's latest.
    town: TownConfig,
    /// What the prompts that wait say themselves.
    waiting: BTreeMap<PromptNumber, TurnConfig>,
    /// That of the turn that runs, if it came of a prompt.
    turn: Option<TurnConfig>,
}

impl Configs {
    /// Of an agent whose town's config is this at first.
    pub(crate) fn of(town: TownConfig) -> Self {
        Self { town, ..Self::default() }
    }

    /// The town's config is this from the next turn on. Returns whether the agent server's environment is another by it.
    pub(crate) fn offer(&mut self, config: TownConfig) -> bool {
        let other_env = config.env != self.town.env;
        self.town = config;
        other_env
    }

    /// A prompt waits, and says this of its turn.
    pub(crate) fn queue(&mut self, number: PromptNumber, own: TurnConfig) {
        self.waiting.insert(number, own);
    }

    /// A prompt will not go.
    pub(crate) fn forget(&mut self, number: PromptNumber) {
        self.waiting.remove(&number);
    }

    /// A prompt goes to the agent: gives it what it is to say. `joins`: into the turn that runs; else it begins one.
    pub(crate) fn send(&mut self, number: PromptNumber, prompt: &mut Prompt, joins: bool) {
        let base = self.turn.take().filter(|_| joins).unwrap_or_else(|| self.town.turn.clone());
        let config = base.overlaid(self.waiting.remove(&number).unwrap_or_default());
        fill(prompt, config.clone());
        self.turn = Some(config);
    }

    /// The turn is over: what it was run with.
    pub(crate) fn end_turn(&mut self) -> TurnConfig {
        self.turn.take().unwrap_or_else(|| self.town.turn.clone())
    }

    /// What the agent server's next start has in its environment.
    pub(crate) fn env(&self) -> &BTreeMap<EnvName, Secret> {
        &self.town.env
    }
}

/// What the prompt says itself stays.
fn fill(prompt: &mut Prompt, config: TurnConfig) {
    prompt.model = prompt.model.take().or(config.model);
    // A variant is one of its model's.
    prompt.variant = prompt.variant.take().or(config.variant);
    prompt.system = prompt.system.take().or(config.system);
    let mut tools = config.tools;
    tools.extend(prompt.tools.take().unwrap_or_default());
    prompt.tools = (!tools.is_empty()).then_some(tools);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_config_applies_from_the_next_turn_on() {
        let mut configs = Configs::default();
        configs.offer(town(r#"{"variant":"low"}"#));
        assert_eq!(sent(&mut configs, 1, false).as_deref(), Some("low"));
        configs.offer(town(r#"{"variant":"high"}"#));
        assert_eq!(sent(&mut configs, 2, true).as_deref(), Some("low"), "it goes into the turn that runs");
        assert_eq!(configs.end_turn().variant.as_deref(), Some("low"));
        assert_eq!(sent(&mut configs, 3, false).as_deref(), Some("high"));
    }

    #[test]
    fn a_prompt_that_waited_is_run_with_the_latest_and_its_own() {
        let mut configs = Configs::default();
        configs.queue(number(1), commits());
        configs.offer(town(r#"{"variant":"high","autoCommit":false,"condenseOnComplete":true}"#));
        assert_eq!(sent(&mut configs, 1, false).as_deref(), Some("high"));
        let turn = configs.end_turn();
        assert_eq!((turn.auto_commit, turn.condense_on_complete), (Some(true), Some(true)));
        assert_eq!(configs.end_turn().auto_commit, Some(false), "the prompt's own is not the next turn's");
    }

    #[test]
    fn what_a_prompt_that_joins_a_turn_says_is_said_of_the_whole_turn() {
        let mut configs = Configs::default();
        sent(&mut configs, 1, false);
        configs.queue(number(2), commits());
        sent(&mut configs, 2, true);
        assert_eq!(configs.end_turn().auto_commit, Some(true));
    }

    #[test]
    fn a_prompt_says_itself_what_it_has() {
        let mut configs = Configs::default();
        configs.offer(town(r#"{"model":"a/b","system":"short","tools":{"bash":false,"edit":true}}"#));
        let mut prompt: Prompt =
            serde_json::from_str(r#"{"text":"hi","system":"long","tools":{"bash":true}}"#).unwrap();
        configs.send(number(1), &mut prompt, false);
        assert_eq!(prompt.model.unwrap().model_id, "b");
        assert_eq!(prompt.system.as_deref(), Some("long"));
        assert_eq!(prompt.tools.unwrap(), [("bash".to_owned(), true), ("edit".to_owned(), true)].into());
    }

    #[test]
    fn what_was_refused_by_the_agent_leaves_nothing_to_the_next_turn() {
        let mut configs = Configs::default();
        configs.queue(number(1), commits());
        sent(&mut configs, 1, false);
        sent(&mut configs, 2, false);
        assert_eq!(configs.end_turn().auto_commit, None);
    }

    #[test]
    fn another_environment_is_told_apart_from_the_same() {
        let mut configs = Configs::default();
        assert!(!configs.offer(town(r#"{"variant":"high"}"#)));
        assert!(configs.offer(town(r#"{"env":{"KEY":"1"}}"#)));
        assert!(!configs.offer(town(r#"{"env":{"KEY":"1"},"variant":"low"}"#)));
        assert!(configs.offer(town("{}")));
        assert!(configs.env().is_empty());
    }

    proptest! {
        /// Whatever comes while a turn runs, its prompts say the same.
        #[test]
        fn one_turn_has_one_config(offers in proptest::collection::vec("[a-c]", 1..8)) {
            let mut configs = Configs::default();
            configs.offer(town(r#"{"variant":"first"}"#));
            sent(&mut configs, 0, false);
            for (n, variant) in (1..).zip(&offers) {
                configs.offer(town(&format!(r#"{{"variant":"{variant}"}}"#)));
                prop_assert_eq!(sent(&mut configs, n, true).unwrap(), "first");
            }
            prop_assert_eq!(configs.end_turn().variant.unwrap(), "first");
            prop_assert_eq!(sent(&mut configs, 99, false), offers.last().cloned());
        }
    }

    /// The variant that a prompt says when it goes.
    fn sent(configs: &mut Configs, n: u64, joins: bool) -> Option<String> {
        let mut prompt = Prompt::default();
        configs.send(number(n), &mut prompt, joins);
        prompt.variant
    }

    fn commits() -> TurnConfig {
        let mut config = TurnConfig::default();
        config.auto_commit = Some(true);
        config
    }

    fn number(n: u64) -> PromptNumber {
        PromptNumber(n)
    }

    fn town(text: &str) -> TownConfig {
        TownConfig::parse(text).unwrap()
    }
}
