//! The past of databases: keys as of a time, and keys that become again what they were.

use super::edit::index;
use super::layout::{self, user_key};
use super::range::{Entries, KeyRange, Order};
use super::value::Value;
use super::{Database, Keyspace, Result};
use crate::engine::{Found, Outcome, SeqNo, WriteBatch};

/// What a key held from a time on.
pub(crate) struct PastValue {
    /// By when it was written, in milliseconds since 1970; `None` if that was before the oldest time that can be read.
    pub(crate) time: Option<u64>,
    pub(crate) seq: SeqNo,
    /// `None` if it was deleted.
    pub(crate) value: Option<Value>,
}

impl Keyspace {
    /// Makes every key of every database what it was at `when`; how many were written.
    pub(crate) fn restore_all(&self, when: u64) -> Result<Outcome<u64>> {
        let (start, end) = layout::all_users();
        self.restore(when, &start, &end)
    }

    /// Expiries of what is restored get their index entries back. Entries of what is not there any more stay until the
    /// sweep finds them outdated.
    fn restore(&self, when: u64, start: &[u8], end: &[u8]) -> Result<Outcome<u64>> {
        let mut earliest = u64::MAX;
        let mut along = |key: &[u8], found: &Found, batch: &mut WriteBatch| {
            if let (Some(at), Some((database, key))) = (found.expires_at, layout::parse_user_key(key)) {
                index(batch, database, at, key);
                earliest = earliest.min(at);
            }
        };
        let restored = self.db.restore(when, &[(start, Some(end))], &mut along)?;
        self.expires_at(earliest);
        Ok(restored)
    }
}

impl Database<'_> {
    /// What `key` held at `when`.
    pub(crate) fn get_at(&self, key: &[u8], when: u64) -> Result<Outcome<Option<Value>>> {
        let key = user_key(self.number, key)?;
        let snapshot = self.db().snapshot_at(when)?;
        let value = snapshot.get(&key)?.as_ref().map(Value::decode).transpose()?;
        Ok(Outcome { value, seq: snapshot.seq() })
    }

    /// The entries of `range` as they were at `when`.
    pub(crate) fn past_entries(&self, range: &KeyRange, order: Order, when: u64) -> Result<Entries> {
        Ok(self.entries_at(&self.db().snapshot_at(when)?, range, order))
    }

    /// What `key` held, newest first, at most `limit` values and deletions.
    pub(crate) fn history(&self, key: &[u8], limit: usize) -> Result<Vec<PastValue>> {
        let versions = self.db().history(&user_key(self.number, key)?)?.take(limit);
        versions
            .map(|version| {
                let version = version?;
                let value = version.found.as_ref().map(Value::decode).transpose()?;
                Ok(PastValue { time: version.time, seq: version.seq, value })
            })
            .collect()
    }

    /// Makes the keys in `range` what they were at `when`, atomically; how many were written.
    pub(crate) fn restore(&self, range: &KeyRange, when: u64) -> Result<Outcome<u64>> {
        match range.bounds() {
            Some((start, end)) => self.keyspace.restore(when, start, end),
            // The time is judged all the same.
            None => Ok(Outcome { value: 0, seq: self.db().snapshot_at(when)?.seq() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Fixture, START};
    use super::super::{Lifetime, SetOptions};

    #[test]
    fn what_is_restored_keeps_its_expiry_and_expires_again() {
        let fixture = Fixture::new();
        let database = fixture.keyspace.database(3);
        let until = |at| SetOptions { lifetime: Lifetime::Until(at), ..SetOptions::default() };
        database.set(b"short", b"1", until(START + 50)).unwrap();
        database.set(b"long", b"2", until(START + 500)).unwrap();
        database.put(b"forever", b"3").unwrap();
        fixture.advance(100);
        assert_eq!(fixture.keyspace.sweep(START + 100, 100).unwrap().expired, 1);
        fixture.keyspace.delete_all().unwrap();
        assert_eq!(fixture.keyspace.db.range::<&[u8]>(..).count(), 0);
        fixture.keyspace.database(4).put(b"new", b"4").unwrap();
        assert!(database.get_at(b"short", START + 49).unwrap().value.is_some());
        assert!(database.get_at(b"short", START + 50).unwrap().value.is_none(), "it had expired by then");

        assert_eq!(fixture.keyspace.restore_all(START + 10).unwrap().value, 3, "what has expired since is not there");
        assert!(database.get(b"short").unwrap().value.is_none());
        assert_eq!(database.get(b"long").unwrap().value.unwrap().expires_at, Some(START + 500));
        assert!(database.get(b"forever").unwrap().value.is_some());
        assert!(fixture.keyspace.database(4).get(b"new").unwrap().value.is_none(), "it came later");
        assert_eq!(fixture.keyspace.restore_all(START + 10).unwrap().value, 0, "nothing is left to do");
        fixture.advance(500);
        assert_eq!(fixture.keyspace.sweep(START + 600, 100).unwrap().expired, 1);
    }
}
