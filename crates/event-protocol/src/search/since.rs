//! How a time is named by who searches: by itself, or by how long ago it was.

use crate::Timestamp;

/// Why a text names no time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{found:?} is neither a time such as 2026-11-20T18:10:16Z nor how long ago it was, such as 90s, 15m, 2h or 7d"
)]
pub struct SinceError {
    found: String,
}

/// The time that a text names: RFC 3339, or how long before `now`, as a number and one of `s`, `m`, `h`, `d`.
///
/// # Errors
/// When it is neither.
pub fn since(text: &str, now: Timestamp) -> Result<Timestamp, SinceError> {
    let ago = |text: &str| {
        let (number, seconds) = [('s', 1), ('m', 60), ('h', 3_600), ('d', 86_400)]
            .iter()
            .find_map(|(unit, seconds)| Some((text.strip_suffix(*unit)?, *seconds)))?;
        let ms = i64::from(number.parse::<u32>().ok()?) * seconds * 1_000;
        Some(Timestamp::from_unix_ms(now.unix_ms().saturating_sub(ms)))
    };
    ago(text)
        .or_else(|| text.parse().ok())
        .ok_or_else(|| SinceError { found: text.chars().take(40).collect() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_named_by_itself_or_by_how_long_ago_it_was() {
        let now: Timestamp = "2026-11-20T12:00:00Z".parse().unwrap();
        let cases = [
            ("90s", "2026-11-20T11:58:30Z"),
            ("15m", "2026-11-20T11:45:00Z"),
            ("2h", "2026-11-20T10:00:00Z"),
            ("7d", "2026-11-13T12:00:00Z"),
            ("0s", "2026-11-20T12:00:00Z"),
            ("2026-11-01T00:00:00+01:00", "2026-10-31T23:00:00Z"),
        ];
        for (text, expected) in cases {
            assert_eq!(since(text, now), Ok(expected.parse().unwrap()), "{text}");
        }
    }

    #[test]
    fn what_names_no_time_is_refused_and_named() {
        for text in ["", "h", "2", "2w", "-2h", "1.5h", "yesterday", "2026-11-20"] {
            let error = since(text, Timestamp::from_unix_ms(0)).unwrap_err();
            assert!(error.to_string().starts_with(&format!("{text:?}")), "{error}");
        }
        assert!(since("4294967295d", Timestamp::from_unix_ms(0)).is_ok(), "before everything");
    }
}
