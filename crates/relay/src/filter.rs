//! Which types of events a subscription wants (§4 `types`).

/// Types and `message.*` globs; none means every type.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TypeFilter(Vec<String>);

/// Patterns in one filter: more than there are types.
const PATTERNS: usize = 64;

/// Why a filter was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("at most {PATTERNS} types may be asked for")]
pub struct TooManyTypes;

impl TypeFilter {
    /// A filter of these patterns: whole types, or everything below a prefix (`message.*`), or everything (`*`).
    ///
    /// # Errors
    /// When there are more than 64.
    pub fn new(patterns: Vec<String>) -> Result<Self, TooManyTypes> {
        if patterns.len() > PATTERNS {
            return Err(TooManyTypes);
        }
        Ok(Self(patterns))
    }

    /// The same, from a comma list.
    ///
    /// # Errors
    /// As [`TypeFilter::new`].
    pub fn parse(list: &str) -> Result<Self, TooManyTypes> {
        Self::new(list.split(',').map(str::trim).filter(|p| !p.is_empty()).map(str::to_owned).collect())
    }

    /// Whether every event passes.
    #[must_use]
    pub fn is_all(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether an event of this type passes.
    #[must_use]
    pub fn passes(&self, kind: &str) -> bool {
        self.is_all()
            || self.0.iter().any(|pattern| match pattern.strip_suffix('*') {
                Some(prefix) => kind.starts_with(prefix),
                None => pattern == kind,
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_pattern_passes_everything() {
        assert!(TypeFilter::parse("").unwrap().passes("message.updated"));
        assert!(TypeFilter::parse(" , ").unwrap().is_all());
    }

    #[test]
    fn a_glob_passes_what_is_below_it_and_a_type_itself() {
        let filter = TypeFilter::parse("message.*, agent.exited").unwrap();
        assert!(filter.passes("message.part.delta"));
        assert!(filter.passes("agent.exited"));
        assert!(!filter.passes("message"));
        assert!(!filter.passes("agent.exited.twice"));
        assert!(!filter.passes("session.idle"));
    }

    #[test]
    fn one_pattern_too_many_is_refused() {
        let patterns = |n| vec!["a".to_owned(); n];
        assert!(TypeFilter::new(patterns(PATTERNS)).is_ok());
        assert_eq!(TypeFilter::new(patterns(PATTERNS + 1)), Err(TooManyTypes));
    }
}
