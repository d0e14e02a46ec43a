//! What is picked from which tree: `tests/golden/picks.txt` describes trees and says what is to be done with each. The
//! file is text that a person can read and write:
//!
//! ```text
//! case     := "# " title | options | level* | "=> " task
//! options  := ("leveled" | "tiered" | "fifo") name=number* ["idle"]
//! level    := number ":" table*            // all tables from the newest to the oldest
//! table    := first "-" last "/" size ("," name "=" number)* [",damaged"]
//! name     := ... | "blob1" to "blob9"      // of which blob file it points to how many bytes: of 1,000, the last of 10,000
//! last     := key | "<" key | "*"           // as the range of a range tombstone ends: before the key, or never
//! ```
//!
//! A table has a hundred entries unless it says otherwise. With `UPDATE_GOLDEN=1` the tasks are written anew; read the
//! difference before you commit it.

mod handles;

use std::collections::{BTreeSet, HashMap};
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use super::garbage::pick_all;
use super::pick::{View, pick};
use super::rewrite::{Below, Met, split, worth};
use super::task::{Action, Task};
use super::{Strategy, deleted, values};
use crate::codec::{SeqNo, Slice};
use crate::engine::blobs::all_wasteful;
use crate::engine::retention::Floor;
use crate::engine::version::{TableHandle, TableSource, Version};
use crate::engine::{Error, Options};
use crate::fs::SimFs;
use crate::storage::blob::BlobUse;
use crate::storage::golden::golden;
use crate::storage::manifest::{Change, TableMeta, TableTimes};
use crate::storage::names::FileNumber;
use crate::storage::{BlockCache, End};

/// `name=number` words.
struct Numbers<'a>(HashMap<&'a str, u64>);

impl<'a> Numbers<'a> {
    fn of(words: impl Iterator<Item = &'a str>) -> Numbers<'a> {
        Numbers(
            words.map(|word| word.split_once('=').map_or((word, 1), |(name, n)| (name, n.parse().unwrap()))).collect(),
        )
    }

    fn find(&mut self, name: &str) -> Option<u64> {
        self.0.remove(name)
    }

    fn get(&mut self, name: &str, default: u64) -> u64 {
        self.find(name).unwrap_or(default)
    }

    /// A misspelt name would test something else than it says.
    fn done(self) {
        assert!(self.0.is_empty(), "unknown: {:?}", self.0);
    }
}

/// A tree, and all else that picking depends on.
struct Case {
    version: Version,
    options: Options,
    now: u64,
    floor: SeqNo,
    idle: bool,
}

impl Case {
    fn parse(options: &str, levels: &[&str]) -> Case {
        let (strategy, rest) = options.split_once(' ').unwrap_or((options, ""));
        let mut numbers = Numbers::of(rest.split_whitespace());
        let strategy = match strategy {
            "leveled" => Strategy::Leveled,
            "tiered" => Strategy::Tiered,
            "fifo" => Strategy::Fifo {
                max_age: numbers.find("age").map(Duration::from_millis),
                max_bytes: numbers.find("bytes"),
            },
            other => panic!("no strategy: {other}"),
        };
        let options = Options::new()
            .compaction(strategy)
            .level_bytes(numbers.get("level_bytes", 100))
            .table_bytes(numbers.get("table_bytes", 10))
            .memtable_bytes(numbers.get("memtable_bytes", 100) as usize);
        let case = Case {
            version: tree(levels),
            options,
            now: numbers.get("now", 1000),
            floor: SeqNo(numbers.get("floor", u64::MAX)),
            idle: numbers.get("idle", 0) == 1,
        };
        numbers.done();
        case
    }

    fn pick(&self) -> Option<Task> {
        let Case { version, options, now, floor, idle } = self;
        let floor = Floor { seq: *floor, expired: *now };
        let task = pick(&View { version, options, now: *now, floor, idle: *idle });
        if let Some(task) = &task {
            assert!(task.keeps_order(version), "{task:?}");
            assert!(task.is_still_there(version), "{task:?}");
        }
        task
    }
}

/// The tree with these levels; the first table has the newest entries.
fn tree(levels: &[&str]) -> Version {
    let tables: usize = levels.iter().map(|level| level.split_whitespace().count() - 1).sum();
    let mut edit = Vec::new();
    let mut damaged = Vec::new();
    for line in levels {
        let (level, words) = line.split_once(':').unwrap();
        for word in words.split_whitespace() {
            let number = (tables - edit.len()) as u64;
            let (sound, is_damaged) = word.strip_suffix(",damaged").map_or((word, false), |word| (word, true));
            damaged.extend(is_damaged.then_some(FileNumber(number)));
            edit.push(Change::AddTable { level: level.parse().unwrap(), table: table(number, sound) });
        }
    }
    let source = TableSource::new(Arc::new(SimFs::new()), Arc::new(BlockCache::with_capacity(0)));
    let version = Version::default().edited(&edit, &source).unwrap();
    for (_, table) in version.tables().filter(|(_, table)| damaged.contains(&table.meta.number)) {
        table.note(&Error::Corrupt { file: "a table".to_owned(), what: "damage".to_owned(), offset: 0 });
    }
    version
}

/// The length of a blob file.
fn blob_bytes(file: u64) -> u64 {
    if file == 9 { 10_000 } else { 1_000 }
}

/// Its entries have the sequence numbers from ten times its number on.
fn table(number: u64, word: &str) -> TableMeta {
    let (range, rest) = word.split_once('/').unwrap();
    let (smallest, largest) = range.split_once('-').unwrap();
    let (size, rest) = rest.split_once(',').unwrap_or((rest, ""));
    let mut numbers = Numbers::of(rest.split(',').filter(|word| !word.is_empty()));
    let expiring = numbers.get("expiring", 0);
    let from = numbers.get("from", 0);
    let to = numbers.get("to", from);
    let quartiles = [1, 2, 3, 4].map(|quarter| from + (to - from) * quarter / 4);
    let table = TableMeta {
        number: FileNumber(number),
        size: size.parse().unwrap(),
        entries: numbers.get("entries", 100),
        tombstones: numbers.get("tombstones", 0),
        older: numbers.get("older", 0),
        first_seq: SeqNo(number * 10),
        last_seq: SeqNo(number * 10 + 9),
        earliest_expiry: (expiring > 0).then_some(from),
        times: TableTimes { written: numbers.find("written"), expiring, quartiles },
        smallest: Slice::copy_from(smallest.as_bytes()),
        range_tombstones: numbers.get("ranges", 0),
        blobs: (1..=9)
            .filter_map(|file| Some((file, numbers.find(&format!("blob{file}"))?)))
            .map(|(file, used_bytes)| BlobUse { file: FileNumber(file), file_bytes: blob_bytes(file), used_bytes })
            .collect(),
        largest: match largest.strip_prefix('<') {
            Some(bound) => End::before(Some(bound.as_bytes())),
            None if largest == "*" => End::Never,
            None => End::With(Slice::copy_from(largest.as_bytes())),
        },
    };
    numbers.done();
    table
}

fn range(table: &TableHandle) -> String {
    let text = |key: &[u8]| String::from_utf8_lossy(key).into_owned();
    let last = match &table.meta.largest {
        End::With(key) => text(key),
        End::Before(bound) => format!("<{}", text(bound)),
        End::Never => "*".to_owned(),
    };
    format!("{}-{last}", text(&table.meta.smallest))
}

/// Such as `merge 0: a-c b-d, 6: a-z into 6 (flushed)`.
fn tell(task: Option<Task>) -> String {
    let Some(task) = task else { return "nothing".to_owned() };
    let mut text = format!("{:?} ", task.action).to_lowercase();
    let levels: Vec<String> = task
        .inputs
        .iter()
        .map(|(level, tables)| {
            let ranges: Vec<String> = tables.iter().map(|table| range(table)).collect();
            format!("{level}: {}", ranges.join(" "))
        })
        .collect();
    text += &levels.join(", ");
    if task.action != super::task::Action::Drop {
        write!(text, " into {}", task.target).unwrap();
    }
    for file in &task.moving {
        write!(text, ", emptying blob{}", file.0).unwrap();
    }
    text + &format!(" ({})", task.why.name())
}

#[test]
fn each_tree_gets_what_the_book_says() {
    let book = golden("picks.txt", &std::fs::read_to_string("tests/golden/picks.txt").unwrap());
    let mut told = String::new();
    let mut cases = 0;
    for paragraph in book.split("\n\n") {
        let lines: Vec<&str> =
            paragraph.lines().filter(|line| !line.starts_with('#') && !line.starts_with("=>")).collect();
        for line in paragraph.lines().filter(|line| !line.starts_with("=>")) {
            told += &format!("{line}\n");
        }
        if let Some((options, levels)) = lines.split_first() {
            told += &format!("=> {}\n", tell(Case::parse(options, levels).pick()));
            cases += 1;
        }
        told += "\n";
    }
    let told = format!("{}\n", told.trim_end());
    assert!(cases > 20, "where have they gone?");
    for (said, is) in golden("picks.txt", &told).lines().zip(told.lines()) {
        assert_eq!(said, is);
    }
}

#[test]
fn a_large_task_is_cut_where_tables_begin_into_parts_of_about_the_same_size() {
    let parts = |levels: &[&str], parts: u64| {
        let version = tree(levels);
        let inputs = version
            .levels
            .iter()
            .map(|tables| tables.to_vec())
            .enumerate()
            .filter(|(_, tables)| !tables.is_empty())
            .collect();
        let ranges = split(&Task::merge(super::task::Why::Flushed, inputs, 6), parts);
        let text: Vec<String> = ranges.iter().map(|range| format!("{:?}", (range.lower(), range.upper()))).collect();
        text.join(" ").replace("Included", "=").replace("Excluded", "<").replace("Unbounded", "*")
    };
    let key = |key: u8| format!("([{key}])");
    let (d, g) = (key(b'd'), key(b'g'));
    let even = ["0: a-z/99", "6: a-c/10 d-f/10 g-i/10"];
    assert_eq!(parts(&even, 1), "(*, *)");
    assert_eq!(parts(&even, 3), format!("(*, <{d}) (={d}, <{g}) (={g}, *)"));
    assert_eq!(parts(&even, 2), format!("(*, <{g}) (={g}, *)"));
    assert_eq!(parts(&["0: a-z/99", "6: a-c/90 d-f/10 g-i/10"], 2), format!("(*, <{d}) (={d}, *)"));
    assert_eq!(parts(&even, 9), format!("(*, <{d}) (={d}, <{g}) (={g}, *)"), "no more parts than tables");
    assert_eq!(parts(&["0: a-z/99 c-d/50"], 4), "(*, *)", "nothing sorted to cut at");
}

#[test]
fn a_tombstone_is_needed_while_a_deeper_level_may_hold_its_key() {
    let version = tree(&["1: a-z/1", "4: c-e/1 k-m/1", "6: d-d/1 l-p/1"]);
    let below = |target| {
        let mut below = Below::new(&version, target);
        ('a'..='z').filter(|key| !below.is_empty_at(key.to_string().as_bytes())).collect::<String>()
    };
    assert_eq!(below(1), "cdeklmnop");
    assert_eq!(below(4), "dlmnop");
    assert_eq!(below(6), "");
}

#[test]
fn compacting_everything_rewrites_what_would_become_smaller() {
    let version = tree(&[
        "0: a-z/1,tombstones=9",
        "6: a-b/9 c-d/9,tombstones=1 e-f/9,ranges=1 g-h/9,older=1 i-j/9,expiring=1,from=1000 k-l/9,expiring=1,from=1001 m-n/9,older=1,damaged",
    ]);
    let picked = |seq: u64| {
        let tasks = pick_all(&version, Floor { seq: SeqNo(seq), expired: 1_000 });
        assert!(tasks.iter().all(|task| task.target == 6 && task.keeps_order(&version)));
        tasks.iter().flat_map(Task::tables).map(|(_, table)| range(table)).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(picked(u64::MAX), "c-d e-f g-h i-j");
    let first = version.levels[6].iter().map(|table| table.meta.first_seq.0).collect::<Vec<_>>();
    assert_eq!(picked(first[3]), "g-h i-j", "somebody may still read what the newer ones hide");
    assert_eq!(picked(first[3] - 1), "i-j");
    assert!(pick_all(&tree(&["0: a-z/1,tombstones=9"]), Floor { seq: SeqNo::MAX, expired: 0 }).is_empty());
}

#[test]
fn a_task_passes_no_older_version_that_it_does_not_take_along() {
    let version = tree(&["0: a-c/1 b-d/1 a-c/2 x-z/3", "3: a-m/40 n-z/50", "6: a-z/600"]);
    let keeps = |action: Action, inputs: &[(usize, &[usize])], target: usize| {
        let inputs = inputs.iter().map(|(level, tables)| {
            (*level, tables.iter().map(|table| version.levels[*level][*table].clone()).collect())
        });
        let task = Task { action, ..Task::merge(super::task::Why::Asked, inputs.collect(), target) };
        assert!(task.is_still_there(&version));
        assert_eq!(task.bytes(), task.tables().map(|(_, table)| table.meta.size).sum::<u64>());
        assert!(!task.is_still_there(&tree(&["0: q-r/1"])));
        task.keeps_order(&version)
    };
    let merge = |inputs: &[(usize, &[usize])], target| keeps(Action::Merge, inputs, target);
    assert!(merge(&[(0, &[0, 1, 2]), (3, &[0])], 3));
    assert!(!merge(&[(0, &[0, 1, 2])], 3), "what it meets below");
    assert!(!merge(&[(0, &[0, 1, 2]), (6, &[0])], 6), "what lies between");
    assert!(merge(&[(0, &[3]), (3, &[1])], 3), "it meets nothing else");
    assert!(!merge(&[(0, &[0, 1]), (3, &[0])], 3), "an older one stays above");
    assert!(merge(&[(0, &[2]), (3, &[0])], 3), "newer ones may stay");
    assert!(merge(&[(3, &[0])], 3), "a table is rewritten where it is");
    assert!(merge(&[(0, &[0, 1])], 0), "in level 0 the oldest may stay");
    assert!(!merge(&[(0, &[0, 2])], 0), "but none in the middle");
    assert!(!merge(&[(3, &[0])], 6), "it meets one two levels below");
    assert!(merge(&[(3, &[0]), (6, &[0])], 6), "and takes it along");
    assert!(keeps(Action::Drop, &[(3, &[0])], 3) && keeps(Action::Drop, &[(0, &[0])], 6));
    let bytes = Task::merge(super::task::Why::Asked, vec![(0, version.levels[0].to_vec())], 6).bytes();
    assert_eq!(bytes, 1 + 1 + 2 + 3);
}

#[test]
fn what_lies_deeper_is_older_whatever_else_its_table_has() {
    // The positions of the deeper table are higher, for the sake of other keys.
    let version = tree(&["6: a-z/600", "5: a-c/10"]);
    assert!(version.levels[6][0].meta.first_seq > version.levels[5][0].meta.last_seq);
    let task = |inputs| Task::merge(super::task::Why::Size, inputs, 6);
    assert!(!task(vec![(5, version.levels[5].to_vec())]).keeps_order(&version));
    assert!(task(vec![(5, version.levels[5].to_vec()), (6, version.levels[6].to_vec())]).keeps_order(&version));
}

#[test]
fn a_part_of_a_task_has_four_full_tables_at_least() {
    for (tables, threads, parts) in
        [(0, 4, 1), (1, 4, 1), (7, 4, 1), (8, 4, 2), (15, 4, 3), (16, 4, 4), (400, 4, 4), (400, 1, 1)]
    {
        assert_eq!(worth(tables * 100, 100, threads), parts, "{tables} tables, {threads} threads");
    }
    assert_eq!(worth(u64::MAX, u64::MAX, 4), 1);
}

#[test]
fn a_new_table_ends_before_it_meets_more_than_a_sixteenth_of_the_next_level_or_one_table() {
    let cuts = |level: &str, table_bytes| {
        let version = tree(&["1: 0-0/1", level]);
        let mut met = Met::new(&version, 1, table_bytes);
        let cuts: String = ('a'..='z').filter(|key| met.is_enough(key.to_string().as_bytes())).collect();
        cuts
    };
    // Of 160 bytes a sixteenth is 10: one table is not more, two are.
    let sixteen = "6: a-a/10 b-b/10 c-c/10 d-d/10 e-e/10 f-f/10 g-g/10 h-h/10 i-i/10 j-j/10 k-k/10 l-l/10 m-m/10 n-n/10 o-o/10 p-p/10";
    assert_eq!(cuts(sixteen, 1), "cegikmoq");
    // Or what a full table has, if that is more.
    assert_eq!(cuts(sixteen, 30), "eimq");
    assert_eq!(cuts("6: a-m/100 n-z/100", 99), "n");
    assert_eq!(cuts("1: x-x/1", 1), "");
}

#[test]
fn compacting_everything_empties_the_blob_files_of_which_a_tenth_is_garbage() {
    let version = tree(&["6: a-e/10,blob1=884,blob2=885 f-k/10,blob3=500 l-z/10,blob4=980,blob9=8985"]);
    // A file has 16 bytes that are never garbage.
    let files = all_wasteful(&version);
    assert_eq!(files.iter().map(|file| file.0).collect::<Vec<_>>(), [1, 3]);
    let asked = |files: &BTreeSet<FileNumber>| tell(values::pick_of(&version, 10, files));
    assert_eq!(asked(&files), "merge 6: f-k into 6, emptying blob3 (asked)");
    assert_eq!(asked(&[FileNumber(1), FileNumber(2)].into()), "merge 6: a-e into 6, emptying blob1 (asked)");
    assert_eq!(asked(&[FileNumber(4)].into()), "nothing");
}

#[test]
fn picking_opens_no_table_that_has_no_range_tombstones() {
    // The files are not there: to look into one would be noticed.
    let version = tree(&["0: a-c/1 a-z/1", "6: a-z/10,tombstones=100"]);
    assert!(deleted::pick(&version, SeqNo::MAX).is_none());
    assert!(version.damage().next().is_none());
    let version = tree(&["0: a-c/1 a-z/1,ranges=1", "6: a-z/10"]);
    assert!(deleted::pick(&version, SeqNo(9)).is_none(), "too new for somebody");
    assert!(version.damage().next().is_none());
}

#[test]
fn a_table_lies_within_a_range_that_has_all_of_it() {
    let version = tree(&["0: b-d/1", "6: g-i/1 k-m/1"]);
    let within =
        |start: &str, end: &str| version.has_table_within(start.as_bytes(), &End::before(Some(end.as_bytes())));
    for (start, end, is) in [
        ("a", "z", true),
        ("b", "e", true),
        ("bb", "e", false),
        ("b", "d", false),
        ("e", "g", false),
        ("g", "j", true),
        ("gg", "j", false),
        ("g", "i", false),
        ("h", "n", true),
        ("h", "m", false),
        ("n", "z", false),
    ] {
        assert_eq!(within(start, end), is, "{start} to before {end}");
    }
}
