//! What a database is made of, as its manifest says: nothing else is read.

use std::io::Write;

use super::inventory::Inventory;
use super::{Directory, Health, Result};
use crate::engine::Error;
use crate::engine::version::Listed;
use crate::storage::manifest::TableMeta;
use crate::storage::names::FileName;
use crate::storage::text::shown;

/// Writes a line for each level with tables, the log, and the sums. Damaged if the manifest is: the numbers are then
/// those of what can be read of it.
///
/// # Errors
///
/// [`Error::Io`] if the directory cannot be listed, [`super::Error::Output`] if `out` takes nothing.
pub fn stats(directory: &Directory, out: &mut dyn Write) -> Result<Health> {
    directory.introduce(out)?;
    let inventory = Inventory::take(&directory.fs)?;
    if inventory.is_nothing() {
        writeln!(out, "{}: no database is here", directory.fs.describe())?;
        return Ok(Health::Damaged);
    }
    let problems: Vec<&Error> = inventory.current_problem.iter().chain(&inventory.manifest_problems).collect();
    for problem in &problems {
        writeln!(out, "DAMAGED: {problem}")?;
    }
    writeln!(out, "level  files         bytes      entries  tombstones  range tombstones  older versions  keys")?;
    let levels = inventory.levels();
    for (level, tables) in levels.iter().enumerate().filter(|(_, tables)| !tables.is_empty()) {
        row(&level.to_string(), tables, out)?;
    }
    let all: Vec<&TableMeta> = levels.into_iter().flatten().collect();
    row("all", &all, out)?;
    let mut bytes = 0;
    for (&number, listed) in &inventory.segments {
        let file = FileName::Wal(number).to_string();
        let on_disk = directory.fs.open(&file).and_then(|file| file.len());
        let is = match (listed, &on_disk) {
            (_, Err(error)) => format!("cannot be read: {error}"),
            (Listed::Closed { len }, _) => format!("closed, {len} bytes of records"),
            (Listed::Open { .. }, _) => "may be written to".to_owned(),
        };
        let on_disk = on_disk.unwrap_or(0);
        bytes += on_disk;
        writeln!(out, "log    {file}  {on_disk} bytes, {is}")?;
    }
    writeln!(out, "log    {} segments, {bytes} bytes", inventory.segments.len())?;
    let last = inventory.last_seq.max(inventory.flushed);
    writeln!(out, "changes up to sequence number {} are in tables; the manifest knows of {last}", inventory.flushed)?;
    Ok(if problems.is_empty() { Health::Clean } else { Health::Damaged })
}

fn row(name: &str, tables: &[&TableMeta], out: &mut dyn Write) -> std::io::Result<()> {
    let sum = |of: fn(&TableMeta) -> u64| tables.iter().map(|table| of(table)).sum::<u64>();
    let smallest = tables.iter().map(|table| &table.smallest).min();
    let largest = tables.iter().map(|table| &table.largest).max();
    let keys = smallest
        .zip(largest)
        .map(|(from, to)| format!("\"{}\" .. \"{}\"", shown(from), shown(to.key().map_or(&[], |key| key))));
    writeln!(
        out,
        "{name:>5}  {:>5}  {:>12}  {:>11}  {:>10}  {:>16}  {:>14}  {}",
        tables.len(),
        sum(|table| table.size),
        sum(|table| table.entries),
        sum(|table| table.tombstones),
        sum(|table| table.range_tombstones),
        sum(|table| table.older),
        keys.unwrap_or_default()
    )
}
