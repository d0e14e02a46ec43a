//! What can go wrong between a command and the engine.

use super::layout::MAX_USER_KEY_BYTES;
use super::value::MAX_STRING_BYTES;
use crate::engine;

pub(crate) type Result<T> = std::result::Result<T, Error>;

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    Engine(#[from] engine::Error),
    #[error("key of {bytes} bytes is too long, the limit is {MAX_USER_KEY_BYTES} bytes")]
    KeyTooLong { bytes: usize },
    #[error("string exceeds maximum allowed size ({MAX_STRING_BYTES} bytes)")]
    ValueTooLong,
    /// The first byte of a value is none that this version writes.
    #[error("the value's type 0x{type_byte:02x} is not known to this version of Chronos")]
    UnknownType { type_byte: u8 },
    #[error("the value has no type: it was not written by this server")]
    NoType,
    /// A scan cursor that was never given out, or so long ago that it was dropped.
    #[error("invalid cursor")]
    UnknownCursor,
}
