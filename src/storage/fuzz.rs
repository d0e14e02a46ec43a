//! Any bytes as files of each kind, with checksums that are right, so that what lies behind the checksums gets them: an
//! error or something well formed, whatever they are. Where a checksum is four zeros it is left, which makes damage.
//!
//! Headers are right, too: those are compared as a whole, and `tests/damage.rs` has every byte of them flipped.

#![allow(clippy::unwrap_used, reason = "a fuzz target may")]

use std::collections::BTreeSet;

use super::blob::{BlobFile, Pointer};
use super::current::current_naming;
use super::frame::{self, Handle};
use super::log::{HEADER_LEN, LogId, Piece, RECORD_HEADER_LEN};
use super::manifest::{self, Change, ManifestWriter, TableMeta, TableTimes, parse_current};
use super::names::{FileName, FileNumber};
use super::testing::MemFile;
use super::wal::{Position, Room, SegmentReader, SegmentWriter};
use super::{End, SeqNo, TableId, blob, wal};
use crate::codec::Slice;
use crate::codec::crc::crc32;
use crate::engine::batch::Ops;
use crate::fs::SimFs;
use crate::fuzz::Input;
use crate::storage::sstable::Compression;

const NUMBER: FileNumber = FileNumber(7);
const SALT: u64 = 0x0123_4567_89ab_cdef;

/// One LZ4 byte stands for so many at most, and nothing is believed that announces more.
const MOST_FOR_A_BYTE: usize = 255;

/// Makes header, salts and checksums of a log right. Ends with the first record that is longer than what is left.
pub(crate) fn seal_log(magic: [u8; 8], number: u64, bytes: &mut [u8]) {
    let Some(header) = bytes.first_chunk_mut::<HEADER_LEN>() else { return };
    *header = LogId { magic, number, salt: SALT }.header();
    let mut at = HEADER_LEN;
    while let Some(len) = bytes.get(at + 4..).and_then(|rest| rest.first_chunk()) {
        let end = at + RECORD_HEADER_LEN + u32::from_le_bytes(*len) as usize;
        let Some(record) = bytes.get_mut(at..end) else { return };
        if record[..4] != [0; 4] {
            record[9..17].copy_from_slice(&SALT.to_le_bytes());
            let crc = crc32(&[&record[4..]]);
            record[..4].copy_from_slice(&crc.to_le_bytes());
        }
        at = end;
    }
}

/// A segment: `input := file`.
pub(crate) fn wal(input: &[u8]) {
    let mut bytes = input.to_vec();
    seal_log(wal::MAGIC, NUMBER.0, &mut bytes);
    let (pieces, problem) = SegmentReader::salvage(NUMBER, &bytes);
    pieces_tile(&pieces, |group| group.offset, bytes.len());
    let Ok(mut reader) = SegmentReader::open(NUMBER, &bytes) else {
        assert!(bytes.len() < HEADER_LEN && problem.is_some());
        return;
    };
    assert!(problem.is_none());
    let all = pieces.iter().filter_map(|piece| if let Piece::Valid(group) = piece { Some(*group) } else { None });
    let mut all = all.peekable();
    loop {
        match reader.next() {
            Ok(Some(group)) => {
                assert_eq!(all.next(), Some(group), "what is read is also salvaged");
                let mut ops = Ops::new(group.batches);
                let changes = ops.by_ref().count();
                // The shortest change is a kind and an empty key.
                assert!(2 * changes + ops.rest().len() <= group.batches.len());
            }
            Ok(None) => break,
            Err(_) => return,
        }
    }
    let covering = all.clone().find(|group| group.position.watermark >= SeqNo(1)).map(|group| group.offset);
    assert_eq!(reader.later_that_covers(SeqNo(1)), covering, "what lies behind the damage");
    assert!(!reader.at_blank_end() || all.peek().is_none());
}

pub(crate) fn wal_seeds() -> Vec<Vec<u8>> {
    let segment = |bytes, filled| {
        let fs = SimFs::new();
        let mut segment = SegmentWriter::create(&fs, NUMBER, SALT, Room { bytes, filled }).unwrap();
        let position = |first, watermark| Position { first: SeqNo(first), watermark: SeqNo(watermark), time_ms: 9 };
        for (n, batches) in [
            &b"\x01\x03key\x05value\x03\x04gone"[..],
            b"\x02\x01s\x00\xa4\x86\x77\x9b\x01\x00\x00\x05token",
            b"\x04\x01a\x01c\x05\x01z",
        ]
        .iter()
        .enumerate()
        {
            let mut buffer = vec![0; wal::GROUP_PREFIX_LEN];
            buffer.extend_from_slice(batches);
            segment.write_group(&mut buffer, position(2 * n as u64 + 1, 2 * n as u64)).unwrap();
        }
        segment.write_marker(position(7, 6)).unwrap();
        fs.read_file("000007.wal").unwrap()
    };
    let (filled, bare) = (segment(300, true), segment(0, false));
    // A record that is damaged before others that are not.
    let mut damaged = bare.clone();
    damaged[HEADER_LEN..HEADER_LEN + 4].fill(0);
    vec![filled, bare[..bare.len() - 3].to_vec(), bare, damaged]
}

/// Whether the pieces of a file stand one behind the other, from its header to its end.
fn pieces_tile<T>(pieces: &[Piece<T>], offset: impl Fn(&T) -> u64, len: usize) {
    let mut at = HEADER_LEN as u64;
    for piece in pieces {
        match piece {
            Piece::Valid(record) => {
                // Records of kinds that may be skipped lie between.
                assert!(offset(record) >= at);
                at = offset(record) + RECORD_HEADER_LEN as u64;
            }
            Piece::Damage(place) | Piece::Blank(place) => {
                assert!(place.start >= at && place.end > place.start, "{place:?} behind {at}");
                at = place.end;
            }
        }
    }
    assert!(at <= len.max(HEADER_LEN) as u64);
}

/// A manifest: `input := file`.
pub(crate) fn manifest(input: &[u8]) {
    let mut bytes = input.to_vec();
    seal_log(manifest::MAGIC, NUMBER.0, &mut bytes);
    let (pieces, _) = manifest::salvage(NUMBER, &bytes);
    pieces_tile(&pieces, |(offset, _)| *offset, bytes.len());
    let name = FileName::Manifest(NUMBER).to_string();
    let disk = SimFs::new();
    disk.write_file(&name, bytes.clone());
    let Ok((edits, end)) = manifest::read(&disk, NUMBER) else { return };
    assert!(end <= bytes.len() as u64);
    let salvaged =
        pieces.into_iter().filter_map(|piece| if let Piece::Valid((_, edit)) = piece { Some(edit) } else { None });
    assert!(salvaged.eq(edits.iter().cloned()), "what is read is also salvaged");
    // What is read can be written, and then is read again.
    let disk = SimFs::new();
    let Ok(mut writer) = ManifestWriter::create(&disk, NUMBER, SALT, &edits[0]) else { panic!("it can be written") };
    edits[1..].iter().for_each(|edit| writer.append(edit).unwrap());
    assert_eq!(manifest::read(&disk, NUMBER).unwrap().0, edits);
    assert_eq!(manifest::current(&disk).unwrap(), Some(NUMBER));
}

pub(crate) fn manifest_seeds() -> Vec<Vec<u8>> {
    let key = |key: &[u8]| Slice::copy_from(key);
    let blobs = vec![blob::BlobUse { file: FileNumber(3), file_bytes: 400, used_bytes: 90 }];
    let times = TableTimes { written: Some(5), expiring: 1, quartiles: [7, 8, 9, 10] };
    let table = |number, largest, range_tombstones| TableMeta {
        number: FileNumber(number),
        size: 1000,
        entries: 10,
        tombstones: 1,
        older: 2,
        first_seq: SeqNo(1),
        last_seq: SeqNo(12),
        earliest_expiry: Some(77),
        times: times.clone(),
        range_tombstones,
        smallest: key(b"a"),
        largest,
        blobs: blobs.clone(),
    };
    let state = vec![
        Change::NextFile(FileNumber(9)),
        Change::Flushed(SeqNo(12)),
        Change::AddTable { level: 1, table: table(4, End::With(key(b"k")), 0) },
        Change::AddTable { level: 2, table: table(5, End::Before(key(b"x")), 2) },
        Change::AddTable { level: 3, table: table(6, End::Never, 1) },
        Change::AddSegment { number: FileNumber(8), prepared: 300 },
        Change::LastSeq(SeqNo(20)),
        Change::Committed(vec![(SeqNo(3), 5), (SeqNo(12), 8)]),
        Change::Oldest(SeqNo(2), 4),
    ];
    let next = vec![
        Change::DropTable { level: 1, number: FileNumber(4) },
        Change::CloseSegment { number: FileNumber(8), len: 200 },
        Change::DropSegment { number: FileNumber(8) },
    ];
    let disk = SimFs::new();
    let Ok(mut writer) = ManifestWriter::create(&disk, NUMBER, SALT, &state) else { panic!("it can be written") };
    writer.append(&next).unwrap();
    let bytes = disk.read_file("000007.manifest").unwrap();
    vec![bytes[..bytes.len() - 5].to_vec(), bytes]
}

/// `CURRENT`: `input := file name`, to which the checksum is added; and the input as it is.
pub(crate) fn current(input: &[u8]) {
    let sum = format!(" {:08x}\n", crc32(&[input]));
    for bytes in [&[input, sum.as_bytes()].concat()[..], input] {
        if let Some(number) = parse_current(bytes) {
            assert_eq!(current_naming(&FileName::Manifest(number).to_string()).as_bytes(), bytes);
        }
    }
    if let Some(name) = std::str::from_utf8(input).ok().and_then(FileName::parse) {
        assert_eq!(name.to_string().as_bytes(), input);
    }
}

pub(crate) fn current_seeds() -> Vec<Vec<u8>> {
    let names = ["000007.manifest", "1234567.manifest", "000007.sst", "18446744073709551615.manifest", "CURRENT"];
    names.iter().map(|name| name.as_bytes().to_vec()).chain([current_naming("000007.manifest").into_bytes()]).collect()
}

/// Makes the header and the checksums of a blob file right. Ends with the first value that is longer than what is left.
pub(crate) fn seal_blob(number: u64, bytes: &mut [u8]) {
    let header = blob::header(FileNumber(number));
    let Some((start, _)) = bytes.split_at_mut_checked(header.len()) else { return };
    start.copy_from_slice(&header);
    let mut at = header.len();
    while let Some(length) = bytes.get(at..).and_then(|rest| rest.first_chunk::<4>()) {
        let length = u32::from_le_bytes(*length) as usize;
        seal_stored(TableId(number), bytes, at + 4, length);
        at += 4 + length;
    }
}

/// Makes the checksum of a stored block right, if it is in `bytes`.
pub(crate) fn seal_stored(TableId(table): TableId, bytes: &mut [u8], offset: usize, length: usize) {
    let Some(stored) = offset.checked_add(length).and_then(|end| bytes.get_mut(offset..end)) else { return };
    if let Some((covered, crc)) = stored.split_last_chunk_mut::<4>()
        && *crc != [0; 4]
    {
        *crc = crc32(&[&table.to_le_bytes(), &(offset as u64).to_le_bytes(), covered]).to_le_bytes();
    }
}

/// A blob file: `input := offset: u64 | length: u32 | value_len: u64 | file`; a pointer, and what it points into.
pub(crate) fn blob(input: &[u8]) {
    let mut input = Input::new(input);
    let stored = Handle { offset: input.u64(), length: input.u32() };
    let pointer = Pointer { file: NUMBER, stored, value_len: input.u64() };
    let mut bytes = input.rest().to_vec();
    seal_blob(NUMBER.0, &mut bytes);
    let Ok(file) = BlobFile::open(MemFile::with(&bytes), NUMBER) else { return };
    let mut places = BTreeSet::new();
    for pointer in file.pointers().map_while(Result::ok) {
        let value = file.read(pointer).unwrap();
        assert!(value.len() <= MOST_FOR_A_BYTE * bytes.len());
        let mut encoded = Vec::new();
        pointer.encode(&mut encoded);
        assert_eq!(Pointer::decode(&encoded), Some(pointer));
        assert!(places.insert(pointer.stored.offset), "one value twice");
    }
    if let Ok(value) = file.read(pointer) {
        assert_eq!(value.len() as u64, pointer.value_len);
    }
    if let Some(pointer) = Pointer::decode(&bytes) {
        assert!(pointer.file <= FileNumber::LIMIT);
    }
}

pub(crate) fn blob_seeds() -> Vec<Vec<u8>> {
    let seed = |compression| {
        let file = MemFile::new();
        let mut writer = blob::BlobWriter::new(file.clone(), NUMBER, compression, 0);
        let values = [&b"a value"[..], b"", &[b'r'; 200]];
        let pointers = values.map(|value| writer.add(value).unwrap());
        writer.finish().unwrap();
        let Pointer { stored, value_len, .. } = pointers[2];
        [&stored.offset.to_le_bytes()[..], &stored.length.to_le_bytes(), &value_len.to_le_bytes(), &file.bytes()]
            .concat()
    };
    [Compression::None, Compression::Lz4, Compression::Zstd].map(seed).to_vec()
}

/// A stored block: `input := bytes | compression: u8`.
pub(crate) fn stored(input: &[u8]) {
    const OFFSET: u64 = 99;
    let crc = crc32(&[&NUMBER.0.to_le_bytes(), &OFFSET.to_le_bytes(), input]);
    let stored = Slice::from([input, &crc.to_le_bytes()].concat());
    if let Ok(content) = frame::open(&stored, TableId(NUMBER.0), OFFSET) {
        assert!(content.len() <= MOST_FOR_A_BYTE * input.len(), "{} bytes of {}", content.len(), input.len());
        assert!(frame::open(&stored, TableId(NUMBER.0), OFFSET + 1).is_err(), "in another place");
    }
}

pub(crate) fn stored_seeds() -> Vec<Vec<u8>> {
    let contents = [b"abcabcabcabcabcabcabcabcabcabcabcabc".to_vec(), vec![0; 3000], (0..=200).collect()];
    let mut compressor = frame::Compressor::new();
    let mut seeds = Vec::new();
    for content in &contents {
        seeds.push([&content[..100.min(content.len())], &[0]].concat());
        for (code, compression) in [(1, Compression::Lz4), (2, Compression::Zstd)] {
            seeds.extend(compressor.compress(content, compression).map(|(bytes, _)| [bytes, &[code]].concat()));
        }
    }
    seeds
}

/// Makes a file of the engine right that was changed, whatever its name says it is.
pub(crate) fn seal_file(name: &str, bytes: &mut [u8]) {
    match FileName::parse(name) {
        Some(FileName::Manifest(number)) => seal_log(manifest::MAGIC, number.0, bytes),
        Some(FileName::Wal(number)) => seal_log(wal::MAGIC, number.0, bytes),
        Some(FileName::Table(number)) => super::sstable::fuzz::seal(TableId(number.0), bytes),
        Some(FileName::Blob(number)) => seal_blob(number.0, bytes),
        Some(FileName::Current | FileName::CurrentTemp) | None => {}
    }
}
