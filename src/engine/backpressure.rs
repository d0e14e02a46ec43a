//! Back-pressure: writers are slowed down as the tree falls behind, by a delay that grows with how far, so that no
//! writer meets a wall.
//!
//! | sign | from | to | delay of one write |
//! |---|---|---|---|
//! | tables in level 0 | [`L0_SOFT`] | [`L0_HARD`] | 0 to [`MAX_DELAY`] |
//! | bytes that compaction owes | a part of the last level | twice that | 0 to [`MAX_DELAY`] |
//! | values in blob files that are garbage or may replace some | a part of the others | twice that | 0 to [`MAX_DELAY`] |
//! | the last memtable that may be filled | empty | full | 0 to [`MAX_DELAY`] |
//! | sealed memtables | | [`MAX_SEALED`] | waits for a flush, which bounds the memory |
//!
//! The second and third bound the space that a database takes while it is overwritten faster than it is compacted. The first
//! three follow from the version, so they are looked at when one comes into force, not at each write. The fourth is there
//! so that the fifth is hardly ever met.
//!
//! A delayed thread sleeps; it never holds a lock meanwhile. Short delays are added up until they are worth a sleep.

use std::time::{Duration, Instant};

use super::blobs::level_bytes;
use super::compaction::{debt, replacing};
use super::flush::MAX_SEALED;
use super::options::Options;
use super::shared::{Job, Shared};
use super::version::{LEVELS, Version};
use super::{Error, Result, Strategy};
use crate::sync::atomic::Ordering;
use crate::sync::thread;

/// Tables in level 0 from which on writes are slowed down: three rounds of compaction behind.
pub(crate) const L0_SOFT: usize = 12;

/// Tables in level 0 at which the delay is greatest.
pub(crate) const L0_HARD: usize = 36;

/// The longest delay of one write by the ramp.
pub(crate) const MAX_DELAY: Duration = Duration::from_millis(2);

/// Delays are saved up to this: the kernel rounds a shorter sleep up to some 60 us, many times what was meant.
const SHORTEST_SLEEP: Duration = Duration::from_millis(1);

/// Waiting for a flush is checked again at least this often, should the wait depend on something that tells nobody.
const FLUSH_WAIT: Duration = Duration::from_millis(50);

/// Compaction may owe this part of the last level, or five quarters of a memtable, before writes are slowed down: so that
/// less than half of the database is taken a second time while it is overwritten, what is being merged included.
const DEBT_PART: u64 = 12;

/// The same of values in blob files, as a part of those that are where they belong, or of a memtable: less than half, what
/// is being moved included.
const REPLACING_PART: u64 = 4;

/// Level 0 may hold the values of so many memtables before it is merged down, in a database that is hardly larger.
const REPLACING_MEMTABLES: u64 = 5;

/// How far the tree is behind: 0 where nothing has to wait, 1 where the delay is greatest.
fn behind(version: &Version, options: &Options) -> f64 {
    let ramp = |is: u64, soft: u64, hard: f64| is.saturating_sub(soft) as f64 / (hard - soft as f64);
    let tables = ramp(version.levels[0].len() as u64, L0_SOFT as u64, L0_HARD as f64);
    let behind = match options.compaction {
        // Where nothing is merged, level 0 is where the tables belong.
        Strategy::Fifo { .. } => 0.0,
        Strategy::Tiered => tables,
        // What damaged tables hold up does not get less by waiting.
        Strategy::Leveled if version.damage().next().is_some() => tables,
        Strategy::Leveled => {
            let soft = (version.level_bytes(LEVELS - 1) / DEBT_PART).max(options.memtable_bytes as u64 / 4 * 5);
            let values = (level_bytes(version, LEVELS - 1) / REPLACING_PART)
                .max(options.memtable_bytes as u64 * REPLACING_MEMTABLES);
            let ramp_to_twice = |is: u64, soft: u64| ramp(is, soft, soft as f64 * 2.0);
            tables.max(ramp_to_twice(debt(version, options), soft)).max(ramp_to_twice(replacing(version), values))
        }
    };
    behind.clamp(0.0, 1.0)
}

/// The delay of one write: a ramp whose square makes its start gentle.
fn delay(behind: f64) -> Duration {
    MAX_DELAY.mul_f64(behind * behind)
}

impl Shared {
    /// A version comes into force: how much writes are slowed down from now on.
    pub(crate) fn set_delay(&self, version: &Version) {
        let delay = delay(behind(version, &self.options));
        self.delay.store(delay.as_nanos() as u64, Ordering::Relaxed);
    }

    /// Called before a write takes any lock.
    pub(crate) fn slow_down(&self) -> Result<()> {
        if self.options.stepped {
            return Ok(());
        }
        let (sealed, filled) = {
            let state = self.state();
            (state.sealed.len(), state.active.bytes() as f64 / self.options.memtable_bytes as f64)
        };
        let mut wait = Duration::from_nanos(self.delay.load(Ordering::Relaxed));
        if sealed + 1 == MAX_SEALED {
            wait = wait.max(delay(filled.min(1.0)));
        }
        if !wait.is_zero() {
            self.sleep_off(wait);
        }
        if sealed < MAX_SEALED {
            return Ok(());
        }
        let started = Instant::now();
        let result = self.wait_for_flush();
        self.counters.flush_waits.add(started);
        result
    }

    /// Sleeps for a delay; or adds a short one to what all writers have saved up, and sleeps when that is enough.
    fn sleep_off(&self, mut delay: Duration) {
        if delay < SHORTEST_SLEEP {
            let more = delay.as_nanos() as u64;
            let saved = self.saved_delay.fetch_add(more, Ordering::Relaxed) + more;
            if u128::from(saved) < SHORTEST_SLEEP.as_nanos() {
                return;
            }
            // Nothing is left if another writer was quicker, who then sleeps for all.
            delay = Duration::from_nanos(self.saved_delay.swap(0, Ordering::Relaxed)).min(MAX_DELAY);
        }
        if !delay.is_zero() {
            let started = Instant::now();
            thread::sleep(delay);
            self.counters.delays.add(started);
        }
    }

    /// Why a write would be refused now, if it would.
    pub(super) fn refusal(&self) -> Option<String> {
        let log = self.commit.writer().log_failure.clone();
        let full = || self.state().sealed.len() >= MAX_SEALED;
        log.or_else(|| self.progress.lock().error_of(Job::Flush).filter(|_| full()).map(str::to_owned))
    }

    /// Waits while as many memtables as may are waiting to be flushed: memory is bounded whatever the disk does. If it
    /// takes no tables at the moment, the write is refused instead: nobody knows how long that will last.
    fn wait_for_flush(&self) -> Result<()> {
        let mut progress = self.progress.lock();
        while self.state().sealed.len() >= MAX_SEALED
            && !self.is_stopping()
            && self.commit.writer().check_open().is_ok()
        {
            if let Some(why) = progress.error_of(Job::Flush) {
                return Err(Error::ReadOnly(why.to_owned()));
            }
            // What the flush waits for may be a sync that nobody has asked for yet.
            self.commit.log_work.notify();
            self.progressed.wait_for(&mut progress, FLUSH_WAIT);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::codec::{SeqNo, Slice};
    use crate::engine::WriteBatch;
    use crate::engine::recovery::recover;
    use crate::engine::version::TableSource;
    use crate::fs::SimFs;
    use crate::storage::BlockCache;
    use crate::storage::blob::BlobUse;
    use crate::storage::manifest::{Change, TableMeta, TableTimes};
    use crate::storage::names::FileNumber;

    fn with(level: u8, tables: u64, size: u64) -> Vec<Change> {
        let table = |number| TableMeta {
            number: FileNumber(u64::from(level) * 1000 + number),
            size,
            entries: 1,
            tombstones: 0,
            older: 0,
            first_seq: SeqNo(number),
            last_seq: SeqNo(number),
            earliest_expiry: None,
            times: TableTimes::default(),
            smallest: Slice::copy_from(&number.to_be_bytes()),
            range_tombstones: 0,
            blobs: Vec::new(),
            largest: crate::storage::End::With(Slice::copy_from(&number.to_be_bytes())),
        };
        (0..tables).map(|number| Change::AddTable { level, table: table(number) }).collect()
    }

    fn delay_of(strategy: Strategy, edit: &[Change]) -> Duration {
        let source = TableSource::new(Arc::new(SimFs::new()), Arc::new(BlockCache::with_capacity(0)));
        let version = Version::default().edited(edit, &source).unwrap();
        delay(behind(&version, &Options::new().memtable_bytes(800).level_bytes(1_000).compaction(strategy)))
    }

    /// A database of which nobody flushes anything.
    fn unflushed() -> Shared {
        recover(Arc::new(SimFs::new()), Options::new().memtable_bytes(100_000)).unwrap()
    }

    /// How often writers were delayed.
    fn delays(shared: &Shared) -> u64 {
        shared.stats().delays.count
    }

    #[test]
    fn short_delays_are_added_up_until_they_are_worth_a_sleep() {
        let shared = unflushed();
        let quarter = SHORTEST_SLEEP / 4;
        for sleeps in 1..=3 {
            (0..3).for_each(|_| shared.sleep_off(quarter));
            assert_eq!(delays(&shared), sleeps - 1);
            shared.sleep_off(quarter);
            assert_eq!(delays(&shared), sleeps);
        }
        shared.sleep_off(SHORTEST_SLEEP);
        assert_eq!(delays(&shared), 4, "long enough by itself");
    }

    #[test]
    fn a_version_that_is_behind_slows_writers_down_until_one_is_not() {
        let shared = unflushed();
        shared.slow_down().unwrap();
        assert_eq!(delays(&shared), 0);
        let edit = with(0, L0_HARD as u64, 1);
        let behind = Version::default().edited(&edit, &shared.catalog.source).unwrap();
        shared.set_delay(&behind);
        shared.slow_down().unwrap();
        assert_eq!(delays(&shared), 1);
        shared.set_delay(&Version::default());
        shared.slow_down().unwrap();
        assert_eq!(delays(&shared), 1);
    }

    #[test]
    fn the_last_memtable_that_may_be_filled_slows_writers_down_as_it_fills() {
        let shared = unflushed();
        let fill = |bytes| {
            let mut batch = WriteBatch::new();
            batch.put(b"key", &vec![7; bytes]);
            shared.submit(&batch).unwrap();
        };
        for sealed in 1..MAX_SEALED {
            fill(99_000);
            shared.slow_down().unwrap();
            assert_eq!(delays(&shared), 0, "another may be filled");
            shared.seal_all();
            assert_eq!(shared.state().sealed.len(), sealed);
        }
        shared.slow_down().unwrap();
        assert_eq!(delays(&shared), 0, "it is empty");
        fill(99_000);
        shared.slow_down().unwrap();
        assert_eq!(delays(&shared), 1, "it is full: as long as it gets");
    }

    #[test]
    fn the_ramp_starts_gently_and_ends_at_its_bound() {
        let of = |tables: usize| delay_of(Strategy::Leveled, &with(0, tables as u64, 1));
        assert_eq!(of(0), Duration::ZERO);
        assert_eq!(of(L0_SOFT), Duration::ZERO);
        assert!(of(L0_SOFT + 1) < MAX_DELAY / 100);
        assert!((L0_SOFT..L0_HARD).all(|tables| of(tables) < of(tables + 1)));
        assert_eq!(of(L0_HARD), MAX_DELAY);
        assert_eq!(of(10 * L0_HARD), MAX_DELAY);
    }

    #[test]
    fn bytes_owed_slow_writes_down_beside_what_the_last_level_holds() {
        let of = |flushed: u64, base: u64, last: u64| {
            let edit = [with(0, 1, flushed), with(5, 1, base), with(6, 1, last)].concat();
            delay_of(Strategy::Leveled, &edit)
        };
        assert_eq!(of(999, 1, 1), Duration::ZERO, "a small database owes little");
        assert_eq!(of(1_000, 8_000, 80_000), Duration::ZERO);
        assert_eq!(of(6_600, 8_000, 80_000), Duration::ZERO);
        assert!(!of(7_000, 8_000, 80_000).is_zero());
        assert!(!of(3_000, 16_000, 80_000).is_zero(), "the level above the last one is too large");
        assert_eq!(of(20_000, 8_000, 80_000), MAX_DELAY);
        let edit = [with(0, 3, 9_000), with(6, 1, 80_000)].concat();
        assert_eq!(delay_of(Strategy::Tiered, &edit), Duration::ZERO, "runs above the last one are no debt");
        let fifo = Strategy::Fifo { max_age: None, max_bytes: None };
        assert_eq!(delay_of(fifo, &with(0, 10 * L0_HARD as u64, 9_000)), Duration::ZERO);
    }

    #[test]
    fn what_damage_holds_up_slows_nobody_down_but_tables_do() {
        let source = TableSource::new(Arc::new(SimFs::new()), Arc::new(BlockCache::with_capacity(0)));
        let options = Options::new().memtable_bytes(800).level_bytes(1_000);
        for (tables, all) in [(1, 0.0), (L0_HARD, 1.0)] {
            let edit = [with(0, tables as u64, 90_000), with(6, 1, 80_000)].concat();
            let version = Version::default().edited(&edit, &source).unwrap();
            assert_eq!(behind(&version, &options), 1.0, "much is owed");
            let damage = Error::Corrupt { file: "a table".to_owned(), what: "damage".to_owned(), offset: 0 };
            version.levels[6][0].note(&damage);
            assert_eq!(behind(&version, &options), all, "{tables} tables");
        }
    }

    #[test]
    fn values_that_are_garbage_or_may_replace_some_slow_writes_down_beside_the_others() {
        let pointing = |level: u8, used: &[(u64, u64)]| {
            let mut edit = with(level, 1, 1);
            if let [Change::AddTable { table, .. }] = &mut edit[..] {
                let blob = |&(file, used_bytes)| BlobUse { file: FileNumber(file), file_bytes: 50_000, used_bytes };
                table.blobs = used.iter().map(blob).collect();
            }
            edit
        };
        let much = [pointing(0, &[(3, 0)]), pointing(6, &[(1, 49_000), (2, 49_000)])].concat();
        assert_eq!(delay_of(Strategy::Leveled, &much), MAX_DELAY, "52,000 bytes of garbage beside 98,000");
        let all = [pointing(0, &[(3, 20_000), (4, 0)]), pointing(6, &[(1, 50_000), (2, 50_000), (4, 50_000)])].concat();
        assert!(!delay_of(Strategy::Leveled, &all).is_zero(), "30,000 of garbage, 20,000 that may replace some");
        let few = [pointing(0, &[(3, 34_000)]), pointing(6, &[(1, 50_000), (2, 50_000), (4, 50_000), (3, 15_000)])];
        assert_eq!(delay_of(Strategy::Leveled, &few.concat()), Duration::ZERO, "1,000 and 34,000 beside 165,000");
        let small = [pointing(0, &[(3, 4_000)]), pointing(6, &[(3, 46_000)])].concat();
        assert_eq!(delay_of(Strategy::Leveled, &small), Duration::ZERO, "five memtables of 800 bytes");
        assert_eq!(delay_of(Strategy::Tiered, &all), Duration::ZERO);
    }
}
