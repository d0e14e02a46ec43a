//! RocksDB. What it leaves off by default but has, and Chronos has too, is on: the hash index in data blocks, threads
//! for subcompactions. Indexes and filters are outside the cache, as by default.

use std::path::Path;

use rocksdb::{
    BlockBasedOptions, Cache, DB, DBCompressionType, DataBlockIndexType, Options, ReadOptions, WriteBatch, WriteOptions,
};

use super::{BLOCK, BLOOM_BITS, COMPACTION_THREADS, Engine, Pair, Reader, Result, Settings, TABLE, touch};

pub fn open(directory: &Path, settings: Settings) -> Result<Box<dyn Engine>> {
    let mut table = BlockBasedOptions::default();
    table.set_block_size(BLOCK);
    table.set_bloom_filter(f64::from(BLOOM_BITS), false);
    table.set_block_cache(&Cache::new_lru_cache(settings.cache()));
    table.set_data_block_index_type(DataBlockIndexType::BinaryAndHash);
    table.set_data_block_hash_ratio(0.75);

    let mut options = Options::default();
    options.create_if_missing(true);
    options.set_block_based_table_factory(&table);
    options.set_compression_type(DBCompressionType::Lz4);
    options.set_write_buffer_size(settings.memtable());
    options.set_max_write_buffer_number(4);
    options.set_max_bytes_for_level_base(settings.level() as u64);
    options.set_target_file_size_base(TABLE);
    options.set_max_background_jobs(4);
    options.set_max_subcompactions(COMPACTION_THREADS);
    // Unsynced, Chronos hands the log to the system some time after it has answered; so does this.
    options.set_manual_wal_flush(!settings.synced);

    let mut write = WriteOptions::default();
    write.set_sync(settings.synced);
    Ok(Box::new(Rocks { db: DB::open(&options, directory)?, write }))
}

struct Rocks {
    db: DB,
    write: WriteOptions,
}

impl Engine for Rocks {
    fn put(&self, key: &[u8], value: &[u8]) -> Result<()> {
        Ok(self.db.put_opt(key, value, &self.write)?)
    }

    fn load(&self, pairs: &[Pair]) -> Result<()> {
        let mut batch = WriteBatch::default();
        for (key, value) in pairs {
            batch.put(key, value);
        }
        Ok(self.db.write_opt(batch, &self.write)?)
    }

    fn flush(&self) -> Result<()> {
        Ok(self.db.flush()?)
    }

    fn compact(&self) -> Result<()> {
        self.flush()?;
        self.db.compact_range(None::<&[u8]>, None::<&[u8]>);
        Ok(())
    }

    fn reader(&self) -> Result<Box<dyn Reader + '_>> {
        Ok(Box::new(Reading { db: &self.db, options: ReadOptions::default() }))
    }
}

impl Drop for Rocks {
    /// As the others do when they are closed.
    fn drop(&mut self) {
        if let Err(error) = self.db.flush_wal(true).and_then(|()| self.db.flush()) {
            eprintln!("rocksdb was not closed cleanly: {error}");
        }
    }
}

struct Reading<'a> {
    db: &'a DB,
    options: ReadOptions,
}

impl Reader for Reading<'_> {
    fn refresh(&mut self) -> Result<()> {
        Ok(())
    }

    fn get(&mut self, key: &[u8]) -> Result<Option<usize>> {
        Ok(self.db.get_pinned_opt(key, &self.options)?.map(|value| touch(&value)))
    }

    fn scan(&mut self, from: &[u8], count: usize) -> Result<usize> {
        let mut iterator = self.db.raw_iterator();
        iterator.seek(from);
        let mut seen = 0;
        while seen < count {
            let Some((key, value)) = iterator.item() else { break };
            touch(key);
            touch(value);
            seen += 1;
            iterator.next();
        }
        iterator.status()?;
        Ok(seen)
    }
}
