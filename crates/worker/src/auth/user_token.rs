//! What a user token looks like: `gtu_<id>_<secret>`, so that whoever finds one knows what it is and which one to revoke.

use relay::auth::Secret;
use town::UserToken;

use crate::digest::Digest;

/// How every user token begins. No other credential does.
const PREFIX: &str = "gtu_";
/// Hexadecimal digits of an id: no two of a town are ever the same.
const ID_DIGITS: usize = 16;
/// Hexadecimal digits of the secret: 256 bits.
const SECRET_DIGITS: usize = 64;

/// A new token, and its id.
pub(crate) fn fresh() -> (String, Secret) {
    let id = Secret::random().expose()[..ID_DIGITS].to_owned();
    let secret = format!("{}{}", Secret::random().expose(), Secret::random().expose());
    let token = Secret::new(format!("{PREFIX}{id}_{secret}"));
    (id, token)
}

/// The id in what has the form of a user token.
pub(crate) fn id_of(token: &str) -> Option<&str> {
    let (id, secret) = token.strip_prefix(PREFIX)?.split_once('_')?;
    let is_hex =
        |text: &str, digits| text.len() == digits && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    (is_hex(id, ID_DIGITS) && is_hex(secret, SECRET_DIGITS)).then_some(id)
}

/// What is kept of a token.
pub(crate) fn digest_of(token: &Secret) -> String {
    Digest::of(token.expose()).to_text()
}

/// Whether this text is that token, in constant time.
pub(crate) fn is(kept: &UserToken, text: &str) -> bool {
    Digest::from_text(&kept.digest).is_some_and(|digest| Digest::of(text).matches(&digest))
}

#[cfg(test)]
mod tests {
    use protocol::Timestamp;
    use town::Scope;

    use super::*;

    #[test]
    fn a_token_names_its_id_and_has_256_random_bits() {
        let ((id, token), (other_id, other)) = (fresh(), fresh());
        assert_eq!(id_of(token.expose()), Some(id.as_str()));
        assert!(id != other_id && !token.is(other.expose()));
        let (_, secret) = token.expose().rsplit_once('_').unwrap();
        assert_eq!(secret.len() * 4, 256);
        assert!(!secret.contains(&id));
    }

    #[test]
    fn what_has_another_form_is_no_user_token() {
        let (_, token) = fresh();
        let token = token.expose();
        let operators = format!("gt_{}", "a".repeat(64));
        let not_hex = token.replace('_', "-");
        for text in ["", "gtu_", "gtu__", &token[..token.len() - 1], &token[1..], &operators, &not_hex] {
            assert_eq!(id_of(text), None, "{text:?}");
        }
        assert_eq!(id_of(&format!("{token}0")), None);
    }

    #[test]
    fn p19_a_token_is_known_by_its_hash_which_does_not_hold_it() {
        let (id, token) = fresh();
        let kept = UserToken {
            token: id,
            name: "ann".into(),
            scope: Scope::Read,
            digest: digest_of(&token),
            issued: Timestamp::default(),
            expires: None,
        };
        assert!(is(&kept, token.expose()));
        let (_, secret) = token.expose().rsplit_once('_').unwrap();
        assert!(!kept.digest.contains(secret));
        let forged = format!("gtu_{}_{}", kept.token, "0".repeat(64));
        for text in [forged.as_str(), &kept.digest, ""] {
            assert!(!is(&kept, text), "{text:?}");
        }
        assert!(!is(&UserToken { digest: "no digest".into(), ..kept }, token.expose()));
    }
}
