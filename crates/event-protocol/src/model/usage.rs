//! What a model run cost.

use std::ops::AddAssign;

use serde::{Deserialize, Serialize};

use super::wire;

/// Tokens of one or more model calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Tokens {
    /// Read by the model, without what came from its cache.
    #[serde(deserialize_with = "wire::count")]
    pub input: u64,
    /// Written by the model, without its reasoning.
    #[serde(deserialize_with = "wire::count")]
    pub output: u64,
    /// Written by the model as reasoning.
    #[serde(deserialize_with = "wire::count")]
    pub reasoning: u64,
    /// Read from and written to the provider's cache.
    pub cache: CacheTokens,
}

/// Tokens of the provider's cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct CacheTokens {
    /// Read from it.
    #[serde(deserialize_with = "wire::count")]
    pub read: u64,
    /// Written to it.
    #[serde(deserialize_with = "wire::count")]
    pub write: u64,
}

impl Tokens {
    /// All of them together: for one message, how full the model's context is after it.
    #[must_use]
    pub fn total(&self) -> u64 {
        [self.input, self.output, self.reasoning, self.cache.read, self.cache.write]
            .iter()
            .fold(0, |sum: u64, n| sum.saturating_add(*n))
    }
}

impl AddAssign for Tokens {
    fn add_assign(&mut self, other: Self) {
        self.input = self.input.saturating_add(other.input);
        self.output = self.output.saturating_add(other.output);
        self.reasoning = self.reasoning.saturating_add(other.reasoning);
        self.cache.read = self.cache.read.saturating_add(other.cache.read);
        self.cache.write = self.cache.write.saturating_add(other.cache.write);
    }
}

/// Tokens and their price.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Usage {
    /// The tokens.
    pub tokens: Tokens,
    /// The price in US dollars, as the agent server reckons it.
    #[serde(deserialize_with = "wire::amount")]
    pub cost: f64,
}

impl AddAssign for Usage {
    fn add_assign(&mut self, other: Self) {
        self.tokens += other.tokens;
        self.cost += other.cost;
    }
}
