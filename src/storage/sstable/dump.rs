//! A table as text, for people.

use std::fmt::Write;
use std::ops::Bound;
use std::sync::Arc;

use super::footer::{self, FORMAT_VERSION, HEADER_BYTES};
use super::reader::read_exact;
use super::{Malformed, ReadMode, Table};
use crate::fs::File;
use crate::storage::{BlockCache, Error, Result};

/// Keys longer than this are cut in the text.
const SHOWN_KEY_BYTES: usize = 40;

/// Describes a table: what it says of itself, and each data block with its first and last key. Checks everything on
/// the way.
pub(crate) fn dump(file: Arc<dyn File>, name: &str) -> Result<String> {
    let mut header = [0; HEADER_BYTES];
    read_exact(&*file, name, &mut header, 0)?;
    let id = footer::table_of(&header).map_err(|Malformed(what)| Error::corrupt(name, what, 0))?;
    let table = Arc::new(Table::open(file, name, id, Arc::new(BlockCache::with_capacity(0)))?);
    let mut text = String::new();
    describe(&table, name, &mut text)?;
    Ok(text)
}

fn describe(table: &Arc<Table>, name: &str, text: &mut String) -> Result<()> {
    let p = table.properties();
    let mut line = |text_line: std::fmt::Arguments<'_>| writeln!(text, "{text_line}").expect("a string takes all");
    line(format_args!("{name}: table {}, format {FORMAT_VERSION}, {} bytes", table.id(), table.file_bytes()));
    line(format_args!("keys     \"{}\" .. \"{}\"", shown(&p.smallest_key), shown(&p.largest_key)));
    line(format_args!("seq      {} .. {}", p.smallest_seq, p.largest_seq));
    line(format_args!(
        "entries  {}: {} tombstones, {} older versions, {} expiring (earliest {})",
        p.entries, p.tombstones, p.older_versions, p.expiring, p.earliest_expiry
    ));
    line(format_args!(
        "bytes    keys {}, values {}, {} data blocks {}",
        p.key_bytes, p.value_bytes, p.data_blocks, p.data_bytes
    ));
    let mut entries = table.iter_forward(Bound::Unbounded, ReadMode::Streaming);
    let mut more = entries.advance()?;
    for n in 0..table.index().len() {
        let (first, mut last, mut count) = (entries.key().to_vec(), Vec::new(), 0);
        while more && entries.block_number() == n {
            last.clear();
            last.extend_from_slice(entries.key());
            count += 1;
            more = entries.advance()?;
        }
        let at = table.index().handle(n);
        line(format_args!(
            "block {n}  at {}, {} bytes, {count} entries, \"{}\" .. \"{}\"",
            at.offset,
            at.length,
            shown(&first),
            shown(&last)
        ));
    }
    Ok(())
}

fn shown(key: &[u8]) -> String {
    let cut = &key[..key.len().min(SHOWN_KEY_BYTES)];
    let more = if cut.len() < key.len() { "..." } else { "" };
    format!("{}{more}", cut.escape_ascii())
}
