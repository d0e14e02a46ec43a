//! Flush: the oldest sealed memtable becomes a table of level 0.
//!
//! Its positions must be settled first: a table cannot be taken back. The edit that adds the table also says up to where
//! the log is no longer needed, and drops the segments behind that.
//!
//! A range delete may be the last thing that anybody writes for a long time, and what it deletes takes space until its
//! tombstone is in a table: a memtable that would give back more than it takes is flushed before it is full.

use std::sync::Arc;

use tracing::info;

use super::batch::{Op, WriteBatch};
use super::blobs::written_bytes;
use super::output::{Keep, TableOutput};
use super::range_tombstones::{Cursor, readable};
use super::shared::{Job, Shared, State};
use super::{Error, Result, SeqNo};
use crate::codec::defect::{Defect, seeded};
use crate::storage::End;
use crate::storage::manifest::{Change, TableMeta};
use crate::storage::{Charge, Fragments, Use};

/// What bringing a memtable's keys into order takes for each.
const SORT_BYTES: usize = 24;

/// Memtables that may wait to be flushed before writers wait for one of them.
pub(crate) const MAX_SEALED: usize = 3;

impl Shared {
    /// Flushes the oldest sealed memtable if there is one that may be. Whether it did.
    pub(crate) fn flush_oldest(&self) -> Result<bool> {
        let _turn = self.flushing.lock();
        if self.state().sealed.is_empty() {
            self.seal_to_free_space();
        }
        let state = self.state();
        let Some(oldest) = state.sealed.first().filter(|oldest| oldest.last_seq <= self.commit.durable()) else {
            return Ok(false);
        };
        let started = std::time::Instant::now();
        let now = self.options.clock.now();
        let mut keep = Keep::new(self.retention.floor_now());
        // The whole memtable goes into one table: the tables of level 0 are told apart by their positions.
        let ranges = readable(oldest.memtable.ranges(), keep.floor());
        let mut deleted = Cursor::new(&ranges, keep.floor());
        let flushed = if seeded(Defect::RangesNotFlushed) { Fragments::default() } else { ranges.clone() };
        let mut output = TableOutput::new(self, 0, u64::MAX, Some(now), flushed, std::iter::empty());
        let mut sorting = Charge::new(&self.cache, Use::Jobs);
        sorting.set((oldest.memtable.len() * SORT_BYTES) as u64);
        let mut last_key: Vec<u8> = Vec::new();
        oldest.memtable.for_each(|key, seq, kind, value| {
            if *key != *last_key {
                last_key.clear();
                last_key.extend_from_slice(key);
                keep.next_key();
            }
            match keep.version(seq, kind, deleted.at(key), || false) {
                Some(kind) => output.add(key, seq, kind, value_of(kind, value)),
                None => Ok(()),
            }
        })?;
        let tables = output.finish()?;
        let bytes = written_bytes(&state.version, &tables);
        let mut edit: Vec<Change> = tables.into_iter().map(|table| Change::AddTable { level: 0, table }).collect();
        edit.push(Change::Flushed(SeqNo(oldest.last_seq.0 + u64::from(seeded(Defect::FlushedTooHigh)))));
        self.catalog.commit(edit, |version| {
            // The table and the memtable it came from change places in one step: no reader sees both or neither.
            self.replace_state(|state| State {
                active: state.active.clone(),
                sealed: state
                    .sealed
                    .iter()
                    .filter(|sealed| !Arc::ptr_eq(&sealed.memtable, &oldest.memtable))
                    .cloned()
                    .collect(),
                version: version.clone(),
            });
            self.set_delay(version);
        })?;
        super::stats::add(&self.counters.flushes, 1);
        super::stats::add(&self.counters.written_bytes[0], bytes);
        info!(bytes, seq = oldest.last_seq.0, took = ?started.elapsed(), "memtable flushed");
        self.compaction_work.notify();
        Ok(true)
    }

    /// Whether a range that the batch deletes has all of a table in it: flushing that may give space back.
    pub(crate) fn deletes_tables(&self, batch: &WriteBatch) -> bool {
        let state = self.state();
        batch.ops().any(|op| match op {
            Op::DeleteRange { start, end } => state.version.has_table_within(start, &End::before(end)),
            Op::Put { .. } | Op::Delete { .. } => false,
        })
    }

    /// Hands the active memtable over to be flushed if its range tombstones cover tables that together are larger than it:
    /// once they are in a table, compaction drops those. Nobody may write ever again, and the space is to come back.
    fn seal_to_free_space(&self) {
        let state = self.state();
        if !state.active.has_ranges() {
            return;
        }
        let ranges = state.active.ranges();
        // All that a memtable has is newer than what tables have.
        let covers = |table: &TableMeta| ranges.cover(&table.smallest, &table.largest, SeqNo::MAX).is_some();
        let gone = state.version.tables().filter(|(_, table)| covers(&table.meta));
        let freed: u64 = gone.map(|(_, table)| table.meta.bytes_with_values()).sum();
        if freed > state.active.bytes() as u64 {
            let mut writer = self.commit.writer();
            // A writer may have come first.
            if Arc::ptr_eq(&writer.active, &state.active) {
                self.seal(&mut writer, None);
            }
        }
    }

    /// Seals the active memtable and waits until everything that was in memory is in tables.
    pub(crate) fn flush_all(&self) -> Result<()> {
        if self.is_stopping() {
            return Err(Error::Closed);
        }
        let target = self.seal_all();
        // Not for the newest position given out: that may be of a write that failed and was taken back.
        self.wait_durable(self.commit.visible())?;
        if self.options.stepped {
            while self.flush_oldest()? {}
            return Ok(());
        }
        loop {
            let mut progress = self.progress.lock();
            if self.state().sealed.iter().all(|sealed| sealed.last_seq > target) {
                return Ok(());
            }
            if self.is_stopping() {
                return Err(Error::Closed);
            }
            // A memtable with positions that have failed waits until writes resume; nobody knows how long that takes.
            self.commit.writer().check_open()?;
            let jobs = progress.jobs;
            self.flush_work.notify();
            while progress.jobs == jobs && !self.is_stopping() {
                self.progressed.wait(&mut progress);
            }
            if let Some(error) = progress.error_of(Job::Flush) {
                return Err(Error::Background(error.to_owned()));
            }
        }
    }
}

/// A tombstone that stands for an expired value has none.
pub(crate) fn value_of(kind: crate::storage::Kind, value: &[u8]) -> &[u8] {
    match kind {
        crate::storage::Kind::Put { .. } | crate::storage::Kind::PutFar { .. } => value,
        crate::storage::Kind::Tombstone => b"",
    }
}
