//! Keys in order, at a snapshot: bytewise, a start that is included and an end that is not.

use super::layout::{self, EngineKey};
use super::value::Value;
use super::{Database, Result, glob};
use crate::codec::Slice;
use crate::engine::{self, Outcome, SeqNo, Snapshot, WriteBatch};

/// A run of keys of one database. Made by [`Database::between`] and its neighbours.
#[derive(Clone)]
pub(crate) struct KeyRange {
    start: EngineKey,
    end: EngineKey,
}

impl KeyRange {
    fn is_empty(&self) -> bool {
        *self.start >= *self.end
    }

    /// Of a range that is not empty.
    pub(super) fn bounds(&self) -> Option<(&[u8], &[u8])> {
        (!self.is_empty()).then_some((&*self.start, &*self.end))
    }

    pub(super) fn start_at_least(&mut self, start: EngineKey) {
        if *start > *self.start {
            self.start = start;
        }
    }
}

/// Which end a walk begins at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    Forward,
    Reverse,
}

/// The entries of a range at one moment.
pub(crate) struct Entries {
    /// What an answer that is made from these entries depends on.
    pub(crate) seq: SeqNo,
    entries: Option<engine::Range>,
}

impl Entries {
    /// The same entries once more, from the beginning.
    pub(crate) fn again(&self) -> Entries {
        Entries { seq: self.seq, entries: self.entries.as_ref().map(engine::Range::again) }
    }
}

impl Iterator for Entries {
    type Item = Result<(Slice, Value)>;

    fn next(&mut self) -> Option<Self::Item> {
        let entry = match self.entries.as_mut()?.next()? {
            Ok(entry) => entry,
            Err(error) => return Some(Err(error.into())),
        };
        let key = entry.key.slice(1, entry.key.len());
        Some(Value::decode_parts(&entry.value, entry.expires_at).map(|value| (key, value)))
    }
}

impl Database<'_> {
    /// Keys from `start` to before `end`; `None` leaves that side open.
    pub(crate) fn between(&self, start: Option<&[u8]>, end: Option<&[u8]>) -> KeyRange {
        KeyRange {
            start: layout::user_bound(self.number, start.unwrap_or(b"")),
            end: match end {
                Some(end) => layout::user_bound(self.number, end),
                None => layout::user_bound_after_prefix(self.number, b""),
            },
        }
    }

    /// Keys that begin with `prefix`.
    pub(crate) fn prefixed(&self, prefix: &[u8]) -> KeyRange {
        KeyRange {
            start: layout::user_bound(self.number, prefix),
            end: layout::user_bound_after_prefix(self.number, prefix),
        }
    }

    /// The entries of `range`, at a snapshot taken now.
    pub(crate) fn entries(&self, range: &KeyRange, order: Order) -> Entries {
        self.entries_at(&self.db().snapshot_for("a range"), range, order)
    }

    pub(super) fn entries_at(&self, snapshot: &Snapshot, range: &KeyRange, order: Order) -> Entries {
        let entries = (!range.is_empty()).then(|| {
            let entries = snapshot.range(&range.start[..]..&range.end[..]);
            match order {
                Order::Forward => entries,
                Order::Reverse => entries.reversed(),
            }
        });
        Entries { seq: snapshot.seq(), entries }
    }

    /// How many keys are in `range`, by counting them.
    pub(crate) fn count(&self, range: &KeyRange) -> Result<Outcome<u64>> {
        let mut count = 0;
        let Entries { seq, mut entries } = self.entries(range, Order::Forward);
        while let Some(range) = &mut entries
            && range.advance()?
        {
            count += 1;
        }
        Ok(Outcome { value: count, seq })
    }

    /// The entries among which all keys are that match the glob `pattern`.
    pub(crate) fn around(&self, pattern: &[u8]) -> Entries {
        self.entries(&self.prefixed(glob::literal_prefix(pattern)), Order::Forward)
    }

    /// Removes every key in `range`, atomically. Index entries stay until the sweep finds them outdated.
    pub(crate) fn delete_range(&self, range: &KeyRange) -> Result<Outcome<()>> {
        let range = KeyRange { start: layout::clipped(range.start.clone()), end: layout::clipped(range.end.clone()) };
        if range.is_empty() {
            return Ok(Outcome { value: (), seq: SeqNo(0) });
        }
        let mut batch = WriteBatch::new();
        batch.delete_range(&range.start, Some(&range.end));
        Ok(Outcome { value: (), seq: self.db().submit(&batch)? })
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::Fixture;
    use super::*;

    fn keys(database: Database<'_>, range: &KeyRange, order: Order) -> Vec<String> {
        database.entries(range, order).map(|entry| entry.unwrap().0.escape_ascii().to_string()).collect()
    }

    #[test]
    fn a_range_has_its_start_and_not_its_end_and_stays_in_its_database() {
        let fixture = Fixture::new();
        let database = fixture.keyspace.database(3);
        for number in [2, 3, 4] {
            for key in [&b""[..], b"a", b"b", b"b\xff", b"c", b"\xff\xff"] {
                fixture.keyspace.database(number).put(key, b"value").unwrap();
            }
        }
        let range = database.between(Some(b"a"), Some(b"c"));
        assert_eq!(keys(database, &range, Order::Forward), ["a", "b", "b\\xff"]);
        assert_eq!(keys(database, &range, Order::Reverse), ["b\\xff", "b", "a"]);
        assert_eq!(database.count(&database.between(None, None)).unwrap().value, 6);
        assert_eq!(keys(database, &database.prefixed(b"b"), Order::Forward), ["b", "b\\xff"]);
        assert_eq!(keys(database, &database.prefixed(b"\xff"), Order::Forward), ["\\xff\\xff"]);
        assert_eq!(keys(database, &database.between(Some(b"c"), Some(b"a")), Order::Forward), [""; 0]);
        database.delete_range(&database.prefixed(b"b")).unwrap();
        assert_eq!(keys(database, &database.between(None, None), Order::Forward), ["", "a", "c", "\\xff\\xff"]);
        assert_eq!(
            fixture.keyspace.database(4).count(&fixture.keyspace.database(4).between(None, None)).unwrap().value,
            6
        );
    }
}
