//! Range tombstones of a table: they answer as versions do, and a table's bounds have what they cover.

use super::super::salvage::Place;
use super::*;
use crate::codec::Slice;

#[test]
fn a_range_tombstone_hides_older_entries_and_answers_for_keys_that_are_not_there() {
    let entries = [entry("a", 5, PUT, "1"), entry("del:b", 950, PUT, "2"), entry("del:b", 850, PUT, "3")];
    let (file, meta) = build_with(&entries, &ranges(), TABLE, small_blocks(Compression::Lz4));
    assert_eq!(meta.properties.range_tombstones, 4);
    let table = open(&file).unwrap();
    let seq = |key: &str, as_of| get(&table, key.as_bytes(), as_of).unwrap().map(|found| (found.seq.0, found.kind));
    let deleted = |seq| Some((seq, Kind::Tombstone));
    assert_eq!((seq("a", 1000), seq("b", 1000)), (Some((5, PUT)), None));
    assert_eq!((seq("del:b", 1000), seq("del:b", 949)), (Some((950, PUT)), deleted(900)));
    assert_eq!((seq("del:b", 899), seq("del:b", 849)), (Some((850, PUT)), deleted(20)));
    assert_eq!((seq("del:b", 19), seq("del:bb", 1000), seq("del:bb", 19)), (None, deleted(900), None));
    assert_eq!((seq("del:c", 1000), seq("del:d", 1000), seq("del:x", 7)), (deleted(20), None, deleted(7)));
    assert_eq!(forward(&table, Bound::Unbounded, ReadMode::Cached).unwrap(), entries, "entries are as they were");
    assert_eq!(table.ranges().iter().cloned().collect::<Vec<_>>(), ranges());
}

#[test]
fn a_table_may_have_nothing_else_and_its_bounds_are_those_of_both() {
    let before = |key: &str| End::before(Some(key.as_bytes()));
    let bounds = |entries: &[Entry], ranges: &[Fragment]| {
        let (file, meta) = build_with(entries, ranges, TABLE, small_blocks(Compression::None));
        let table = open(&file).unwrap();
        assert_eq!(forward(&table, Bound::Unbounded, ReadMode::Streaming).unwrap(), entries);
        assert_eq!(backward(&table, Bound::Unbounded, ReadMode::Cached).unwrap().len(), entries.len());
        let parts = Arc::new(Parts::read(file.clone(), NAME, TABLE));
        assert!(parts.problems.is_empty() && super::super::check(&parts).problems.is_empty());
        (String::from_utf8(meta.bounds.smallest.to_vec()).unwrap(), meta.bounds.largest)
    };
    let with = |key: &str| End::With(Slice::copy_from(key.as_bytes()));
    assert_eq!(bounds(&[], &ranges()), ("del:a".to_owned(), before("del:y")));
    assert_eq!(bounds(&[entry("b", 1, PUT, "")], &ranges()), ("b".to_owned(), before("del:y")));
    assert_eq!(bounds(&[entry("del:y", 1, PUT, "")], &ranges()), ("del:a".to_owned(), with("del:y")));
    let endless = Fragment { end: None, ..ranges().remove(0) };
    assert_eq!(bounds(&[entry("z", 1, PUT, "")], &[endless]), ("del:a".to_owned(), End::Never));
    assert_eq!(bounds(&[entry("a", 1, PUT, ""), entry("z", 1, PUT, "")], &[]), ("a".to_owned(), with("z")));
}

#[test]
fn they_are_found_without_a_footer_and_told_to_be_lost_if_damaged() {
    let entries: Vec<Entry> = (0..50).map(|n| entry(format!("key{n:03}"), n, PUT, "some value")).collect();
    for compression in [Compression::None, Compression::Lz4] {
        let (file, _) = build_with(&entries, &ranges(), TABLE, small_blocks(compression));
        let good = file.bytes();
        let read = |bytes: &[u8]| Arc::new(Parts::read(MemFile::with(bytes), NAME, TABLE));
        let (start, length) = read(&good).ranges_at.unwrap();
        let end = (start + length) as usize;
        let found = |parts: &Arc<Parts>| parts.ranges.as_ref().map(|found| found.iter().cloned().collect::<Vec<_>>());
        assert_eq!(found(&read(&good)), Some(ranges()));
        for cut in end..good.len() {
            let parts = read(&good[..cut]);
            assert_eq!(found(&parts), Some(ranges()), "cut at {cut}");
            assert!(parts.pieces().take(3).all(|piece| matches!(piece, super::super::Piece::Block { .. })));
        }
        assert_eq!(found(&read(&good[..end - 1])), None);
        // They are no data block, and so none that was lost.
        let (whole, cut) = (read(&good), read(&good[..end]));
        assert_eq!((whole.tail_is_lost(), cut.tail_is_lost()), (false, true));
        let partitions: Vec<_> = whole.partitions_at().map(|(_, at, _)| at).collect();
        let (first, last) = (partitions[0], partitions[partitions.len() - 1]);
        let places: Vec<_> = whole.places().into_iter().map(|(place, _)| place).collect();
        let gap = Place::Gap { offset: first.offset, length: last.end() - first.offset };
        let carved: Vec<_> = cut.places().into_iter().map(|(place, _)| place).collect();
        assert_eq!(carved, [&places[..], &[gap]].concat());
        for at in start as usize..end {
            let mut bytes = good.clone();
            bytes[at] ^= 0x10;
            let parts = read(&bytes);
            assert!(parts.ranges.is_none() && !parts.problems.is_empty(), "byte {at}");
            assert!(open(&MemFile::with(&bytes)).is_err(), "byte {at}");
        }
    }
}

#[test]
fn a_writer_refuses_them_out_of_order() {
    let mut writer = TableWriter::new(MemFile::new(), NAME, TABLE, TableOptions::default());
    writer.add_ranges(ranges().remove(1)).unwrap();
    assert!(writer.add_ranges(ranges().remove(0)).is_err());
    assert!(writer.add_ranges(ranges().remove(1)).is_err());
    writer.add_ranges(ranges().remove(2)).unwrap();
}
