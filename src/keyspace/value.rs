//! What an engine value holds: a type byte and the data.
//!
//! ```text
//! value := 0x00 | bytes          string
//! ```
//!
//! Other types get other bytes; the expiry is the engine's to keep.

use std::cell::RefCell;

use super::{Error, Result};
use crate::codec::Slice;
use crate::engine::{Found, MAX_VALUE_BYTES};

const STRING: u8 = 0x00;

/// As with Redis. The engine has room for the type byte beside it.
pub(crate) const MAX_STRING_BYTES: usize = 512 << 20;
const _: () = assert!(MAX_STRING_BYTES < MAX_VALUE_BYTES);

/// A buffer that has grown beyond this is given back after use: one large value must not keep its memory for as long
/// as the connection lives.
const KEPT_BYTES: usize = 64 << 10;

/// What a key holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    String,
}

impl Kind {
    /// The name that TYPE answers.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::String => "string",
        }
    }
}

/// A value as a user sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Value {
    pub(crate) kind: Kind,
    /// The data, sharing the engine's allocation.
    pub(crate) data: Slice,
    /// Milliseconds since 1970.
    pub(crate) expires_at: Option<u64>,
}

impl Value {
    pub(super) fn decode(found: &Found) -> Result<Value> {
        Value::decode_parts(&found.value, found.expires_at)
    }

    pub(super) fn decode_parts(stored: &Slice, expires_at: Option<u64>) -> Result<Value> {
        match stored.first() {
            Some(&STRING) => Ok(Value { kind: Kind::String, data: stored.slice(1, stored.len()), expires_at }),
            Some(&type_byte) => Err(Error::UnknownType { type_byte }),
            None => Err(Error::NoType),
        }
    }
}

/// Calls `write` with the stored form of the string that `parts` make together.
pub(super) fn with_string<T>(parts: &[&[u8]], write: impl FnOnce(&[u8]) -> T) -> Result<T> {
    thread_local! {
        // A batch takes a value as one run of bytes, so the type byte must be put in front somewhere.
        static STORED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    }
    if parts.iter().map(|part| part.len()).sum::<usize>() > MAX_STRING_BYTES {
        return Err(Error::ValueTooLong);
    }
    STORED.with_borrow_mut(|stored| {
        stored.clear();
        stored.push(STRING);
        for part in parts {
            stored.extend_from_slice(part);
        }
        let written = write(stored);
        stored.clear();
        stored.shrink_to(KEPT_BYTES);
        Ok(written)
    })
}
