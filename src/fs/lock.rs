//! The lock file: one process, and within it one [`OsFs`](super::OsFs), works on a directory at a time.
//!
//! ```text
//! LOCK := pid: decimal digits | "\n"      // or nothing, if the disk had no room for it
//! ```
//!
//! On a file system that is mounted read-only the file is locked as it is, and names an earlier holder.
//!
//! The system forgets the lock when its holder ends, however that happens, so nobody ever has to remove the file by
//! hand. Whoever does while the holder runs has switched the lock off.

use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::FlockOperation;
use rustix::io::{Errno, retry_on_intr};

use super::LockError;
use super::whole::{read_whole, write_whole};

/// The file's name.
pub(super) const LOCK_NAME: &str = "LOCK";

/// More than any process id takes in decimal (`u32::MAX` has ten digits).
const LOCK_TEXT_BYTES: usize = 32;

/// Holds the lock until dropped.
#[derive(Debug)]
pub(super) struct LockGuard {
    fd: OwnedFd,
}

impl LockGuard {
    /// Locks the file open at `fd` and writes our process id into it.
    pub(super) fn take(fd: OwnedFd) -> Result<LockGuard, LockError> {
        let guard = LockGuard::hold(fd, FlockOperation::NonBlockingLockExclusive)?;
        if guard.name_holder().is_err() {
            // Only messages need the id, and a full disk is no reason not to start. But none of another process.
            let _ = rustix::fs::ftruncate(&guard.fd, 0);
        }
        Ok(guard)
    }

    /// Keeps others from taking the lock; several may do that at once, and it leaves no trace.
    pub(super) fn share(fd: OwnedFd) -> Result<LockGuard, LockError> {
        LockGuard::hold(fd, FlockOperation::NonBlockingLockShared)
    }

    fn hold(fd: OwnedFd, how: FlockOperation) -> Result<LockGuard, LockError> {
        // Not fcntl: its locks belong to the process, so a second open in this one would pass, and closing either
        // would release both. flock belongs to the open file.
        match retry_on_intr(|| rustix::fs::flock(&fd, how)) {
            Ok(()) => Ok(LockGuard { fd }),
            Err(Errno::WOULDBLOCK) => Err(LockError::Held(read_holder(&fd))),
            Err(errno) => Err(LockError::Io(errno.into())),
        }
    }

    /// Replaces the previous holder's id. The length is cut last: a reader in between sees a whole first line.
    fn name_holder(&self) -> io::Result<()> {
        let text = format!("{}\n", std::process::id());
        write_whole(text.as_bytes(), 0, |bytes, offset| rustix::io::pwrite(&self.fd, bytes, offset))?;
        Ok(retry_on_intr(|| rustix::fs::ftruncate(&self.fd, text.len() as u64))?)
    }
}

impl Drop for LockGuard {
    fn drop(&mut self) {
        // Closing would do, were it not for a child process that was forked and has not called exec yet: it shares
        // the open file. Nothing can be done about an error, and the close that follows releases the lock as well.
        let _ = rustix::fs::flock(&self.fd, FlockOperation::Unlock);
    }
}

/// The process id in a lock file, if it can be read.
fn read_holder(fd: &OwnedFd) -> Option<u32> {
    let mut text = [0; LOCK_TEXT_BYTES];
    let len = read_whole(&mut text, 0, |buffer, offset| rustix::io::pread(fd, buffer, offset)).ok()?;
    std::str::from_utf8(&text[..len]).ok()?.lines().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::{Fs, OsFs};
    use super::*;

    #[test]
    fn a_held_lock_names_its_holder_and_ends_with_its_guard() {
        let dir = tempfile::tempdir().unwrap();
        let first = OsFs::open(dir.path()).unwrap();
        let second = OsFs::open(dir.path()).unwrap();
        // A longer text of an earlier holder must not show through.
        fs::write(dir.path().join("LOCK"), "4294967295\nrubbish\n").unwrap();
        let guard = first.lock().unwrap();
        let own = std::process::id();
        assert_eq!(fs::read_to_string(dir.path().join("LOCK")).unwrap(), format!("{own}\n"));
        for fs in [&first, &second] {
            assert!(matches!(fs.lock(), Err(LockError::Held(Some(pid))) if pid == own));
        }
        drop(guard);
        second.lock().unwrap();
    }

    #[test]
    fn readers_share_the_lock_and_leave_no_trace() {
        let dir = tempfile::tempdir().unwrap();
        let fs = OsFs::open(dir.path()).unwrap();
        assert!(fs.lock_for_reading().unwrap().is_none(), "no lock file, and none is made");
        assert!(fs.list().unwrap().is_empty());
        drop(fs.lock().unwrap());
        let guards = [fs.lock_for_reading().unwrap(), fs.lock_for_reading().unwrap()];
        assert!(guards.iter().all(Option::is_some));
        assert!(matches!(fs.lock(), Err(LockError::Held(_))));
        drop(guards);
        let _guard = fs.lock().unwrap();
        assert!(matches!(fs.lock_for_reading(), Err(LockError::Held(Some(_)))));
    }

    #[test]
    fn a_held_lock_without_a_readable_holder_is_still_held() {
        let dir = tempfile::tempdir().unwrap();
        let fs = OsFs::open(dir.path()).unwrap();
        let _guard = fs.lock().unwrap();
        for text in ["", "rubbish\n", "99999999999999999999\n"] {
            fs::write(dir.path().join("LOCK"), text).unwrap();
            assert!(matches!(fs.lock(), Err(LockError::Held(None))), "{text:?}");
        }
    }
}
