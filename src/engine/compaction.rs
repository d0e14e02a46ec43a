//! Compaction: which tables to merge (a pure function), and merging them.
//!
//! Leveled: level 0 takes flushed memtables; once it has [`L0_TRIGGER`] of them they are merged into level 1. A deeper
//! level that outgrows its size gives the table that overlaps the next level least to it. A table that overlaps nothing
//! there just changes its level.
//!
//! One compaction runs at a time, so its inputs stay in the version until its own edit removes them; only flushes come
//! in between, and they add to level 0 what is newer than every input.

use std::sync::Arc;

use parking_lot::MutexGuard;
use tracing::info;

use super::flush::value_of;
use super::merge::{Direction, Merge, Source};
use super::options::Options;
use super::output::{Keep, TableOutput};
use super::shared::Shared;
use super::sources::{KeyRange, TablesSource};
use super::version::{LEVELS, TableHandle, Version};
use super::{Error, Result, SeqNo};
use crate::storage::manifest::Change;
use crate::storage::sstable::ReadMode;

/// Tables in level 0 that are merged into level 1: fewer and level 1 is rewritten too often, more and every read looks
/// into each of them.
pub(crate) const L0_TRIGGER: usize = 4;

/// How much larger each level may be than the one above it.
const LEVEL_FACTOR: u64 = 10;

/// A compaction to be done.
#[derive(Clone, Debug)]
pub(crate) struct Task {
    /// Where the inputs are.
    pub(crate) level: usize,
    pub(crate) inputs: Vec<Arc<TableHandle>>,
    /// Where the output goes; the same level for a rewrite in place.
    pub(crate) target: usize,
    /// The tables of the target level that are merged in.
    pub(crate) overlap: Vec<Arc<TableHandle>>,
}

impl Task {
    fn new(version: &Version, level: usize, inputs: Vec<Arc<TableHandle>>, target: usize) -> Task {
        let smallest = inputs.iter().map(|table| &table.meta.smallest).min();
        let largest = inputs.iter().map(|table| &table.meta.largest).max();
        let overlap = match (smallest, largest) {
            (Some(smallest), Some(largest)) if target != level => version.overlapping(target, smallest, largest),
            _ => Vec::new(),
        };
        Task { level, inputs, target, overlap }
    }

    /// Whether a table is known to be damaged: such a one is left where it is, for a repair to save what can be read.
    fn meets_damage(&self) -> bool {
        self.inputs.iter().chain(&self.overlap).any(|table| table.damage().is_some())
    }

    /// Bytes of the target level that are rewritten for each byte of the input.
    fn cost(&self) -> f64 {
        let bytes = |tables: &[Arc<TableHandle>]| tables.iter().map(|table| table.meta.size).sum::<u64>() as f64;
        bytes(&self.overlap) / bytes(&self.inputs).max(1.0)
    }

    /// Whether the input only has to change its level.
    fn is_move(&self) -> bool {
        self.inputs.len() == 1 && self.overlap.is_empty() && self.target != self.level
    }
}

/// The most bytes that a level (1 or deeper) should hold.
fn level_limit(options: &Options, level: usize) -> u64 {
    options.level_bytes.saturating_mul(LEVEL_FACTOR.saturating_pow(level as u32 - 1))
}

/// What to compact next, if anything: in the level that is furthest over its limit, or in the next one if damaged tables
/// leave nothing to do there.
pub(crate) fn pick(version: &Version, options: &Options) -> Option<Task> {
    let score = |level: usize| match level {
        0 => version.levels[0].len() as f64 / L0_TRIGGER as f64,
        _ => version.level_bytes(level) as f64 / level_limit(options, level) as f64,
    };
    let mut due: Vec<(usize, f64)> = (0..LEVELS - 1)
        .map(|level| (level, score(level)))
        .filter(|&(level, score)| score > 1.0 || (level == 0 && score == 1.0))
        .collect();
    due.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    due.into_iter().find_map(|(level, _)| match level {
        0 => pick_flushed(version),
        // The table that drags the fewest bytes of the next level along for each of its own.
        _ => movable(version, level).min_by(|a, b| a.cost().total_cmp(&b.cost())),
    })
}

/// All of level 0 into level 1. If damage stands in the way: those older than it, and else those newer than it into one
/// table, so that there are never more and more of them. What is newer must not get below what is older.
fn pick_flushed(version: &Version) -> Option<Task> {
    let tables = &version.levels[0];
    let is_damaged = |table: &Arc<TableHandle>| table.damage().is_some();
    let least = if tables.iter().any(is_damaged) { L0_TRIGGER } else { 1 };
    let older = tables[tables.iter().rposition(is_damaged).map_or(0, |at| at + 1)..].to_vec();
    let down = (older.len() >= least).then(|| Task::new(version, 0, older, 1)).filter(|task| !task.meets_damage());
    down.or_else(|| {
        let newer = tables[..tables.iter().position(is_damaged).unwrap_or(tables.len())].to_vec();
        (newer.len() >= L0_TRIGGER).then(|| Task::new(version, 0, newer, 0))
    })
}

/// Each table of a deeper level into the next one, where no damage stands in the way.
fn movable(version: &Version, level: usize) -> impl Iterator<Item = Task> {
    let tables = version.levels[level].iter();
    tables
        .map(move |table| Task::new(version, level, vec![table.clone()], level + 1))
        .filter(|task| !task.meets_damage())
}

/// For a compaction of everything: the next step that moves the tables of `level` into the one below.
pub(crate) fn pick_from(version: &Version, level: usize) -> Option<Task> {
    match level {
        0 => pick_flushed(version),
        _ => movable(version, level).next(),
    }
}

/// For a compaction of everything: the tables of the deepest level that a rewrite would make smaller.
pub(crate) fn pick_garbage(version: &Version, floor: SeqNo, now: u64) -> Vec<Task> {
    let bottom = version.bottom();
    if bottom == 0 {
        return Vec::new();
    }
    let wasteful = |table: &&Arc<TableHandle>| {
        let meta = &table.meta;
        let expired = meta.earliest_expiry.is_some_and(|at| at <= now);
        let sound = table.damage().is_none();
        sound && (meta.tombstones > 0 || meta.older > 0 || expired) && meta.first_seq <= floor
    };
    let tables = version.levels[bottom].iter().filter(wasteful);
    tables.map(|table| Task::new(version, bottom, vec![table.clone()], bottom)).collect()
}

impl Shared {
    /// Does one compaction if one is due. Whether it did.
    pub(crate) fn compact_if_due(&self) -> Result<bool> {
        let _turn = self.compaction_turn()?;
        match pick(&self.state().version, &self.options) {
            Some(task) => self.run_unless_damaged(&task).map(|()| true),
            None => Ok(false),
        }
    }

    /// One compaction at a time, and none once the database is being closed.
    fn compaction_turn(&self) -> Result<MutexGuard<'_, ()>> {
        let turn = self.compacting.lock();
        if self.is_stopping() { Err(Error::Closed) } else { Ok(turn) }
    }

    /// Flushes, then merges everything down to the deepest level in use. Others get their turn between the steps.
    pub(crate) fn compact_all(&self) -> Result<()> {
        self.flush_all()?;
        let bottom = self.state().version.bottom().max(1);
        for level in 0..bottom {
            // What is flushed or moved here meanwhile is not this call's business, or it might never end.
            let upto = self.state().version.last_seq();
            loop {
                let _turn = self.compaction_turn()?;
                let version = self.state().version.clone();
                let Some(task) = pick_from(&version, level) else { break };
                if task.inputs.iter().all(|table| table.meta.first_seq > upto) {
                    break;
                }
                self.run_unless_damaged(&task)?;
            }
        }
        let garbage = pick_garbage(&self.state().version, self.retention.floor(), self.options.clock.now());
        for task in garbage {
            let _turn = self.compaction_turn()?;
            let version = self.state().version.clone();
            let still_there = |table: &Arc<TableHandle>| {
                version.levels[task.level].iter().any(|other| other.meta.number == table.meta.number)
            };
            if task.inputs.iter().all(still_there) {
                self.run_unless_damaged(&task)?;
            }
        }
        // Done, but for what cannot be.
        match self.state().version.tables().find_map(|(_, table)| table.damage()) {
            Some(damage) => Err(Error::Background(format!("all but what is damaged is compacted: {damage}"))),
            None => Ok(()),
        }
    }

    /// As [`Shared::run`]. That it meets damage is no failure: the table is known from then on, and no task has it.
    fn run_unless_damaged(&self, task: &Task) -> Result<()> {
        match self.run(task) {
            Err(Error::Corrupt { .. }) if task.meets_damage() => Ok(()),
            result => result,
        }
    }

    /// Merges the task's tables and installs the result in one edit. The caller holds the turn.
    fn run(&self, task: &Task) -> Result<()> {
        let started = std::time::Instant::now();
        let mut edit = Vec::new();
        for (level, tables) in [(task.level, &task.inputs), (task.target, &task.overlap)] {
            let drops = tables.iter().map(|table| Change::DropTable { level: level as u8, number: table.meta.number });
            edit.extend(drops);
        }
        let read: u64 = task.inputs.iter().chain(&task.overlap).map(|table| table.meta.size).sum();
        let target = task.target as u8;
        let mut written = 0;
        if task.is_move() {
            edit.push(Change::AddTable { level: target, table: task.inputs[0].meta.clone() });
        } else {
            let tables = self.merge_tables(task)?;
            written = tables.iter().map(|table| table.size).sum();
            edit.extend(tables.into_iter().map(|table| Change::AddTable { level: target, table }));
        }
        self.catalog.commit(edit, |version| self.install(version))?;
        super::stats::add(&self.counters.compactions, 1);
        super::stats::add(&self.counters.compaction_read_bytes, if task.is_move() { 0 } else { read });
        super::stats::add(&self.counters.compaction_written_bytes, written);
        info!(
            level = task.level,
            target = task.target,
            inputs = task.inputs.len(),
            overlap = task.overlap.len(),
            read,
            written,
            took = ?started.elapsed(),
            "compaction finished"
        );
        Ok(())
    }

    fn merge_tables(&self, task: &Task) -> Result<Vec<crate::storage::manifest::TableMeta>> {
        let version = self.state().version.clone();
        let source = |tables: Vec<Arc<TableHandle>>| -> Box<dyn Source> {
            Box::new(TablesSource::new(tables, KeyRange::all(), Direction::Forward, ReadMode::Streaming))
        };
        let mut sources: Vec<Box<dyn Source>> = Vec::new();
        match task.level {
            0 => sources.extend(task.inputs.iter().map(|table| source(vec![table.clone()]))),
            _ => sources.push(source(task.inputs.clone())),
        }
        sources.push(source(task.overlap.clone()));
        let mut merge = Merge::new(Direction::Forward, sources);

        let mut below = Below::new(&version, task);
        let mut keep = Keep::new(&self.retention, self.options.clock.now());
        // Within level 0 one table comes of several, and older ones, damaged or not, lie below it unseen.
        let within_flushed = task.target == 0;
        let cut_at = if within_flushed { u64::MAX } else { self.options.table_bytes };
        let mut output = TableOutput::new(self, cut_at);
        let mut key: Vec<u8> = Vec::new();
        while merge.advance()? {
            if *merge.key() != *key {
                key.clear();
                key.extend_from_slice(merge.key());
                keep.next_key();
                output.next_key()?;
                if self.is_stopping() {
                    return Err(Error::Closed);
                }
            }
            if let Some(kind) = keep.version(merge.seq(), merge.kind(), || !within_flushed && below.is_empty_at(&key)) {
                output.add(&key, merge.seq(), kind, value_of(kind, merge.value_bytes()))?;
            }
        }
        output.finish()
    }
}

/// Whether a key can be in a level deeper than a task's target. Asked for ascending keys, so it only ever moves on.
struct Below<'a> {
    levels: Vec<std::iter::Peekable<std::slice::Iter<'a, Arc<TableHandle>>>>,
}

impl<'a> Below<'a> {
    fn new(version: &'a Version, task: &Task) -> Below<'a> {
        Below { levels: version.levels[task.target + 1..].iter().map(|tables| tables.iter().peekable()).collect() }
    }

    fn is_empty_at(&mut self, key: &[u8]) -> bool {
        self.levels.iter_mut().all(|tables| {
            while tables.next_if(|table| *table.meta.largest < *key).is_some() {}
            tables.peek().is_none_or(|table| *table.meta.smallest > *key)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::version::TableSource;
    use crate::fs::SimFs;
    use crate::storage::BlockCache;
    use crate::storage::manifest::TableMeta;
    use crate::storage::names::FileNumber;

    /// A tree in words: a line a level, `1: a-f*100 g-p` are two tables, the first of 100 bytes, the other of 10. Behind a
    /// table: `!` it has tombstones, `@7` its oldest change; behind all of that, `?` it is damaged.
    fn tree(text: &str) -> Version {
        let fs = Arc::new(SimFs::new());
        let source = Arc::new(TableSource { fs, cache: Arc::new(BlockCache::with_capacity(0)) });
        let mut edit = Vec::new();
        let mut damaged = Vec::new();
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let (level, tables) = line.split_once(':').unwrap();
            for word in tables.split_whitespace() {
                let (word, is_damaged) = word.strip_suffix('?').map_or((word, false), |word| (word, true));
                let (word, first_seq) =
                    word.split_once('@').map_or((word, 1), |(word, at)| (word, at.parse().unwrap()));
                let (word, tombstones) = word.strip_suffix('!').map_or((word, 0), |word| (word, 1));
                let (range, size) =
                    word.split_once('*').map_or((word, 10), |(range, size)| (range, size.parse().unwrap()));
                let (smallest, largest) = range.split_once('-').unwrap();
                let number = edit.len() as u64 + 1;
                damaged.extend(is_damaged.then_some(FileNumber(number)));
                let table = TableMeta {
                    number: FileNumber(number),
                    size,
                    entries: 1,
                    tombstones,
                    older: 0,
                    first_seq: SeqNo(first_seq),
                    last_seq: SeqNo(100 - number),
                    earliest_expiry: None,
                    smallest: smallest.as_bytes().to_vec().into(),
                    largest: largest.as_bytes().to_vec().into(),
                };
                edit.push(Change::AddTable { level: level.parse().unwrap(), table });
            }
        }
        let version = Version::default().edited(&edit, &source).unwrap();
        for (_, table) in version.tables().filter(|(_, table)| damaged.contains(&table.meta.number)) {
            table.note(&Error::Corrupt { file: "a table".to_owned(), what: "damage".to_owned(), offset: 0 });
        }
        version
    }

    fn told(task: &Task) -> String {
        let name = |table: &Arc<TableHandle>| {
            format!("{}-{}", table.meta.smallest.escape_ascii(), table.meta.largest.escape_ascii())
        };
        let names = |tables: &[Arc<TableHandle>]| tables.iter().map(name).collect::<Vec<_>>().join(" ");
        let what = if task.is_move() { "move" } else { "merge" };
        format!("{what} {} of {} into {} with [{}]", names(&task.inputs), task.level, task.target, names(&task.overlap))
    }

    /// Level 1 may have 100 bytes, level 2 1,000.
    fn picked(text: &str) -> String {
        let options = Options::new().level_bytes(100);
        pick(&tree(text), &options).map_or("nothing".to_owned(), |task| told(&task))
    }

    #[test]
    fn the_level_that_is_furthest_over_its_limit_gives_what_drags_least_along() {
        for (tree, expected) in [
            ("", "nothing"),
            ("0: a-z a-z a-z", "nothing"),
            ("0: a-c d-f a-z k-z", "merge a-c d-f a-z k-z of 0 into 1 with []"),
            ("0: c-d c-d c-d c-f\n1: a-b c-c e-k m-z", "merge c-d c-d c-d c-f of 0 into 1 with [c-c e-k]"),
            // Exactly at the limit is not over it.
            ("1: a-c*50 d-f*50", "nothing"),
            ("1: a-c*50 d-f*51", "move a-c of 1 into 2 with []"),
            // Nothing below the second: it only moves.
            ("1: a-c*60 d-f*60\n2: b-c*10", "move d-f of 1 into 2 with []"),
            // Per byte of its own the large one drags fewer bytes along.
            ("1: a-c*20 d-f*100\n2: a-b*40 e-g*50", "merge d-f of 1 into 2 with [e-g]"),
            // Level 0 at one and a half, level 1 at two of its limit, level 2 below its own.
            ("0: a-b a-b a-b a-b a-b a-b\n1: a-c*200\n2: a-z*900", "merge a-c of 1 into 2 with [a-z]"),
            (
                "0: a-b a-b a-b a-b a-b a-b\n1: a-c*150\n2: a-z*900",
                "merge a-b a-b a-b a-b a-b a-b of 0 into 1 with [a-c]",
            ),
            ("2: a-c*1001", "move a-c of 2 into 3 with []"),
            // The deepest level has no limit.
            ("6: a-c*281474976710656", "nothing"),
        ] {
            assert_eq!(picked(tree), expected, "{tree}");
        }
    }

    #[test]
    fn damage_is_left_where_it_is_and_nothing_newer_gets_below_it() {
        for (tree, expected) in [
            // Newest first: what is newer becomes one table, what is older goes down.
            ("0: a-c a-d a-e a-f a-z? a-b", "merge a-c a-d a-e a-f of 0 into 0 with []"),
            ("0: a-b a-z? a-c a-d a-e a-f\n1: c-d", "merge a-c a-d a-e a-f of 0 into 1 with [c-d]"),
            ("0: a-b a-z? a-c a-d a-e a-z?", "nothing"),
            ("0: a-b a-c a-d a-z?", "nothing"),
            // Damage in level 1 keeps level 0 from coming down.
            ("0: a-b a-c a-d a-e\n1: c-d?", "merge a-b a-c a-d a-e of 0 into 0 with []"),
            ("0: a-b a-c a-d a-e\n1: f-g?", "merge a-b a-c a-d a-e of 0 into 1 with []"),
            ("1: a-c*60? d-f*60", "move d-f of 1 into 2 with []"),
            ("1: a-c*60 d-f*60\n2: a-b*1 e-f*10?", "merge a-c of 1 into 2 with [a-b]"),
            ("1: a-c*60 d-f*60\n2: a-f*10?", "nothing"),
            // The next level gets its turn.
            ("1: a-c*300?\n2: m-n*1001", "move m-n of 2 into 3 with []"),
        ] {
            assert_eq!(picked(tree), expected, "{tree}");
        }
        assert!(pick_garbage(&self::tree("1: a-c\n2: a-c!?"), SeqNo(50), 0).is_empty());
    }

    #[test]
    fn compacting_everything_takes_all_of_level_0_and_of_others_one_table_at_a_time() {
        let version = tree("0: a-c k-z\n1: b-d e-f\n2: c-e");
        let from = |level| pick_from(&version, level).map_or("nothing".to_owned(), |task| told(&task));
        assert_eq!(from(0), "merge a-c k-z of 0 into 1 with [b-d e-f]");
        assert_eq!(from(1), "merge b-d of 1 into 2 with [c-e]");
        assert_eq!(from(2), "move c-e of 2 into 3 with []");
        assert_eq!(from(3), "nothing");
    }

    #[test]
    fn garbage_is_what_a_rewrite_of_the_deepest_level_would_drop() {
        let garbage = |tree_text, floor| -> Vec<String> {
            pick_garbage(&tree(tree_text), SeqNo(floor), 0).iter().map(told).collect()
        };
        let text = "1: a-c! d-f\n2: a-c! d-f g-h!@50";
        assert_eq!(garbage(text, 20), ["merge a-c of 2 into 2 with []"], "the other is still readable");
        assert_eq!(garbage(text, 50).len(), 2);
        assert!(garbage("0: a-c!", 50).is_empty(), "level 0 is merged down first");
    }

    #[test]
    fn a_key_is_looked_for_in_the_levels_below_the_target_only() {
        let version = tree("0: a-z\n1: a-z\n2: b-d k-m\n3: c-e\n5: x-y");
        let task = pick_from(&version, 0).unwrap();
        let mut below = Below::new(&version, &task);
        let empty: String = ('a'..='z').filter(|key| below.is_empty_at(&[*key as u8])).collect();
        assert_eq!(empty, "afghijnopqrstuvwz");
    }
}
