//! Tests of the memtable: chains of versions, taking back, order.

use super::*;
use crate::codec::Rng;
use crate::engine::batch::WriteBatch;

fn put(memtable: &Memtable, seq: u64, key: &str, floor: u64) {
    let mut batch = WriteBatch::new();
    batch.put(key.as_bytes(), format!("{key}{seq}").as_bytes());
    memtable.apply(batch.bytes(), SeqNo(seq), SeqNo(floor));
}

fn delete(memtable: &Memtable, seq: u64, key: &str, floor: u64) {
    let mut batch = WriteBatch::new();
    batch.delete(key.as_bytes());
    memtable.apply(batch.bytes(), SeqNo(seq), SeqNo(floor));
}

/// The positions of all versions that are kept, newest first for each key.
fn kept(memtable: &Memtable) -> String {
    // Takes nothing back, but makes it sort again: these tests look at memtables that are not sealed.
    memtable.take_back(SeqNo::MAX);
    let mut all = String::new();
    let visited: Result<(), ()> = memtable.for_each(|key, seq, _, _| {
        all += &format!("{}{} ", String::from_utf8_lossy(key), seq);
        Ok(())
    });
    visited.unwrap();
    all.trim_end().to_owned()
}

fn at(memtable: &Memtable, key: &str, as_of: u64) -> Option<u64> {
    memtable.get(key.as_bytes(), SeqNo(as_of)).map(|version| version.seq.0)
}

/// Keys and positions of a scan in steps of `limit`.
fn scan(memtable: &Memtable, bounds: (Bound<&str>, Bound<&str>), backward: bool, as_of: u64, limit: usize) -> String {
    let own = |bound: Bound<&str>| bound.map(|key| key.as_bytes().to_vec());
    let (mut lower, mut upper) = (own(bounds.0), own(bounds.1));
    let mut all = String::new();
    loop {
        let mut page = Page::default();
        let (from, to) = (lower.as_ref().map(Vec::as_slice), upper.as_ref().map(Vec::as_slice));
        let last = memtable.scan(from, to, backward, SeqNo(as_of), limit, &mut page);
        assert!(page.len() <= limit);
        for at in 0..page.len() {
            all += &format!("{}{} ", String::from_utf8_lossy(page.key(at)), page.seq(at));
        }
        match last {
            None => return all.trim_end().to_owned(),
            Some(last) if backward => upper = Bound::Excluded(last),
            Some(last) => lower = Bound::Excluded(last),
        }
    }
}

const ALL: (Bound<&str>, Bound<&str>) = (Bound::Unbounded, Bound::Unbounded);

#[test]
fn of_the_versions_at_or_below_the_floor_the_newest_stays() {
    let memtable = Memtable::new(false);
    for (seq, floor) in [(1, 0), (2, 0), (3, 0), (4, 1)] {
        put(&memtable, seq, "a", floor);
    }
    assert_eq!(kept(&memtable), "a4 a3 a2 a1", "1 is readable at the floor");
    put(&memtable, 5, "a", 3);
    assert_eq!(kept(&memtable), "a5 a4 a3");
    assert_eq!((at(&memtable, "a", 3), at(&memtable, "a", 4), at(&memtable, "a", 99)), (Some(3), Some(4), Some(5)));
    assert_eq!(at(&memtable, "a", 2), None, "nobody reads below the floor");
    put(&memtable, 6, "a", 5);
    assert_eq!(kept(&memtable), "a6 a5");
    delete(&memtable, 7, "a", 6);
    assert_eq!(kept(&memtable), "a7 a6");
    assert_eq!(memtable.get(b"a", SeqNo(7)).unwrap().kind, Kind::Tombstone);
    assert_eq!(at(&memtable, "b", 99), None);
}

#[test]
fn one_batch_may_write_a_key_more_than_once() {
    let memtable = Memtable::new(true);
    let mut batch = WriteBatch::new();
    batch.put(b"a", b"1");
    batch.delete(b"a");
    batch.put(b"a", b"3");
    batch.put(b"b", b"4");
    memtable.apply(batch.bytes(), SeqNo(10), SeqNo(9));
    assert_eq!(kept(&memtable), "a12 a11 a10 b13");
    assert_eq!(&*memtable.get(b"a", SeqNo(99)).unwrap().value, b"3");
    assert_eq!(memtable.len(), 2);
}

#[test]
fn what_is_taken_back_has_never_been() {
    for ordered in [true, false] {
        let memtable = Memtable::new(ordered);
        for (seq, key) in [(1, "a"), (2, "b"), (3, "a"), (4, "c"), (5, "a")] {
            put(&memtable, seq, key, 0);
        }
        delete(&memtable, 6, "b", 0);
        // A sealed memtable may have been scanned, and so sorted, before.
        assert_eq!(scan(&memtable, ALL, false, 99, 2), "a5 b6 c4");
        memtable.take_back(SeqNo(3));
        assert_eq!(kept(&memtable), "a3 a1 b2");
        for limit in 1..4 {
            assert_eq!(scan(&memtable, ALL, false, 99, limit), "a3 b2", "ordered: {ordered}");
            assert_eq!(scan(&memtable, ALL, true, 99, limit), "b2 a3", "ordered: {ordered}");
        }
        assert_eq!(at(&memtable, "c", 99), None);
        memtable.take_back(SeqNo(0));
        assert!(memtable.is_empty());
        assert_eq!(scan(&memtable, ALL, false, 99, 1), "");
    }
}

#[test]
fn a_scan_walks_both_ways_in_steps_of_any_size_within_any_bounds() {
    let text = |key: u8| char::from(b'a' + key).to_string();
    for order in ["kept from the start", "kept from now on", "sorted when asked"] {
        let memtable = Memtable::new(order == "kept from the start");
        // b, d, f, h, j; of d a version that is not visible yet, of f only such a one.
        for (seq, key) in [(5, "j"), (1, "b"), (3, "d"), (9, "f"), (4, "h"), (8, "d")] {
            put(&memtable, seq, key, 0);
        }
        if order == "kept from now on" {
            memtable.keep_order();
            put(&memtable, 6, "k", 0);
        }
        let visible: &[(&str, u64)] = match order {
            "kept from now on" => &[("b", 1), ("d", 3), ("h", 4), ("j", 5), ("k", 6)],
            _ => &[("b", 1), ("d", 3), ("h", 4), ("j", 5)],
        };
        let bounds = |key: u8| [Bound::Unbounded, Bound::Included(text(key)), Bound::Excluded(text(key))];
        // All of them would take Miri most of an hour.
        let keys = || (0..12).step_by(if cfg!(miri) { 5 } else { 1 });
        for lower in keys().flat_map(bounds) {
            for upper in keys().flat_map(bounds) {
                let within = |key: &str| {
                    (match &lower {
                        Bound::Unbounded => true,
                        Bound::Included(lower) => key >= lower.as_str(),
                        Bound::Excluded(lower) => key > lower.as_str(),
                    }) && (match &upper {
                        Bound::Unbounded => true,
                        Bound::Included(upper) => key <= upper.as_str(),
                        Bound::Excluded(upper) => key < upper.as_str(),
                    })
                };
                let expected: Vec<String> =
                    visible.iter().filter(|(key, _)| within(key)).map(|(key, seq)| format!("{key}{seq}")).collect();
                let reversed: Vec<String> = expected.iter().rev().cloned().collect();
                for limit in [1, 2, 64] {
                    let range = (lower.as_ref().map(String::as_str), upper.as_ref().map(String::as_str));
                    assert_eq!(scan(&memtable, range, false, 7, limit), expected.join(" "), "{order} {range:?}");
                    assert_eq!(scan(&memtable, range, true, 7, limit), reversed.join(" "), "{order} {range:?}");
                }
            }
        }
    }
}

#[test]
fn a_scan_says_that_it_was_there_and_order_once_kept_stays() {
    let memtable = Memtable::new(false);
    put(&memtable, 1, "a", 0);
    assert!(!memtable.was_scanned() && !memtable.keeps_order());
    memtable.keep_order();
    put(&memtable, 2, "c", 0);
    put(&memtable, 3, "b", 0);
    memtable.keep_order();
    assert!(memtable.keeps_order());
    assert_eq!(scan(&memtable, ALL, false, 99, 64), "a1 b3 c2");
    assert!(memtable.was_scanned());
}

fn delete_range(memtable: &Memtable, seq: u64, start: &str, end: &str, floor: u64) {
    let mut batch = WriteBatch::new();
    batch.delete_range(start.as_bytes(), (!end.is_empty()).then_some(end.as_bytes()));
    memtable.apply(batch.bytes(), SeqNo(seq), SeqNo(floor));
}

#[test]
fn a_range_tombstone_is_a_version_of_every_key_that_it_covers() {
    let memtable = Memtable::new(true);
    for (seq, key) in [(1, "a"), (2, "b"), (3, "c"), (4, "d")] {
        put(&memtable, seq, key, 0);
    }
    delete_range(&memtable, 5, "b", "d", 0);
    put(&memtable, 6, "c", 0);
    for (key, as_of, seq, value) in [
        ("a", 9, Some(1), true),
        ("b", 9, Some(5), false),
        ("b", 4, Some(2), true),
        ("b", 1, None, false),
        ("bb", 9, Some(5), false),
        ("bb", 4, None, false),
        ("c", 9, Some(6), true),
        ("c", 5, Some(5), false),
        ("d", 9, Some(4), true),
    ] {
        let mut together = None;
        let one = memtable.get(key.as_bytes(), SeqNo(as_of));
        memtable.get_many(&[key.as_bytes()], &[0], SeqNo(as_of), |_, version| together = Some(version));
        assert_eq!(one, together);
        let is_value = one.as_ref().is_some_and(|version| version.kind != Kind::Tombstone);
        assert_eq!((one.map(|version| version.seq.0), is_value), (seq, value), "{key} as of {as_of}");
    }
    for limit in [1, 2, 64] {
        assert_eq!(scan(&memtable, ALL, false, 9, limit), "a1 c6 d4");
        assert_eq!(scan(&memtable, ALL, true, 9, limit), "d4 c6 a1");
        assert_eq!(scan(&memtable, ALL, false, 5, limit), "a1 d4");
        assert_eq!(scan(&memtable, ALL, false, 4, limit), "a1 b2 c3 d4");
    }
    memtable.take_back(SeqNo(4));
    assert!(!memtable.has_ranges());
    assert_eq!(scan(&memtable, ALL, false, 9, 64), "a1 b2 c3 d4");
}

#[test]
fn a_memtable_with_nothing_but_range_tombstones_is_not_empty_and_they_take_room() {
    let memtable = Memtable::new(false);
    assert!(memtable.is_empty());
    delete_range(&memtable, 1, "a", "", 0);
    assert!(!memtable.is_empty() && memtable.has_ranges());
    let one = memtable.bytes();
    for seq in 2..1_000 {
        delete_range(&memtable, seq, "a", "", seq - 1);
    }
    assert!(memtable.bytes() < 2 * one, "the same again is one");
    for seq in 1_000..2_000 {
        delete_range(&memtable, seq, &format!("b{seq}"), &format!("b{seq}x"), seq - 1);
    }
    assert!(memtable.bytes() > 1_000 * one / 2);
}

#[test]
fn a_hot_key_needs_no_memory_for_what_nobody_reads() {
    let memtable = Memtable::new(false);
    for seq in 1..100 {
        put(&memtable, 1000 + seq, "hot", 1000 + seq.saturating_sub(20));
    }
    let before = memtable.bytes();
    for seq in 100..5000 {
        put(&memtable, 1000 + seq, "hot", 1000 + seq - 20);
    }
    assert_eq!(memtable.bytes(), before);
    assert_eq!(memtable.get(b"hot", SeqNo::MAX).unwrap().value, Slice::copy_from(b"hot5999"));
}

#[test]
fn keys_sort_bytewise_whatever_they_share() {
    let mut rng = Rng::new(3);
    for shared in ["", "a", "a rather long prefix that all keys share"] {
        let memtable = Memtable::new(false);
        let mut expected = std::collections::BTreeSet::new();
        for seq in 1..2000 {
            let tail: Vec<u8> = (0..rng.below(12)).map(|_| [0, 1, 255, b'x'][rng.below(4) as usize]).collect();
            let key = [shared.as_bytes(), b"k", &tail].concat();
            let mut batch = WriteBatch::new();
            batch.put(&key, b"");
            memtable.apply(batch.bytes(), SeqNo(seq), SeqNo(seq - 1));
            expected.insert(key);
        }
        let mut page = Page::default();
        memtable.scan(Bound::Unbounded, Bound::Unbounded, false, SeqNo::MAX, 5000, &mut page);
        assert!((0..page.len()).map(|at| page.key(at)).eq(expected.iter().map(Vec::as_slice)));
    }
}

#[test]
fn bytes_grow_with_what_is_kept_and_never_below_nothing() {
    let memtable = Memtable::new(false);
    let mut rng = Rng::new(11);
    let mut most = 0;
    for seq in 1..20_000u64 {
        let key = format!("key{}", rng.below(10));
        let mut batch = WriteBatch::new();
        match rng.chance(1, 4) {
            true => batch.delete(key.as_bytes()),
            false => batch.put(key.as_bytes(), &vec![0; rng.below(100) as usize]),
        }
        memtable.apply(batch.bytes(), SeqNo(seq), SeqNo(seq.saturating_sub(rng.below(20))));
        if rng.chance(1, 100) {
            memtable.take_back(SeqNo(seq - 1));
        }
        most = most.max(memtable.bytes());
    }
    // An underflow would show as a number near the top. What is taken back stays counted.
    let versions = kept(&memtable).split(' ').count();
    assert!(most < 200_000, "{most} bytes for {versions} versions");
    assert!(memtable.bytes() >= versions * size_of::<SeqNo>());
}
