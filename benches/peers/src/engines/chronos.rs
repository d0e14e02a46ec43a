//! Chronos.

use std::path::Path;

use chronos::engine::{Compression, Durability};
use chronos::{Db, Options, WriteBatch};

use super::{BLOCK, COMPACTION_THREADS, Engine, Pair, Reader, Result, Settings, TABLE, touch};

pub fn open(directory: &Path, settings: Settings) -> Result<Box<dyn Engine>> {
    let options = Options::new()
        .durability(if settings.synced { Durability::Always } else { Durability::Os })
        .compression(Compression::Lz4)
        .memtable_bytes(settings.memtable())
        .cache_bytes(settings.cache())
        .level_bytes(settings.level() as u64)
        .table_bytes(TABLE)
        .block_bytes(BLOCK)
        .compaction_threads(COMPACTION_THREADS as usize);
    Ok(Box::new(Chronos(options.open(directory)?)))
}

struct Chronos(Db);

impl Engine for Chronos {
    fn put(&self, key: &[u8], value: &[u8]) -> Result<()> {
        self.0.put(key, value)?;
        Ok(())
    }

    fn load(&self, pairs: &[Pair]) -> Result<()> {
        let mut batch = WriteBatch::new();
        for (key, value) in pairs {
            batch.put(key, value);
        }
        self.0.write(&batch)?;
        Ok(())
    }

    fn flush(&self) -> Result<()> {
        Ok(self.0.flush()?)
    }

    fn compact(&self) -> Result<()> {
        Ok(self.0.compact()?)
    }

    fn reader(&self) -> Result<Box<dyn Reader + '_>> {
        Ok(Box::new(Reading(&self.0)))
    }
}

struct Reading<'a>(&'a Db);

impl Reader for Reading<'_> {
    fn refresh(&mut self) -> Result<()> {
        Ok(())
    }

    fn get(&mut self, key: &[u8]) -> Result<Option<usize>> {
        Ok(self.0.get(key)?.map(|value| touch(&value)))
    }

    fn scan(&mut self, from: &[u8], count: usize) -> Result<usize> {
        let mut seen = 0;
        let mut range = self.0.range(from..);
        while seen < count
            && let Some(entry) = range.next_ref()
        {
            let entry = entry?;
            touch(entry.key);
            touch(entry.value);
            seen += 1;
        }
        Ok(seen)
    }
}
