//! What a point read came to is counted: which files it had to go to, and whether a filter spared it that.

use super::*;

/// So many lookups of `key`, and what they came to.
fn count(table: &Table, key: &[u8], as_of: u64, times: usize) -> Reads {
    let mut reads = Reads::default();
    for _ in 0..times {
        table.get(key, SeqNo(as_of), KeyHash::of(key), &mut reads).unwrap();
    }
    reads
}

#[test]
fn each_step_of_a_lookup_is_counted() {
    let entries: Vec<Entry> = (0..2_000u32).map(|n| entry(n.to_be_bytes(), 5, PUT, b"value")).collect();
    let (file, _) = build(&entries, TABLE, small_blocks(Compression::None));
    let cached = |bytes| Arc::new(BlockCache::with_capacity(bytes));
    let (present, absent) = (7u32.to_be_bytes(), [0, 0, 0, 7, 7]);
    let found = Reads { asked: 10, ..Reads::default() };

    let table = Table::open(file.clone(), NAME, TABLE, cached(1 << 20)).unwrap();
    assert_eq!(count(&table, &present, 4, 10), found, "older than anything in the table");
    let first = Reads { read_indexes: 1, read_blocks: 1, cached_blocks: 9, ..found };
    assert_eq!(count(&table, &present, 9, 10), first);
    assert_eq!(count(&table, &present, 9, 10), Reads { cached_blocks: 10, ..found });
    assert_eq!(count(&table, &absent, 9, 10), Reads { filtered: 10, ..found });
    assert_eq!(count(&table, &[255; 9], 9, 10), found, "behind the last key");

    let uncached = Table::open(file, NAME, TABLE, cached(0)).unwrap();
    assert_eq!(count(&uncached, &present, 9, 10), Reads { read_indexes: 10, read_blocks: 10, ..found });
    assert_eq!(count(&uncached, &absent, 9, 10), Reads { read_indexes: 10, filtered: 10, ..found });

    let unfiltered = TableOptions { filter_bits_per_key: 0, ..small_blocks(Compression::None) };
    let table = Table::open(build(&entries, TABLE, unfiltered).0, NAME, TABLE, cached(1 << 20)).unwrap();
    let first = Reads { read_indexes: 1, read_blocks: 1, cached_blocks: 9, false_positives: 10, ..found };
    assert_eq!(count(&table, &absent, 9, 10), first);
}
