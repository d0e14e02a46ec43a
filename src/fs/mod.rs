//! The only door to the disk.
//!
//! A database lives in one directory; [`Fs`] is that directory, [`File`] one file in it. Everything above names files by
//! their plain name and never builds a path, so no name can lead out of the directory. Behind the door stand the
//! operating system and, for tests, a simulated disk that forgets what was not synced and can be told to fail.
//!
//! The promises that the engine builds on, and no more:
//!
//! - bytes written to a file are durable once [`File::sync`] on that file has returned `Ok`;
//! - a created, renamed or removed name is durable once [`Fs::sync_dir`] has returned `Ok`;
//! - without those, any part of it may or may not have happened after a crash, in any order.

mod lock;
mod os;
pub mod sim;
mod whole;

use std::io;
use std::sync::Arc;

pub use os::OsFs;
pub use sim::SimFs;

/// One directory.
pub trait Fs: Send + Sync + 'static {
    /// Creates a file that must not exist yet, for reading and writing. Never follows a symbolic link.
    fn create(&self, name: &str) -> io::Result<Arc<dyn File>>;

    /// Opens an existing regular file for reading only. Never follows a symbolic link; anything but a regular file is
    /// an error.
    fn open(&self, name: &str) -> io::Result<Arc<dyn File>>;

    /// Renames a file within the directory, replacing `to` if it is there.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file's name; open handles stay readable.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// The names of all entries of the directory, in no particular order (regular files and everything else).
    fn list(&self) -> io::Result<Vec<String>>;

    /// Makes every create, rename and remove so far durable.
    fn sync_dir(&self) -> io::Result<()>;

    /// Takes the exclusive lock of the directory (file `LOCK`, which then holds this process's id as text, if the disk
    /// takes it). The lock ends when the guard is dropped or the process ends. `Err(LockError::Held)` names the holder.
    fn lock(&self) -> Result<Box<dyn Send + Sync>, LockError>;

    /// Where the directory is, for messages.
    fn describe(&self) -> String;
}

/// One file. All offsets are in bytes from its start; methods may be called from several threads at once.
#[expect(clippy::len_without_is_empty, reason = "nobody asks whether a file is empty")]
pub trait File: Send + Sync {
    /// Writes all of `bytes` at `offset`, extending the file if needed (a gap reads as zeros).
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Reads into `buffer` from `offset`: how many bytes were read, fewer than asked only at the end of the file.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Makes the file's bytes and length durable (fdatasync).
    fn sync(&self) -> io::Result<()>;

    /// The file's length in bytes.
    fn len(&self) -> io::Result<u64>;
}

/// Why [`Fs::lock`] failed.
#[derive(Debug)]
pub enum LockError {
    /// Another holder has the directory; its process id where known.
    Held(Option<u32>),
    /// The lock file could not be opened or locked.
    Io(io::Error),
}

/// Refuses a name that is not a plain file name. Every implementation asks here first, so that a name out of a damaged
/// file cannot lead out of the directory.
fn check_name(name: &str) -> io::Result<()> {
    if matches!(name, "" | "." | "..") || name.contains(['/', '\0']) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{name:?} is not a plain file name")));
    }
    Ok(())
}
