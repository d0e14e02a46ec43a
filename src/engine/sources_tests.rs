//! Tests of key ranges, and of what a source leaves out.

use super::*;
use crate::engine::batch::WriteBatch;

fn within(lower: Bound<&str>, upper: Bound<&str>) -> KeyRange {
    let own = |bound: Bound<&str>| bound.map(|key| key.as_bytes().to_vec());
    KeyRange { lower: own(lower), upper: own(upper) }
}

/// Those of the letters for which it is so.
fn letters(is: impl Fn(&[u8]) -> bool) -> String {
    ('a'..='e').filter(|key| is(key.to_string().as_bytes())).collect()
}

#[test]
fn behind_a_range_is_what_a_walk_meets_after_its_end() {
    use Bound::{Excluded, Included, Unbounded};
    for (range, forward, backward) in [
        (within(Included("b"), Included("d")), "e", "a"),
        (within(Excluded("b"), Excluded("d")), "de", "ab"),
        (within(Unbounded, Unbounded), "", ""),
        (within(Included("c"), Unbounded), "", "ab"),
        (within(Unbounded, Included("c")), "de", ""),
    ] {
        let behind = |direction| letters(|key| range.is_behind(key, direction));
        assert_eq!((&*behind(Direction::Forward), &*behind(Direction::Backward)), (forward, backward), "{range:?}");
    }
}

#[test]
fn what_is_left_of_a_range_is_never_more_than_there_was() {
    use Bound::{Excluded, Included, Unbounded};
    let rest = |lower, upper, to: &str, direction| {
        let rest = within(lower, upper).from(Some(to.as_bytes()), direction).unwrap();
        letters(|key| !rest.is_behind(key, Direction::Forward) && !rest.is_behind(key, Direction::Backward))
    };
    let (forward, backward) = (Direction::Forward, Direction::Backward);
    assert_eq!(rest(Included("b"), Included("d"), "c", forward), "cd");
    assert_eq!(rest(Excluded("c"), Unbounded, "c", forward), "de");
    assert_eq!(rest(Included("d"), Unbounded, "c", forward), "de");
    assert_eq!(rest(Unbounded, Unbounded, "c", forward), "cde");
    assert_eq!(rest(Included("b"), Included("d"), "c", backward), "b");
    assert_eq!(rest(Unbounded, Included("c"), "c", backward), "ab");
    assert_eq!(rest(Unbounded, Excluded("b"), "c", backward), "a");
    assert_eq!(rest(Unbounded, Unbounded, "c", backward), "ab");
    assert!(KeyRange::all().from(None, forward).is_none() && KeyRange::all().from(None, backward).is_none());
}

#[test]
fn before_a_key_is_what_a_skip_leaves_out() {
    let before = |to: Option<&str>, direction| letters(|key| comes_before(key, to.map(str::as_bytes), direction));
    assert_eq!(before(Some("c"), Direction::Forward), "ab");
    assert_eq!(before(Some("c"), Direction::Backward), "cde");
    assert_eq!([Direction::Forward, Direction::Backward].map(|direction| before(None, direction)), ["abcde"; 2]);
}

/// Over the keys k00 to k99, which have the positions 1 to 100.
fn over_a_hundred(direction: Direction) -> MemtableSource {
    let memtable = Memtable::new(true);
    for n in 0..100 {
        let mut batch = WriteBatch::new();
        batch.put(format!("k{n:02}").as_bytes(), b"value");
        memtable.apply(batch.bytes(), SeqNo(n + 1), SeqNo(0));
    }
    let mut source = MemtableSource::new(Arc::new(memtable), KeyRange::all(), direction, SeqNo(1_000));
    source.newest = SeqNo(100);
    assert!(source.advance().unwrap());
    source
}

#[test]
fn a_sealed_memtable_is_skipped_to_a_key_and_not_past_it() {
    let skipped = |direction, to: Option<&str>, older_than| {
        let mut source = over_a_hundred(direction);
        let there = source.skip(to.map(str::as_bytes), SeqNo(older_than)).unwrap();
        if there { String::from_utf8(source.key().to_vec()).unwrap() } else { "the end".to_owned() }
    };
    // Within what was taken from the memtable at once, and beyond that.
    for (to, key) in [("k01", "k01"), ("k03", "k03"), ("k04", "k04"), ("k50", "k50"), ("k505", "k51"), ("l", "the end")]
    {
        assert_eq!(skipped(Direction::Forward, Some(to), 101), key);
        assert_eq!(skipped(Direction::Forward, Some(to), 100), "k00", "it has something as new");
    }
    for (to, key) in
        [("k99", "k98"), ("k97", "k96"), ("k50", "k49"), ("k505", "k50"), ("k00", "the end"), ("k", "the end")]
    {
        assert_eq!(skipped(Direction::Backward, Some(to), 101), key);
    }
    assert_eq!(skipped(Direction::Forward, None, 101), "the end");
    assert_eq!(skipped(Direction::Forward, Some("a"), 101), "k00", "it is beyond that");
}

#[test]
fn a_sealed_memtable_knows_its_newest_position() {
    let source = over_a_hundred(Direction::Forward);
    assert_eq!(source.up_to(SeqNo(70)).newest, SeqNo(70));
}
