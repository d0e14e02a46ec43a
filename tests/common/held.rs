//! A simulated disk that holds up one call for as long as a test likes, and then lets it go on or fail.

#![allow(dead_code, reason = "each test binary uses its own part")]

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};

use chronos::fs::{File, Fs, LockError, NewDirectory, SimFs};
use parking_lot::Mutex;

use super::common::DEADLINE;

/// Bytes of a record of the log that brings no change (`docs/format.md`).
const MARKER_LEN: usize = 17 + 24;

/// What is held up.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Call {
    /// A read of any file.
    Read,
    /// The creation of a segment of the log.
    CreateSegment,
    /// A write of a group to the log.
    WriteGroup,
    /// A write to a table.
    WriteTable,
    /// A sync of a segment of the log that has a group.
    SyncLog,
}

/// The call to be held up next: which, how many of its kind pass before it, and the ends of its [`Hold`].
type Next = Arc<Mutex<Option<(Call, u64, Sender<()>, Receiver<()>)>>>;

pub struct HeldDisk {
    disk: SimFs,
    next: Next,
}

struct HeldFile {
    file: Arc<dyn File>,
    next: Next,
    is_log: bool,
    is_table: bool,
    has_group: AtomicBool,
}

/// The call goes on when this is dropped.
pub struct Hold {
    begun: Receiver<()>,
    end: Sender<()>,
}

impl Hold {
    /// Waits until the call has been made.
    pub fn wait(&self) {
        self.begun.recv_timeout(DEADLINE).expect("the call is made");
    }

    /// Lets the call fail, having done nothing.
    pub fn fail(self) {
        self.end.send(()).expect("the call waits");
    }
}

impl HeldDisk {
    pub fn new(disk: &SimFs) -> Arc<HeldDisk> {
        Arc::new(HeldDisk { disk: disk.clone(), next: Next::default() })
    }

    /// Only what is created is held up in its writes.
    fn file(&self, file: Arc<dyn File>, created: &str) -> Arc<HeldFile> {
        let (is_log, is_table) = (created.ends_with(".wal"), created.ends_with(".sst"));
        Arc::new(HeldFile { file, next: self.next.clone(), is_log, is_table, has_group: AtomicBool::new(false) })
    }

    /// Holds up one call, after `passing` others of its kind.
    pub fn hold(&self, call: Call, passing: u64) -> Hold {
        let (begins, begun) = channel();
        let (end, ends) = channel();
        *self.next.lock() = Some((call, passing, begins, ends));
        Hold { begun, end }
    }
}

fn wait_if_held(next: &Next, call: Call) -> io::Result<()> {
    let mut guard = next.lock();
    match &mut *guard {
        Some((held, passing, ..)) if *held == call && *passing > 0 => *passing -= 1,
        Some((held, ..)) if *held == call => {
            let (_, _, begins, ends) = guard.take().unwrap();
            drop(guard);
            // Nobody may be waiting for it.
            let _ = begins.send(());
            // An error is the drop of the other end.
            if ends.recv().is_ok() {
                return Err(io::ErrorKind::StorageFull.into());
            }
        }
        _ => {}
    }
    Ok(())
}

impl Fs for HeldDisk {
    fn create(&self, name: &str) -> io::Result<Arc<dyn File>> {
        if name.ends_with(".wal") {
            wait_if_held(&self.next, Call::CreateSegment)?;
        }
        Ok(self.file(self.disk.create(name)?, name))
    }
    fn open(&self, name: &str) -> io::Result<Arc<dyn File>> {
        Ok(self.file(self.disk.open(name)?, ""))
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.rename(from, to)
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        self.disk.remove(name)
    }
    fn list(&self) -> io::Result<Vec<String>> {
        self.disk.list()
    }
    fn sync_dir(&self) -> io::Result<()> {
        self.disk.sync_dir()
    }
    fn new_directory(&self, path: &Path) -> io::Result<Box<dyn NewDirectory>> {
        self.disk.new_directory(path)
    }
    fn lock(&self) -> Result<Box<dyn Send + Sync>, LockError> {
        self.disk.lock()
    }
    fn describe(&self) -> String {
        self.disk.describe()
    }
}

impl File for HeldFile {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        // Zeros are the part that is filled ahead; a header or a marker is shorter.
        if self.is_log && bytes.len() > MARKER_LEN && bytes.iter().any(|&byte| byte != 0) {
            self.has_group.store(true, Ordering::SeqCst);
            wait_if_held(&self.next, Call::WriteGroup)?;
        }
        if self.is_table {
            wait_if_held(&self.next, Call::WriteTable)?;
        }
        self.file.write_at(bytes, offset)
    }
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        wait_if_held(&self.next, Call::Read)?;
        self.file.read_at(buffer, offset)
    }
    fn sync(&self) -> io::Result<()> {
        if self.has_group.load(Ordering::SeqCst) {
            wait_if_held(&self.next, Call::SyncLog)?;
        }
        self.file.sync()
    }
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }
}
