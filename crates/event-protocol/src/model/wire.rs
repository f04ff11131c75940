//! How numbers and times of agent servers are read: JavaScript may say `null`, a fraction or a negative number where a
//! count is meant.

use serde::{Deserialize, Deserializer, Serializer};

use crate::Timestamp;

/// A count: fractions are cut off, what is below zero, absent or no number is 0.
pub(super) fn count<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let number = Option::<serde_json::Number>::deserialize(deserializer)?;
    Ok(number.and_then(|n| n.as_u64().or_else(|| n.as_f64().map(saturate))).unwrap_or(0))
}

/// An amount of money or a rate: absent or no number is 0.
pub(super) fn amount<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    Ok(Option::<f64>::deserialize(deserializer)?.unwrap_or(0.0))
}

/// A point in time: unix milliseconds.
pub(super) fn read_time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Timestamp>, D::Error> {
    let number = Option::<serde_json::Number>::deserialize(deserializer)?;
    let ms = number.and_then(|n| n.as_i64().or_else(|| n.as_f64().map(whole)));
    Ok(ms.map(Timestamp::from_unix_ms))
}

/// The same, written.
pub(super) fn write_time<S: Serializer>(time: &Option<Timestamp>, serializer: S) -> Result<S::Ok, S::Error> {
    match time {
        Some(time) => serializer.serialize_i64(time.unix_ms()),
        None => serializer.serialize_none(),
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a float cast saturates, which is meant"
)]
fn saturate(number: f64) -> u64 {
    number as u64
}

#[expect(clippy::cast_possible_truncation, reason = "a float cast saturates, which is meant")]
fn whole(number: f64) -> i64 {
    number as i64
}
