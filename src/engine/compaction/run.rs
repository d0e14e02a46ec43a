//! Doing compactions: one at a time, each ending in exactly one edit of the manifest.

use tracing::info;

use super::pick::{LAST, View, pick, pick_from};
use super::task::{Action, Task};
use super::{Strategy, deleted, garbage, values};
use crate::engine::blobs::all_wasteful;
use crate::engine::blobs::written_bytes;
use crate::engine::shared::Shared;
use crate::engine::stats::add;
use crate::engine::{Error, Result};
use crate::storage::manifest::Change;
use crate::sync::MutexGuard;

impl Shared {
    /// Does one compaction if one is due. Whether it did.
    pub(crate) fn compact_if_due(&self, idle: bool) -> Result<bool> {
        let _turn = self.compaction_turn()?;
        let state = self.state();
        let now = self.options.clock.now();
        let floor = self.retention.floor_now();
        let view = View { version: &state.version, options: &self.options, now, floor, idle };
        let task = deleted::pick(&state.version, floor.seq).or_else(|| pick(&view));
        drop(state);
        task.map_or(Ok(false), |task| self.run_unless_damaged(&task).map(|()| true))
    }

    /// One compaction at a time, and none once the database is being closed.
    fn compaction_turn(&self) -> Result<MutexGuard<'_, ()>> {
        let turn = self.compacting.lock();
        if self.is_stopping() { Err(Error::Closed) } else { Ok(turn) }
    }

    /// Flushes, then merges everything down to the deepest level. Others get their turn between the steps. Where nothing
    /// is ever merged, what is due to be dropped is dropped.
    pub(crate) fn compact_all(&self) -> Result<()> {
        self.flush_all()?;
        if matches!(self.options.compaction, Strategy::Fifo { .. }) {
            while self.compact_if_due(false)? {}
            return Ok(());
        }
        for level in 0..LAST {
            // What is flushed or moved here meanwhile is not this call's business, or it might never end.
            let upto = self.state().version.last_seq();
            loop {
                let _turn = self.compaction_turn()?;
                let version = self.state().version.clone();
                let Some(task) = pick_from(&version, self.options.table_bytes, level) else { break };
                let asked = |task: &Task| task.tables().any(|(at, table)| at == level && table.meta.first_seq <= upto);
                if !asked(&task) {
                    break;
                }
                self.run_unless_damaged(&task)?;
            }
        }
        for task in garbage::pick_all(&self.state().version, self.retention.floor_now()) {
            self.run_if_still_there(&task)?;
        }
        // What becomes garbage meanwhile is not this call's business either.
        let files = all_wasteful(&self.state().version);
        loop {
            let _turn = self.compaction_turn()?;
            let Some(task) = values::pick_of(&self.state().version, self.options.table_bytes, &files) else { break };
            self.run_unless_damaged(&task)?;
        }
        // Done, but for what cannot be.
        match self.state().version.damage().next() {
            Some(damage) => Err(Error::Background(format!("all but what is damaged is compacted: {damage}"))),
            None => Ok(()),
        }
    }

    fn run_if_still_there(&self, task: &Task) -> Result<()> {
        let _turn = self.compaction_turn()?;
        let sound = task.is_still_there(&self.state().version) && !task.meets_damage();
        if sound { self.run_unless_damaged(task) } else { Ok(()) }
    }

    /// As [`Shared::run`]. That it meets damage is no failure: the table is known from then on, and no task has it.
    fn run_unless_damaged(&self, task: &Task) -> Result<()> {
        match self.run(task) {
            Err(Error::Corrupt { .. }) if task.meets_damage() => Ok(()),
            result => result,
        }
    }

    /// Does a task and installs the result in one edit. The caller holds the turn.
    fn run(&self, task: &Task) -> Result<()> {
        let started = std::time::Instant::now();
        let version = self.state().version.clone();
        debug_assert!(task.keeps_order(&version), "{task:?} in {version:?}");
        let target = task.target as u8;
        let mut edit: Vec<Change> = task
            .tables()
            .map(|(level, table)| Change::DropTable { level: level as u8, number: table.meta.number })
            .collect();
        let (mut read, mut written) = (0, 0);
        match task.action {
            Action::Drop => {}
            Action::Move => {
                let moved = task.tables().map(|(_, table)| table.meta.clone());
                edit.extend(moved.map(|table| Change::AddTable { level: target, table }));
            }
            Action::Merge => {
                let tables = self.rewrite(task, &version)?;
                read = task.bytes();
                written = written_bytes(&version, &tables);
                edit.extend(tables.into_iter().map(|table| Change::AddTable { level: target, table }));
            }
        }
        self.catalog.commit(edit, |version| self.install(version))?;
        let counters = &self.counters;
        let done = match task.action {
            Action::Merge => &counters.compactions,
            Action::Move => &counters.moves,
            Action::Drop => &counters.drops,
        };
        add(done, 1);
        add(&counters.reasons[task.why as usize], 1);
        add(&counters.compaction_read_bytes, read);
        add(&counters.written_bytes[task.target], written);
        info!(
            why = task.why.name(),
            what = ?task.action,
            from = task.inputs.first().map(|(level, _)| level),
            target = task.target,
            tables = task.tables().count(),
            read,
            written,
            took = ?started.elapsed(),
            "compaction finished"
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use crate::engine::{Db, Options};
    use crate::fs::{Fs, SimFs};

    fn open(disk: &SimFs) -> Db {
        Options::new().stepped().open_on(Arc::new(disk.clone())).unwrap()
    }

    #[test]
    fn compacting_everything_drops_what_nobody_reads_any_more_in_the_last_level_too() {
        let db = open(&SimFs::new());
        db.put(b"key", b"1").unwrap();
        let snapshot = db.snapshot();
        db.put(b"key", b"2").unwrap();
        db.compact().unwrap();
        assert_eq!(db.stats().levels[6].entries, 2);
        drop(snapshot);
        db.compact().unwrap();
        assert_eq!(db.stats().levels[6].entries, 1);
        let compactions = db.stats().compactions;
        db.compact().unwrap();
        assert_eq!(db.stats().compactions, compactions, "there is nothing to do");
    }

    #[test]
    fn a_compaction_that_meets_damage_is_no_failure_and_what_meets_none_goes_on() {
        let disk = SimFs::new();
        let db = open(&disk);
        for round in 0..4 {
            for key in ["a", "b"] {
                db.put(format!("{key}{round}").as_bytes(), &[round; 100]).unwrap();
                db.put(key.as_bytes(), &[round; 100]).unwrap();
            }
            db.flush().unwrap();
        }
        let tables = disk.list().unwrap().into_iter().filter(|name| name.ends_with(".sst"));
        let newest = tables.max().unwrap();
        disk.corrupt(&newest, 40, 1);
        assert!(db.shared().compact_if_due(false).unwrap(), "it finds the damage");
        while db.shared().compact_if_due(true).unwrap() {}
        assert_eq!(db.stats().levels[0].tables, 4, "what is older than damage cannot pass it, nor what is newer");
        assert!(db.compact().is_err(), "somebody who asks is told");
    }
}
