//! What is kept of a secret where only its holder must know it.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

/// The SHA-256 of a secret. Enough for one of 128 random bits and more; it would not be for a password.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Digest([u8; 32]);

impl Digest {
    pub(crate) fn of(secret: &str) -> Self {
        Self(Sha256::digest(secret.as_bytes()).into())
    }

    /// Whether both are of the same secret. The time it takes says nothing of where they differ.
    pub(crate) fn matches(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }

    pub(crate) fn to_text(&self) -> String {
        URL_SAFE_NO_PAD.encode(self.0)
    }

    pub(crate) fn from_text(text: &str) -> Option<Self> {
        URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok().map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_matches_its_own_secret_only() {
        assert!(Digest::of("gt_1").matches(&Digest::of("gt_1")));
        assert!(!Digest::of("gt_1").matches(&Digest::of("gt_2")));
        assert!(!Digest::of("gt_1").matches(&Digest::of("")));
    }

    #[test]
    fn a_digest_survives_its_text() {
        let digest = Digest::of("x");
        assert_eq!(Digest::from_text(&digest.to_text()), Some(digest));
        assert_eq!(Digest::from_text("short"), None);
    }
}
