//! One key within a read-modify-write: what it holds now, and what it shall hold.
//!
//! Nothing is written until the decision that holds the edit has returned; if the key changed meanwhile, the decision
//! is asked again with a new edit. The expiry index follows in the same batch.

use super::value::{Value, with_string};
use super::{Result, layout};
use crate::engine::{Found, WriteBatch};

pub(crate) struct Edit<'a> {
    database: u8,
    key: &'a [u8],
    engine_key: &'a [u8],
    found: Option<&'a Found>,
    current: Option<Value>,
    batch: &'a mut WriteBatch,
    indexed: Option<u64>,
}

impl<'a> Edit<'a> {
    pub(super) fn new(
        database: u8,
        engine_key: &'a [u8],
        found: Option<&'a Found>,
        batch: &'a mut WriteBatch,
    ) -> Result<Edit<'a>> {
        let current = found.map(Value::decode).transpose()?;
        Ok(Edit { database, key: &engine_key[1..], engine_key, found, current, batch, indexed: None })
    }

    /// What the key holds.
    pub(crate) fn current(&self) -> Option<&Value> {
        self.current.as_ref()
    }

    /// When the key expires, if it is there and does.
    pub(crate) fn expires_at(&self) -> Option<u64> {
        self.current.as_ref()?.expires_at
    }

    /// Sets the key to the string that `parts` make together.
    pub(crate) fn put(&mut self, parts: &[&[u8]], expires_at: Option<u64>) -> Result<()> {
        with_string(parts, |stored| put_stored(self.batch, self.engine_key, stored, expires_at))?;
        self.reindex(expires_at);
        Ok(())
    }

    /// Sets the key to a string that expires when the old one would have.
    pub(crate) fn put_keeping_expiry(&mut self, parts: &[&[u8]]) -> Result<()> {
        self.put(parts, self.expires_at())
    }

    /// Removes the key, if it is there.
    pub(crate) fn delete(&mut self) {
        if self.found.is_some() {
            self.batch.delete(self.engine_key);
            self.reindex(None);
        }
    }

    /// Changes when the key expires, if it is there.
    pub(crate) fn expire_at(&mut self, expires_at: Option<u64>) {
        if let Some(found) = self.found {
            put_stored(self.batch, self.engine_key, &found.value, expires_at);
            self.reindex(expires_at);
        }
    }

    fn reindex(&mut self, expires_at: Option<u64>) {
        let before = self.expires_at();
        if before == expires_at {
            return;
        }
        if let Some(at) = before {
            self.batch.delete(&layout::expiry_key(self.database, at, self.key));
        }
        if let Some(at) = expires_at {
            index(self.batch, self.database, at, self.key);
            self.indexed = Some(at);
        }
    }

    /// When the key is going to expire, if that is new.
    pub(super) fn indexed(&self) -> Option<u64> {
        self.indexed
    }
}

pub(super) fn put_stored(batch: &mut WriteBatch, engine_key: &[u8], stored: &[u8], expires_at: Option<u64>) {
    match expires_at {
        Some(at) => batch.put_expiring(engine_key, stored, at),
        None => batch.put(engine_key, stored),
    }
}

/// Adds the index entry for `key`.
pub(super) fn index(batch: &mut WriteBatch, database: u8, expires_at: u64, key: &[u8]) {
    batch.put(&layout::expiry_key(database, expires_at, key), b"");
}
