//! redb: a B-tree that is changed by copying pages. It has no log, no filters and no compression. Every put is a
//! transaction of its own, as everywhere else.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use redb::{Database, Durability, ReadOnlyTable, ReadTransaction, ReadableDatabase, TableDefinition, WriteTransaction};

use super::{Engine, Pair, Reader, Result, Settings, touch};

const TABLE: TableDefinition<&[u8], &[u8]> = TableDefinition::new("data");

/// Unsynced, every so many commits one is synced: before that no page that a commit freed can be used again, and the
/// file would grow by some pages with each of them.
const SYNC_EVERY: u64 = 10_000;

pub fn open(directory: &Path, settings: Settings) -> Result<Box<dyn Engine>> {
    let db = Database::builder().set_cache_size(settings.memory).create(directory.join("data.redb"))?;
    let redb = Redb { db, synced: settings.synced, commits: AtomicU64::new(0) };
    redb.change(Durability::Immediate, |_| Ok(()))?;
    Ok(Box::new(redb))
}

struct Redb {
    db: Database,
    synced: bool,
    commits: AtomicU64,
}

impl Redb {
    fn change(
        &self,
        durability: Durability,
        change: impl FnOnce(&mut redb::Table<'_, &'static [u8], &'static [u8]>) -> Result<()>,
    ) -> Result<()> {
        let mut transaction: WriteTransaction = self.db.begin_write()?;
        transaction.set_durability(durability)?;
        change(&mut transaction.open_table(TABLE)?)?;
        Ok(transaction.commit()?)
    }

    fn durability(&self) -> Durability {
        let commits = self.commits.fetch_add(1, Ordering::Relaxed);
        if self.synced || commits % SYNC_EVERY == SYNC_EVERY - 1 { Durability::Immediate } else { Durability::None }
    }
}

impl Engine for Redb {
    fn put(&self, key: &[u8], value: &[u8]) -> Result<()> {
        self.change(self.durability(), |table| {
            table.insert(key, value)?;
            Ok(())
        })
    }

    fn load(&self, pairs: &[Pair]) -> Result<()> {
        self.change(Durability::Immediate, |table| {
            for (key, value) in pairs {
                table.insert(&key[..], &value[..])?;
            }
            Ok(())
        })
    }

    fn flush(&self) -> Result<()> {
        self.change(Durability::Immediate, |_| Ok(()))
    }

    /// That of redb would need the database for itself, and a B-tree needs none to be read quickly.
    fn compact(&self) -> Result<()> {
        self.flush()
    }

    fn reader(&self) -> Result<Box<dyn Reader + '_>> {
        let (transaction, table) = begin(&self.db)?;
        Ok(Box::new(Reading { db: &self.db, transaction, table }))
    }
}

impl Drop for Redb {
    fn drop(&mut self) {
        if let Err(error) = self.flush() {
            eprintln!("redb was not closed cleanly: {error}");
        }
    }
}

fn begin(db: &Database) -> Result<(ReadTransaction, ReadOnlyTable<&'static [u8], &'static [u8]>)> {
    let transaction = db.begin_read()?;
    let table = transaction.open_table(TABLE)?;
    Ok((transaction, table))
}

/// A transaction is a view of one moment: it is kept as long as nobody asks for a later one.
struct Reading<'a> {
    db: &'a Database,
    transaction: ReadTransaction,
    table: ReadOnlyTable<&'static [u8], &'static [u8]>,
}

impl Reader for Reading<'_> {
    fn refresh(&mut self) -> Result<()> {
        (self.transaction, self.table) = begin(self.db)?;
        Ok(())
    }

    fn get(&mut self, key: &[u8]) -> Result<Option<usize>> {
        Ok(self.table.get(key)?.map(|value| touch(value.value())))
    }

    fn scan(&mut self, from: &[u8], count: usize) -> Result<usize> {
        let mut seen = 0;
        for entry in self.table.range(from..)?.take(count) {
            let (key, value) = entry?;
            touch(key.value());
            touch(value.value());
            seen += 1;
        }
        Ok(seen)
    }
}
