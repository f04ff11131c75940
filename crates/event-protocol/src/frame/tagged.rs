//! Frames that hold payloads byte for byte.
//!
//! An enum with a `type` tag is read by way of a buffer, in which JSON text is no longer text. The one variant of a frame
//! that holds raw JSON is therefore read from the text itself.

use serde::{Deserialize, Deserializer, de::DeserializeOwned, de::Error as _};
use serde_json::value::RawValue;

/// The text of a frame, on its way to becoming one.
pub(super) type Json<'t> = serde_json::Deserializer<serde_json::de::StrRead<'t>>;

/// Reads a frame: the variant of this tag by `build`, every other one by `read_other`.
pub(super) fn read<'de, D, F, V>(
    deserializer: D,
    tag: &str,
    build: impl FnOnce(V) -> F,
    read_other: impl FnOnce(&mut Json<'_>) -> serde_json::Result<F>,
) -> Result<F, D::Error>
where
    D: Deserializer<'de>,
    V: DeserializeOwned,
{
    #[derive(Deserialize)]
    struct Tag {
        #[serde(rename = "type")]
        kind: String,
    }
    let text = Box::<RawValue>::deserialize(deserializer)?;
    let found: Tag = serde_json::from_str(text.get()).map_err(D::Error::custom)?;
    if found.kind == tag {
        serde_json::from_str(text.get()).map(build).map_err(D::Error::custom)
    } else {
        read_other(&mut serde_json::Deserializer::from_str(text.get())).map_err(D::Error::custom)
    }
}
