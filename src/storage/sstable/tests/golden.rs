//! Fixed tables whose bytes lie in `tests/golden/`: a change of the format shows here.

use super::*;
use crate::storage::golden::{golden as check, hex, unhex};

/// Data blocks of several restart points, a partition for each.
fn options(compression: Compression) -> TableOptions {
    TableOptions { block_bytes: 500, partition_bytes: 1, compression, ..TableOptions::default() }
}

fn entries() -> Vec<Entry> {
    let expiring = Kind::Put { expires_at: Some(1_767_225_600_000) };
    let mut entries: Vec<Entry> =
        (0..20).map(|n| entry(format!("user:{}", 100 + n), 1000 + n, PUT, format!("name of user {n}"))).collect();
    entries.extend([
        entry("empty", 3, PUT, ""),
        entry("session", 9, expiring, "token"),
        entry("session", 8, Kind::Tombstone, ""),
        entry("session", 300, PUT, "older ones follow"),
        entry([0, 0xff], u64::MAX, PUT, [0xff, 0]),
    ]);
    sort(&mut entries);
    entries
}

fn assert_holds(table: &Arc<Table>, entries: &[Entry]) {
    assert_eq!(forward(table, Bound::Unbounded, ReadMode::Cached).unwrap(), entries);
    for entry in entries {
        assert_eq!(get(table, &entry.key, entry.seq.0).unwrap(), newest(entries, &entry.key, entry.seq.0));
    }
}

#[test]
fn the_format_is_what_it_was() {
    let (file, _) = build_with(&entries(), &ranges(), TABLE, options(Compression::None));
    let text = hex(&file.bytes());
    let golden = check("sstable.hex", &text);
    assert_eq!(text, golden, "the format has changed: raise FORMAT_VERSION and keep reading the old one");
    assert_holds(&open(&MemFile::with(&unhex(&golden))).unwrap(), &entries());
}

/// Another release of the compressor may choose other bytes, so these are only read.
#[test]
fn a_compressed_table_stays_readable() {
    let (file, _) = build_with(&entries(), &ranges(), TABLE, options(Compression::Lz4));
    let golden = check("sstable-lz4.hex", &hex(&file.bytes()));
    assert!(
        unhex(&golden).len() < build_with(&entries(), &ranges(), TABLE, options(Compression::None)).0.bytes().len()
    );
    assert_holds(&open(&MemFile::with(&unhex(&golden))).unwrap(), &entries());
}

#[test]
fn a_table_compressed_by_zstd_stays_readable() {
    let (file, _) = build(&entries(), TABLE, options(Compression::Zstd));
    let golden = check("sstable-zstd.hex", &hex(&file.bytes()));
    assert!(unhex(&golden).len() < build(&entries(), TABLE, options(Compression::None)).0.bytes().len());
    assert_holds(&open(&MemFile::with(&unhex(&golden))).unwrap(), &entries());
}

#[test]
fn a_dump_tells_what_is_in_a_table() {
    let (file, _) = build_with(&entries(), &ranges(), TABLE, options(Compression::None));
    let text = dump_of(&file);
    assert_eq!(text, check("sstable.dump", &text));
}
