//! The one place where values become bytes: a version byte, then bincode 2.
//!
//! Both the messages between managers and the rows of the log go through here. The layout of
//! openraft's own types is held by golden bytes, so a bump of openraft or bincode that would make
//! old logs unreadable fails a test.

use bincode::config::{Configuration, Limit, LittleEndian, Varint};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A message or row of more bytes is neither made nor read. A transport accepts bodies of this
/// size.
pub const MESSAGE_BYTES_MAX: usize = 32 << 20;

/// First byte of every encoding.
const VERSION: u8 = 1;

type Layout = Configuration<LittleEndian, Varint, Limit<MESSAGE_BYTES_MAX>>;

const LAYOUT: Layout = bincode::config::standard().with_limit::<MESSAGE_BYTES_MAX>();

/// Bytes that are not one whole value of the expected type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CodecError {
    #[error("the encoding has version {0}, this program reads {VERSION}")]
    Version(u8),
    #[error("the encoding is empty")]
    Empty,
    #[error("{left} bytes are left over")]
    Trailing { left: usize },
    #[error("{bytes} bytes are over the limit of {MESSAGE_BYTES_MAX}")]
    TooLarge { bytes: usize },
    #[error("{0}")]
    Layout(String),
}

impl From<CodecError> for std::io::Error {
    fn from(error: CodecError) -> Self {
        Self::new(std::io::ErrorKind::InvalidData, error)
    }
}

pub(crate) fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, CodecError> {
    let mut bytes = vec![VERSION];
    bincode::serde::encode_into_std_write(value, &mut bytes, LAYOUT)
        .map_err(|e| CodecError::Layout(e.to_string()))?;
    if bytes.len() > MESSAGE_BYTES_MAX {
        return Err(CodecError::TooLarge { bytes: bytes.len() });
    }
    Ok(bytes)
}

pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    let (version, body) = bytes.split_first().ok_or(CodecError::Empty)?;
    if *version != VERSION {
        return Err(CodecError::Version(*version));
    }
    if bytes.len() > MESSAGE_BYTES_MAX {
        return Err(CodecError::TooLarge { bytes: bytes.len() });
    }
    let (value, used) = bincode::serde::decode_from_slice(body, LAYOUT)
        .map_err(|e| CodecError::Layout(e.to_string()))?;
    if used < body.len() {
        return Err(CodecError::Trailing { left: body.len() - used });
    }
    Ok(value)
}
