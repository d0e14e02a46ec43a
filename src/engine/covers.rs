//! What range tombstones hide from a scan.
//!
//! A scan meets the range tombstones of all its sources. For the place where it is, the newest one as of its position is
//! known together with how far that holds, so most keys cost a comparison or two. Where many hidden entries come in a
//! row, the scan does not walk over them: sources in which everything is older go to the far end of what is covered.

use std::sync::Arc;

use super::memtable::Memtable;
use super::version::{TableHandle, Tables};
use super::{Result, SeqNo};
use crate::storage::{Edge, Span};

/// Hidden entries that a scan walks over before it seeks: a seek costs about as much as that many steps.
const HIDDEN_BEFORE_SEEK: u32 = 16;

/// Counts hidden entries.
#[derive(Default)]
pub(crate) struct Hidden {
    under: Option<SeqNo>,
    count: u32,
}

impl Hidden {
    /// Counts one more that the newest tombstone over `span` hides. Whether there were enough to seek.
    pub(crate) fn is_enough(&mut self, span: &Span) -> bool {
        if self.under != span.newest {
            *self = Hidden { under: span.newest, count: 0 };
        }
        self.count += 1;
        let enough = self.count >= HIDDEN_BEFORE_SEEK;
        if enough {
            self.count = 0;
        }
        enough
    }
}

/// Where range tombstones are.
pub(crate) enum Holder {
    Memtable(Arc<Memtable>),
    /// Tables with range tombstones that do not meet, ascending.
    Tables(Tables),
}

impl Holder {
    fn span(&self, key: &[u8], as_of: SeqNo) -> Result<Span> {
        match self {
            Holder::Memtable(memtable) => Ok(memtable.span(key, as_of)),
            Holder::Tables(tables) => {
                let at = tables.partition_point(|table| table.meta.largest.precedes(key));
                let start = |table: &Arc<TableHandle>| Edge::from(&table.meta.smallest[..]);
                let end = |table: &Arc<TableHandle>| table.meta.largest.bound().map(Edge::from);
                match tables.get(at) {
                    // Its tombstones tell of its own keys only.
                    Some(table) if table.may_hold(key) => {
                        let own = Span { start: start(table), end: end(table), newest: None };
                        Ok(table.ranges()?.span(key, as_of).both(&own))
                    }
                    next => {
                        let before = at.checked_sub(1).and_then(|before| end(&tables[before]));
                        Ok(Span { start: before.unwrap_or_default(), end: next.map(start), newest: None })
                    }
                }
            }
        }
    }
}

/// See the module's text.
pub(crate) struct Covers {
    as_of: SeqNo,
    holders: Vec<(Holder, Span)>,
    /// What all of them together say of the keys where the scan is.
    span: Span,
}

impl Covers {
    /// Of a scan that shows `as_of`.
    pub(crate) fn new(as_of: SeqNo, holders: Vec<Holder>) -> Covers {
        let nowhere = || Span { end: Some(Edge::default()), ..Span::bare() };
        let span = if holders.is_empty() { Span::bare() } else { nowhere() };
        Covers { as_of, holders: holders.into_iter().map(|holder| (holder, nowhere())).collect(), span }
    }

    /// What is known of `key` and those around it.
    #[inline]
    pub(crate) fn span(&mut self, key: &[u8]) -> Result<&Span> {
        // Most scans meet no range tombstone.
        if !self.holders.is_empty() && !self.span.contains(key) {
            self.move_to(key)?;
        }
        Ok(&self.span)
    }

    fn move_to(&mut self, key: &[u8]) -> Result<()> {
        let mut all = Span::bare();
        for (holder, span) in &mut self.holders {
            if !span.contains(key) {
                *span = holder.span(key, self.as_of)?;
            }
            all = all.both(span);
        }
        self.span = all;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scan_seeks_after_so_many_entries_in_a_row_that_one_tombstone_hides() {
        let mut hidden = Hidden::default();
        let mut enough = |seq, times: u32| {
            let span = Span { newest: Some(SeqNo(seq)), ..Span::bare() };
            (0..times).filter(|_| hidden.is_enough(&span)).count()
        };
        assert_eq!(enough(5, HIDDEN_BEFORE_SEEK - 1), 0);
        assert_eq!(enough(7, HIDDEN_BEFORE_SEEK - 1), 0, "another one hides these");
        assert_eq!(enough(7, 1), 1);
        assert_eq!(enough(7, 2 * HIDDEN_BEFORE_SEEK), 2);
    }
}
