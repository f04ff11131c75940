//! Frames to and from text: limits are checked before anything is parsed, and no input panics.

use bytes::Bytes;
use memchr::memchr2;
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    ErrorCode,
    frame::{FromViewer, FromWrapper, ToViewer, ToWrapper},
    limits,
};

/// Why a frame was refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// More bytes than the frame may have.
    #[error("the frame has {len} bytes, at most {limit} are allowed")]
    TooLarge {
        /// Bytes received.
        len: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// Nested deeper than anything the protocol has.
    #[error("the frame is nested deeper than {limit} levels")]
    TooDeep {
        /// Levels allowed.
        limit: usize,
    },
    /// Not JSON of the expected shape.
    #[error("the frame is not understood: {source}")]
    Malformed {
        /// What the parser says.
        #[from]
        source: serde_json::Error,
    },
}

impl DecodeError {
    /// The code to answer with (§8).
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::TooLarge { .. } => ErrorCode::TooLarge,
            Self::TooDeep { .. } | Self::Malformed { .. } => ErrorCode::BadRequest,
        }
    }
}

/// A frame that can be decoded, with its limit.
pub trait Frame: Serialize + DeserializeOwned {
    /// The most bytes its text may have.
    const MAX_BYTES: usize;

    /// Reads a frame.
    ///
    /// # Errors
    /// When it is too large, too deep or not understood.
    fn decode(text: &[u8]) -> Result<Self, DecodeError> {
        check(text, Self::MAX_BYTES)?;
        Ok(serde_json::from_slice(text)?)
    }

    /// Writes a frame.
    fn encode(&self) -> Bytes {
        serde_json::to_vec(self).expect("a frame serialises: its keys are strings").into()
    }
}

/// What is looked at before anything is parsed: its size, and how deep it is nested.
///
/// # Errors
/// [`DecodeError::TooLarge`], [`DecodeError::TooDeep`].
pub fn check(text: &[u8], max_bytes: usize) -> Result<(), DecodeError> {
    if text.len() > max_bytes {
        return Err(DecodeError::TooLarge { len: text.len(), limit: max_bytes });
    }
    if depth(text) > limits::JSON_DEPTH {
        return Err(DecodeError::TooDeep { limit: limits::JSON_DEPTH });
    }
    Ok(())
}

/// How deep a JSON text is nested; of a text that is no JSON, at least as deep as a parser would get. Payloads are kept as
/// text, so that the parser's own limit does not see into them.
fn depth(text: &[u8]) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0);
    let mut rest = text;
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        match byte {
            b'{' | b'[' => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            b'"' => rest = after_string(after),
            _ => {}
        }
    }
    deepest
}

/// What follows a string of which this is the text after its opening quote. Most of a frame is in strings.
fn after_string(text: &[u8]) -> &[u8] {
    let mut rest = text;
    while let Some(at) = memchr2(b'"', b'\\', rest) {
        // The byte after a backslash is part of the string, whatever it is.
        let ends = rest[at] == b'"';
        rest = rest.get(at + if ends { 1 } else { 2 }..).unwrap_or_default();
        if ends {
            return rest;
        }
    }
    &[]
}

impl Frame for FromViewer {
    const MAX_BYTES: usize = limits::VIEWER_FRAME_BYTES;
}

impl Frame for FromWrapper {
    const MAX_BYTES: usize = limits::INGEST_FRAME_BYTES;

    fn decode(text: &[u8]) -> Result<Self, DecodeError> {
        check(text, Self::MAX_BYTES)?;
        match Self::read_append(text) {
            Some(append) => Ok(append),
            None => Ok(serde_json::from_slice(text)?),
        }
    }
}

impl Frame for ToWrapper {
    const MAX_BYTES: usize = limits::INGEST_FRAME_BYTES;
}

impl Frame for ToViewer {
    /// A batch of events of the hard size: what a relay may send a viewer.
    const MAX_BYTES: usize = 8 * limits::BATCH_BYTES;
}
