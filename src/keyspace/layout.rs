//! Which engine key is what.
//!
//! ```text
//! engine key := 0x00 | ...                                             system, reserved
//!             | 0x01 | database: u8 | expires: u64 big-endian | user key   expiry index, with an empty value
//!             | 0x40 + database | user key                             user data (0x40..=0xbf)
//! ```
//!
//! Bytes between are free for typed sub-keys. Since every engine key has a namespace in front, a user key may be
//! empty. The expiry is big-endian so that key order is time order.

use std::ops::Deref;

use super::{Error, Result};
use crate::engine::MAX_KEY_BYTES;

const EXPIRY: u8 = 0x01;
const USER: u8 = 0x40;

/// User data occupies half of the namespace bytes; the end of each database is then the next byte, with no special
/// case for a last one.
pub(super) const MAX_DATABASES: u8 = 128;
const _: () = assert!(USER as usize + (MAX_DATABASES as usize) < 256);

/// User keys leave room in front of them for the namespace bytes of the expiry index, and for those of sub-keys to
/// come.
pub(crate) const MAX_USER_KEY_BYTES: usize = MAX_KEY_BYTES - 32;
const EXPIRY_PREFIX_BYTES: usize = 2 + 8;
const _: () = assert!(EXPIRY_PREFIX_BYTES + MAX_USER_KEY_BYTES <= MAX_KEY_BYTES);

/// Keys up to this length are built on the stack: longer ones are rare, and pay an allocation.
const INLINE_BYTES: usize = 127;

/// An engine key being built.
#[derive(Clone)]
pub(super) enum EngineKey {
    Inline { bytes: [u8; INLINE_BYTES], len: u8 },
    Heap(Vec<u8>),
}

impl EngineKey {
    fn join(parts: &[&[u8]]) -> EngineKey {
        let len: usize = parts.iter().map(|part| part.len()).sum();
        if len > INLINE_BYTES {
            return EngineKey::Heap(parts.concat());
        }
        let mut bytes = [0; INLINE_BYTES];
        let mut at = 0;
        for part in parts {
            bytes[at..at + part.len()].copy_from_slice(part);
            at += part.len();
        }
        EngineKey::Inline { bytes, len: len as u8 }
    }
}

impl Deref for EngineKey {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            EngineKey::Inline { bytes, len } => &bytes[..usize::from(*len)],
            EngineKey::Heap(bytes) => bytes,
        }
    }
}

/// Where the value of `key` is stored.
pub(super) fn user_key(database: u8, key: &[u8]) -> Result<EngineKey> {
    if key.len() > MAX_USER_KEY_BYTES {
        return Err(Error::KeyTooLong { bytes: key.len() });
    }
    Ok(EngineKey::join(&[&[USER + database], key]))
}

/// The first engine key of a database that is not below `key`: a bound, which may be longer than any key.
pub(super) fn user_bound(database: u8, key: &[u8]) -> EngineKey {
    EngineKey::join(&[&[USER + database], key])
}

/// The first engine key behind `key`.
pub(super) fn user_bound_after(database: u8, key: &[u8]) -> EngineKey {
    EngineKey::join(&[&[USER + database], key, &[0]])
}

/// The first engine key behind all keys that begin with `prefix`.
pub(super) fn user_bound_after_prefix(database: u8, prefix: &[u8]) -> EngineKey {
    // The next key is the prefix with its last byte that can be raised raised, and the rest cut off. If all are 0xff,
    // that byte is the namespace's.
    match prefix.iter().rposition(|&byte| byte != 0xff) {
        Some(last) => EngineKey::join(&[&[USER + database], &prefix[..last], &[prefix[last] + 1]]),
        None => EngineKey::join(&[&[USER + database + 1]]),
    }
}

/// The bound that has the same keys before it and is no longer than a key can be.
pub(super) fn clipped(bound: EngineKey) -> EngineKey {
    match bound.get(..MAX_KEY_BYTES) {
        // All keys with this beginning lie before the bound: they have nothing behind it.
        Some(beginning) if bound.len() > MAX_KEY_BYTES => user_bound_after_prefix(beginning[0] - USER, &beginning[1..]),
        _ => bound,
    }
}

/// The index entry that says when `key` expires.
pub(super) fn expiry_key(database: u8, expires_at: u64, key: &[u8]) -> EngineKey {
    EngineKey::join(&[&[EXPIRY, database], &expires_at.to_be_bytes(), key])
}

/// The first index entry of a database, and what is behind its last.
pub(super) fn expiry_bounds(database: u8) -> (EngineKey, EngineKey) {
    (EngineKey::join(&[&[EXPIRY, database]]), EngineKey::join(&[&[EXPIRY, database + 1]]))
}

/// Database, expiry and user key of an index entry.
pub(super) fn parse_expiry_key(key: &[u8]) -> Option<(u8, u64, &[u8])> {
    let (&[namespace, database], rest) = key.split_first_chunk::<2>()?;
    let (expires_at, key) = rest.split_first_chunk::<8>()?;
    (namespace == EXPIRY && database < MAX_DATABASES).then(|| (database, u64::from_be_bytes(*expires_at), key))
}

/// Database and user key of an engine key that holds a value.
pub(super) fn parse_user_key(key: &[u8]) -> Option<(u8, &[u8])> {
    let (namespace, key) = key.split_first()?;
    let database = namespace.checked_sub(USER).filter(|database| *database < MAX_DATABASES)?;
    Some((database, key))
}

/// The first engine key of all databases, and what is behind the last.
pub(super) fn all_users() -> (EngineKey, EngineKey) {
    (EngineKey::join(&[&[USER]]), EngineKey::join(&[&[USER + MAX_DATABASES]]))
}

/// Everything but the system namespace, as bounds of [`crate::engine::WriteBatch::delete_range`].
pub(super) fn everything() -> (Vec<u8>, Option<Vec<u8>>) {
    (vec![EXPIRY], None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn databases_do_not_touch_and_bounds_enclose_a_prefix() {
        for database in [0, 1, MAX_DATABASES - 1] {
            let first = user_key(database, b"").unwrap();
            let last = user_key(database, &[0xff; 300]).unwrap();
            let end = user_bound_after_prefix(database, b"");
            assert!(*first < *last && *last < *end);
            assert!(*end <= *user_key(database, b"").map(|_| user_bound_after_prefix(database, b"")).unwrap());
            for prefix in [&b"a"[..], b"a\xff", b"\xff", b"\xff\xff"] {
                let end = user_bound_after_prefix(database, prefix);
                assert!(*user_bound(database, prefix) < *end);
                assert!(*user_bound(database, &[prefix, &[0xff; 9][..]].concat()) < *end);
                let next = [&prefix[..prefix.len() - 1], b"\xff\xff\xff\xff"].concat();
                assert!(prefix.ends_with(b"\xff") || *user_bound(database, &next) > *end);
            }
        }
        assert!(*user_bound_after_prefix(0, b"") == *user_bound(1, b""));
    }

    #[test]
    fn a_bound_too_long_for_the_engine_is_clipped_without_changing_what_lies_before_it() {
        for byte in [7, 0xff] {
            let longest = user_key(3, &vec![byte; MAX_USER_KEY_BYTES]).unwrap();
            let bound = user_bound(3, &vec![byte; MAX_KEY_BYTES + 5]);
            let clipped = clipped(bound.clone());
            assert!(clipped.len() <= MAX_KEY_BYTES && *longest < *bound && *longest < *clipped);
            let next = user_key(3, &[8]).unwrap();
            assert_eq!(*next < *bound, *next < *clipped);
            assert!(*clipped <= *user_bound_after_prefix(3, b""));
        }
        let short = user_bound(3, b"short");
        assert_eq!(*clipped(short.clone()), *short);
    }

    #[test]
    fn an_index_entry_reads_back_and_sorts_by_time() {
        let entry = expiry_key(3, 77, b"key");
        assert_eq!(parse_expiry_key(&entry), Some((3, 77, &b"key"[..])));
        assert!(*expiry_key(3, 255, b"z") < *expiry_key(3, 256, b"a"));
        assert_eq!(parse_expiry_key(&user_key(3, b"key of no less than ten bytes").unwrap()), None);
        let (start, end) = expiry_bounds(3);
        assert!(*start < *entry && *entry < *end);
    }

    #[test]
    fn long_keys_spill_and_too_long_ones_are_refused() {
        for len in [0, 1, INLINE_BYTES - 1, INLINE_BYTES, MAX_USER_KEY_BYTES] {
            let key = vec![7; len];
            assert_eq!(user_key(0, &key).unwrap()[1..], key[..]);
            assert!(expiry_key(0, 1, &key).len() <= MAX_KEY_BYTES);
        }
        assert!(matches!(user_key(0, &vec![7; MAX_USER_KEY_BYTES + 1]), Err(Error::KeyTooLong { .. })));
    }
}
