//! What a tree knows of its tables without reading them, and what becomes of their files.

use std::ops::Bound;

use super::super::rewrite::is_deleted;
use super::*;
use crate::engine::blobs::mark_obsolete;
use crate::engine::sources::KeyRange;
use crate::storage::{Edge, Fragment, Fragments};

fn letters(is: impl Fn(&[u8]) -> bool) -> String {
    ('a'..='z').filter(|key| is(key.to_string().as_bytes())).collect()
}

#[test]
fn a_table_may_hold_what_lies_within_its_bounds() {
    let version = tree(&["6: b-d/1 f-<i/1,ranges=1 w-*/1,ranges=1"]);
    let held: Vec<String> = version.levels[6].iter().map(|table| letters(|key| table.may_hold(key))).collect();
    assert_eq!(held, ["bcd", "fgh", "wxyz"]);
}

#[test]
fn a_range_meets_a_table_that_has_a_key_of_it() {
    use Bound::{Excluded, Included, Unbounded};
    let version = tree(&["6: d-g/1"]);
    let meets = |lower: Bound<&str>, upper: Bound<&str>| {
        let own = |bound: Bound<&str>| bound.map(|key| key.as_bytes().to_vec());
        KeyRange { lower: own(lower), upper: own(upper) }.meets(&version.levels[6][0])
    };
    assert!(meets(Unbounded, Unbounded) && meets(Included("g"), Unbounded) && meets(Unbounded, Included("d")));
    assert!(meets(Included("e"), Excluded("f")));
    assert!(!meets(Included("h"), Unbounded) && !meets(Excluded("gg"), Unbounded), "behind it");
    assert!(!meets(Unbounded, Included("c")) && !meets(Unbounded, Excluded("d")), "before it");
}

#[test]
fn a_table_is_gone_if_newer_range_tombstones_cover_all_of_it() {
    let edge = |key: &str| Edge::from(key.as_bytes());
    let ranges = |parts: &[(&str, &str, u64)]| {
        let part = |&(start, end, seq): &(&str, &str, u64)| Fragment {
            start: edge(start),
            end: Some(edge(end)),
            seqs: vec![SeqNo(seq)],
        };
        Fragments::new(parts.iter().map(part).collect())
    };
    // Its positions are 30 to 39.
    let table = table(3, "d-g/1");
    let gone = |parts: &[(&str, &str, u64)]| is_deleted(&table, &ranges(parts), SeqNo(50));
    assert!(gone(&[("a", "h", 40)]) && gone(&[("d", "h", 40)]) && gone(&[("a", "e", 40), ("e", "z", 50)]));
    assert!(!gone(&[("d", "g", 40)]) && !gone(&[("dd", "h", 40)]), "not from end to end");
    assert!(!gone(&[("a", "e", 40), ("f", "z", 40)]), "not in the middle");
    assert!(!gone(&[("a", "h", 39)]) && !gone(&[("a", "h", 35)]), "not all of it is older");
    assert!(!gone(&[("a", "h", 51)]), "somebody may read what was there before");
    assert!(!gone(&[]));
}

#[test]
fn a_table_that_moves_keeps_its_handle() {
    let version = tree(&["0: a-c/1"]);
    let handle = &version.levels[0][0];
    let source = TableSource::new(Arc::new(SimFs::new()), Arc::new(BlockCache::with_capacity(0)));
    let edit = [
        Change::DropTable { level: 0, number: handle.meta.number },
        Change::AddTable { level: 6, table: handle.meta.clone() },
    ];
    let moved = version.edited(&edit, &source).unwrap();
    assert!(moved.levels[0].is_empty() && Arc::ptr_eq(&moved.levels[6][0], handle));
}

#[test]
fn a_blob_file_goes_with_the_last_table_that_points_into_it() {
    let disk = SimFs::new();
    let files = ["000001.blob", "000002.blob"];
    files.iter().for_each(|name| disk.write_file(name, "values"));
    let there = || files.map(|name| disk.read_file(name).is_some());
    let source = TableSource::new(Arc::new(disk.clone()), Arc::new(BlockCache::with_capacity(0)));
    let add = |number, word| Change::AddTable { level: 6, table: table(number, word) };
    let both = Version::default();
    let both = both.edited(&[add(3, "a-e/1,blob1=900"), add(4, "f-z/1,blob1=10,blob2=900")], &source).unwrap();
    let left = both.edited(&[Change::DropTable { level: 6, number: FileNumber(4) }], &source).unwrap();
    let dropped = both.levels[6][1].clone();
    mark_obsolete(&left, [&dropped].into_iter());
    assert_eq!(there(), [true, true], "somebody may still read the version before");
    drop((both, dropped));
    assert_eq!(there(), [true, false]);
    drop(left);
    assert_eq!(there(), [true, false], "no edit has dropped that table");
}
