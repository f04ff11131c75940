//! Frames to and from text: limits are checked before anything is parsed, and no input panics.

use bytes::Bytes;
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
            Self::Malformed { .. } => ErrorCode::BadRequest,
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
    /// When it is too large or not understood.
    fn decode(text: &[u8]) -> Result<Self, DecodeError> {
        if text.len() > Self::MAX_BYTES {
            return Err(DecodeError::TooLarge { len: text.len(), limit: Self::MAX_BYTES });
        }
        Ok(serde_json::from_slice(text)?)
    }

    /// Writes a frame.
    fn encode(&self) -> Bytes {
        serde_json::to_vec(self).expect("a frame serialises: its keys are strings").into()
    }
}

impl Frame for FromViewer {
    const MAX_BYTES: usize = limits::VIEWER_FRAME_BYTES;
}

impl Frame for FromWrapper {
    const MAX_BYTES: usize = limits::INGEST_FRAME_BYTES;
}

impl Frame for ToWrapper {
    const MAX_BYTES: usize = limits::INGEST_FRAME_BYTES;
}

impl Frame for ToViewer {
    /// A batch of events of the hard size: what a relay may send a viewer.
    const MAX_BYTES: usize = 8 * limits::BATCH_BYTES;
}
