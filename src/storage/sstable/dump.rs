//! A table as text, for people.

use std::io::{self, Write};
use std::sync::Arc;

use super::footer::FORMAT_VERSION;
use super::salvage::{Entry, Parts, Piece};
use crate::storage::Fragments;
use crate::storage::text::{shown, shown_fragment, shown_kind, shown_range};

/// Describes a table: what it says of itself, and each data block with its first and last key, or with all its entries.
/// What is damaged is said to be in its place; whether anything is.
pub(crate) fn dump(parts: &Arc<Parts>, entries_too: bool, out: &mut dyn Write) -> io::Result<bool> {
    let mut damaged = !parts.problems.is_empty();
    writeln!(out, "{}: table {}, format {FORMAT_VERSION}, {} bytes", parts.name(), parts.id(), parts.bytes())?;
    if let Some(p) = &parts.properties {
        writeln!(out, "keys     \"{}\" .. \"{}\"", shown(&p.smallest_key), shown(&p.largest_key))?;
        writeln!(out, "seq      {} .. {}", p.smallest_seq, p.largest_seq)?;
        writeln!(
            out,
            "entries  {}: {} tombstones, {} older versions, {} expiring (earliest {}); {} range tombstones",
            p.entries, p.tombstones, p.older_versions, p.expiring, p.earliest_expiry, p.range_tombstones
        )?;
        writeln!(
            out,
            "bytes    keys {}, values {}, {} data blocks {}",
            p.key_bytes, p.value_bytes, p.data_blocks, p.data_bytes
        )?;
    }
    for (p, at, blocks) in parts.partitions_at() {
        let blocks = blocks.map_or("DAMAGED".to_owned(), |blocks| format!("{blocks} data blocks"));
        writeln!(out, "index {p}  at {}, {} bytes, {blocks}", at.offset, at.length)?;
    }
    for fragment in parts.ranges.iter().flat_map(Fragments::iter) {
        writeln!(out, "deleted  {}", shown_fragment(fragment))?;
    }
    for problem in &parts.problems {
        writeln!(out, "damaged  {problem}")?;
    }
    for (n, piece) in parts.pieces().enumerate() {
        match piece {
            Piece::Block { offset, length, entries } => {
                let ends = entries.first().zip(entries.last());
                let (first, last) = ends.map_or((&[][..], &[][..]), |(first, last)| (&first.key, &last.key));
                let (first, last, count) = (shown(first), shown(last), entries.len());
                writeln!(out, "block {n}  at {offset}, {length} bytes, {count} entries, \"{first}\" .. \"{last}\"")?;
                if entries_too {
                    entries.iter().try_for_each(|entry| dump_entry(entry, out))?;
                }
            }
            Piece::Lost { offset, length, after, upto, error } => {
                damaged = true;
                let range = shown_range(after.as_deref(), upto.as_deref());
                writeln!(out, "block {n}  at {offset}, {length} bytes, DAMAGED: {error}; {range}")?;
            }
        }
    }
    Ok(damaged)
}

fn dump_entry(entry: &Entry, out: &mut dyn Write) -> io::Result<()> {
    let (key, value) = (entry.key.escape_ascii(), &entry.value);
    writeln!(out, "  {} \"{key}\"{}", entry.seq, shown_kind(entry.kind, value))
}
