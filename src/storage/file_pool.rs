//! The files of open tables and blob files, of which only some are open at a time: descriptors are few, tables may be many.
//!
//! A file is opened when it is read from. When too many are open, one that was not read from for a while is closed: a
//! clock goes round over them, and passes those that were read from since it last came by.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Weak};

use crate::fs::{File, Fs};
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicBool, Ordering};

/// How many tables may have their file open. What they hold, tables of 32 MiB, is 12 GiB; beyond that a read of a block
/// that is not cached may cost an `open`, which is little beside a read from the disk. In tests of schedules hardly any stays
/// open, so that a file which goes too early is missed.
const MAX_OPEN: usize = if cfg!(feature = "schedules") { 2 } else { 384 };

/// See the module's text.
pub(crate) struct FilePool {
    fs: Arc<dyn Fs>,
    max_open: usize,
    /// Those that are open, and some that are gone.
    clock: Mutex<VecDeque<Weak<PooledFile>>>,
}

impl FilePool {
    pub(crate) fn new(fs: Arc<dyn Fs>) -> Arc<FilePool> {
        FilePool::with_limit(fs, MAX_OPEN)
    }

    fn with_limit(fs: Arc<dyn Fs>, max_open: usize) -> Arc<FilePool> {
        Arc::new(FilePool { fs, max_open, clock: Mutex::default() })
    }

    /// A file that never changes, and keeps its name for as long as anybody reads from it.
    pub(crate) fn open(self: &Arc<Self>, name: &str) -> io::Result<Arc<PooledFile>> {
        let file = Arc::new_cyclic(|me| PooledFile {
            me: me.clone(),
            pool: self.clone(),
            name: name.to_owned(),
            used: AtomicBool::new(false),
            file: Mutex::new(None),
        });
        file.opened()?;
        Ok(file)
    }

    /// Takes in a file that was just opened, and closes others if there are too many.
    fn add(&self, opened: Weak<PooledFile>) {
        let mut clock = self.clock.lock();
        clock.push_back(opened);
        // One round at most, whatever others use meanwhile; the new one is the last of it.
        let mut passed = 0;
        while clock.len() > self.max_open {
            let Some(next) = clock.pop_front() else { return };
            let Some(file) = next.upgrade() else { continue };
            if file.used.swap(false, Ordering::Relaxed) && passed <= self.max_open {
                passed += 1;
                clock.push_back(next);
            } else {
                *file.file.lock() = None;
            }
        }
    }
}

/// A file of a pool. Lock order: a file's lock is never held while the clock's is taken.
pub(crate) struct PooledFile {
    me: Weak<PooledFile>,
    pool: Arc<FilePool>,
    name: String,
    /// Read from since the clock last came by.
    used: AtomicBool,
    file: Mutex<Option<Arc<dyn File>>>,
}

impl PooledFile {
    /// The open file. Two threads may both open it: one is kept, and the other closed after use.
    fn opened(&self) -> io::Result<Arc<dyn File>> {
        self.used.store(true, Ordering::Relaxed);
        if let Some(file) = &*self.file.lock() {
            return Ok(file.clone());
        }
        let opened = self.pool.fs.open(&self.name)?;
        let mut file = self.file.lock();
        if file.is_none() {
            *file = Some(opened.clone());
            drop(file);
            self.pool.add(self.me.clone());
        }
        Ok(opened)
    }
}

impl File for PooledFile {
    fn write_at(&self, _: &[u8], _: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.opened()?.read_at(buffer, offset)
    }

    fn sync(&self) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn len(&self) -> io::Result<u64> {
        self.opened()?.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::SimFs;

    #[test]
    fn few_files_are_open_and_all_can_be_read() {
        let fs = SimFs::new();
        for n in 0..20u8 {
            fs.create(&format!("{n}")).unwrap().write_at(&[n; 10], 0).unwrap();
        }
        let pool = FilePool::with_limit(Arc::new(fs), 4);
        let files: Vec<_> = (0..20).map(|n| pool.open(&format!("{n}")).unwrap()).collect();
        let open = || files.iter().filter(|file| file.file.lock().is_some()).count();
        assert_eq!(open(), 4);
        for round in 0..3 {
            for (n, file) in files.iter().enumerate() {
                let mut buffer = [0; 10];
                assert_eq!(file.read_at(&mut buffer, 0).unwrap(), 10);
                assert_eq!(buffer, [n as u8; 10]);
                files[0].len().unwrap();
                assert!(open() <= 4);
                assert!(round == 0 || files[0].file.lock().is_some(), "what is read all the time stays open");
            }
        }
        drop(files);
        assert!(pool.open("no such file").is_err());
        assert!(pool.open("7").is_ok());
    }

    #[test]
    fn of_too_many_one_that_nobody_has_read_from_lately_is_closed() {
        let fs = SimFs::new();
        for name in ["a", "b", "c", "d", "e"] {
            fs.create(name).unwrap();
        }
        let pool = FilePool::with_limit(Arc::new(fs), 3);
        let [a, b, c] = ["a", "b", "c"].map(|name| pool.open(name).unwrap());
        let is_open = |file: &PooledFile| file.file.lock().is_some();
        // All were used when they were opened: after one round the first goes.
        let d = pool.open("d").unwrap();
        assert_eq!([&a, &b, &c, &d].map(|file| is_open(file)), [false, true, true, true]);
        b.len().unwrap();
        let e = pool.open("e").unwrap();
        assert_eq!([&a, &b, &c, &d, &e].map(|file| is_open(file)), [false, true, false, true, true]);
    }

    #[test]
    fn what_is_open_for_reading_takes_no_bytes_and_says_so() {
        let fs = SimFs::new();
        fs.create("file").unwrap().write_at(b"content", 0).unwrap();
        let file = FilePool::with_limit(Arc::new(fs.clone()), 4).open("file").unwrap();
        assert!(file.write_at(b"other", 0).is_err() && file.sync().is_err());
        assert_eq!(fs.read_file("file").unwrap(), b"content");
    }
}
