//! fjall, with its hash index in data blocks, which is off by default, and lz4 in all levels.

use std::path::Path;
use std::sync::Arc;

use fjall::compaction::Leveled;
use fjall::config::{
    BlockSizePolicy, BloomConstructionPolicy, CompressionPolicy, FilterPolicy, FilterPolicyEntry, HashRatioPolicy,
};
use fjall::{CompressionType, Database, Keyspace, KeyspaceCreateOptions, PersistMode};

use super::{BLOCK, BLOOM_BITS, Engine, Pair, Reader, Result, Settings, TABLE, touch};

pub fn open(directory: &Path, settings: Settings) -> Result<Box<dyn Engine>> {
    let db = Database::builder(directory)
        .cache_size(settings.cache() as u64)
        // Unsynced, Chronos hands the log to the system some time after it has answered; so does this.
        .manual_journal_persist(true)
        .open()?;
    let bloom = FilterPolicyEntry::Bloom(BloomConstructionPolicy::BitsPerKey(BLOOM_BITS as f32));
    let keyspace = db.keyspace("data", || {
        KeyspaceCreateOptions::default()
            .manual_journal_persist(true)
            .max_memtable_size(settings.memtable() as u64)
            .data_block_size_policy(BlockSizePolicy::all(BLOCK as u32))
            .data_block_hash_ratio_policy(HashRatioPolicy::all(0.75))
            .data_block_compression_policy(CompressionPolicy::all(CompressionType::Lz4))
            .filter_policy(FilterPolicy::all(bloom))
            .compaction_strategy(Arc::new(Leveled::default().with_table_target_size(TABLE)))
    })?;
    Ok(Box::new(Fjall { db, keyspace, synced: settings.synced }))
}

struct Fjall {
    db: Database,
    keyspace: Keyspace,
    synced: bool,
}

impl Engine for Fjall {
    fn put(&self, key: &[u8], value: &[u8]) -> Result<()> {
        self.keyspace.insert(key, value)?;
        if self.synced {
            self.db.persist(PersistMode::SyncData)?;
        }
        Ok(())
    }

    fn load(&self, pairs: &[Pair]) -> Result<()> {
        let mut batch = self.db.batch();
        for (key, value) in pairs {
            batch.insert(&self.keyspace, &key[..], &value[..]);
        }
        Ok(batch.commit()?)
    }

    fn flush(&self) -> Result<()> {
        Ok(self.keyspace.rotate_memtable_and_wait()?)
    }

    fn compact(&self) -> Result<()> {
        self.flush()?;
        Ok(self.keyspace.major_compact()?)
    }

    fn reader(&self) -> Result<Box<dyn Reader + '_>> {
        Ok(Box::new(Reading(&self.keyspace)))
    }
}

impl Drop for Fjall {
    fn drop(&mut self) {
        if let Err(error) = self.db.persist(PersistMode::SyncAll) {
            eprintln!("fjall was not closed cleanly: {error}");
        }
    }
}

struct Reading<'a>(&'a Keyspace);

impl Reader for Reading<'_> {
    fn refresh(&mut self) -> Result<()> {
        Ok(())
    }

    fn get(&mut self, key: &[u8]) -> Result<Option<usize>> {
        Ok(self.0.get(key)?.map(|value| touch(&value)))
    }

    fn scan(&mut self, from: &[u8], count: usize) -> Result<usize> {
        let mut seen = 0;
        for entry in self.0.range(from..).take(count) {
            let (key, value) = entry.into_inner()?;
            touch(&key);
            touch(&value);
            seen += 1;
        }
        Ok(seen)
    }
}
