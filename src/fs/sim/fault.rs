//! Calls that fail: which, when, how often, and what they leave behind.

pub use rustix::io::Errno;

/// The calls that can fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallKind {
    /// [`Fs::create`](crate::fs::Fs::create), and [`Fs::lock`](crate::fs::Fs::lock) where the lock file is new.
    Create,
    /// [`Fs::open`](crate::fs::Fs::open).
    Open,
    /// [`File::read_at`](crate::fs::File::read_at).
    Read,
    /// [`File::write_at`](crate::fs::File::write_at), also of the process id by
    /// [`Fs::lock`](crate::fs::Fs::lock), which succeeds all the same.
    Write,
    /// [`File::sync`](crate::fs::File::sync).
    Sync,
    /// [`Fs::rename`](crate::fs::Fs::rename).
    Rename,
    /// [`Fs::remove`](crate::fs::Fs::remove).
    Remove,
    /// [`Fs::list`](crate::fs::Fs::list).
    List,
    /// [`Fs::sync_dir`](crate::fs::Fs::sync_dir).
    SyncDir,
}

impl CallKind {
    /// All of them, for tests that go through them.
    pub const ALL: [CallKind; 9] = [
        CallKind::Create,
        CallKind::Open,
        CallKind::Read,
        CallKind::Write,
        CallKind::Sync,
        CallKind::Rename,
        CallKind::Remove,
        CallKind::List,
        CallKind::SyncDir,
    ];
}

/// How often a fault strikes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Times {
    /// One call fails, the next one of its kind succeeds.
    Once,
    /// Every call of its kind fails, until [`SimFs::heal`](super::SimFs::heal).
    Forever,
}

/// What a failed call does to the disk all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Nothing. What a failed sync was asked to make durable stays pending.
    Nothing,
    /// Of a [`CallKind::Write`]: this many of its first bytes are written.
    Prefix(usize),
    /// Of a [`CallKind::Sync`] or [`CallKind::SyncDir`]: the pending changes stay visible but never reach the disk, and
    /// the next sync says OK without them. Only writing the bytes again brings them back.
    Dropped,
}

/// A failure to come: see [`SimFs::fail`](super::SimFs::fail).
///
/// ```
/// use chronos::fs::sim::{CallKind, Effect, Errno, Fault, Times};
///
/// let disk_full = Fault { times: Times::Forever, ..Fault::new(CallKind::Write, 2, Errno::NOSPC) };
/// let fsyncgate = Fault { effect: Effect::Dropped, ..Fault::new(CallKind::Sync, 0, Errno::IO) };
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Which calls.
    pub call: CallKind,
    /// How many of them succeed first, counted from when the fault is armed: 0 is the next one.
    pub nth: usize,
    /// What the call reports.
    pub error: Errno,
    /// Once or for ever.
    pub times: Times,
    /// What is done all the same.
    pub effect: Effect,
}

impl Fault {
    /// The `nth` call from now fails, once, and does nothing.
    pub fn new(call: CallKind, nth: usize, error: Errno) -> Fault {
        Fault { call, nth, error, times: Times::Once, effect: Effect::Nothing }
    }
}

/// The faults that are armed, and how many calls have failed so far.
#[derive(Debug, Default)]
pub(super) struct Faults {
    armed: Vec<Fault>,
    struck: usize,
}

impl Faults {
    pub(super) fn arm(&mut self, fault: Fault) {
        let possible = match fault.effect {
            Effect::Nothing => true,
            Effect::Prefix(_) => fault.call == CallKind::Write,
            Effect::Dropped => matches!(fault.call, CallKind::Sync | CallKind::SyncDir),
        };
        assert!(possible, "a failed {:?} cannot leave {:?} behind", fault.call, fault.effect);
        self.armed.push(fault);
    }

    pub(super) fn disarm(&mut self) {
        self.armed.clear();
    }

    pub(super) fn struck(&self) -> usize {
        self.struck
    }

    /// Counts a call. If it is to fail: how. Of several due faults the one that was armed first strikes; the others
    /// stay due for the next call.
    pub(super) fn strike(&mut self, call: CallKind) -> Option<Fault> {
        let mut struck: Option<Fault> = None;
        self.armed.retain_mut(|fault| {
            if fault.call != call {
                return true;
            }
            if fault.nth > 0 {
                fault.nth -= 1;
                return true;
            }
            if struck.is_some() {
                return true;
            }
            struck = Some(fault.clone());
            fault.times == Times::Forever
        });
        self.struck += usize::from(struck.is_some());
        struck
    }
}

#[cfg(test)]
mod tests {
    use std::io::{self, ErrorKind};

    use super::super::tests::{ALL, SYNCED, disk_with, files, names, now, refusal, seen};
    use super::*;
    use crate::fs::{Fs, SimFs};

    #[test]
    fn the_nth_call_of_a_kind_fails_once_or_for_ever() {
        let do_it = |disk: &SimFs, kind| -> io::Result<()> {
            let name = format!("new{}", disk.calls());
            match kind {
                CallKind::Create => disk.create(&name).map(drop),
                CallKind::Open => disk.open("a").map(drop),
                CallKind::Read => disk.open("a")?.read_at(&mut [0; 1], 0).map(drop),
                CallKind::Write => disk.create(&name)?.write_at(b"x", 0),
                CallKind::Sync => disk.open("a")?.sync(),
                CallKind::Rename => disk.rename("a", "a"),
                CallKind::Remove => {
                    disk.create(&name)?;
                    disk.remove(&name)
                }
                CallKind::List => disk.list().map(drop),
                CallKind::SyncDir => disk.sync_dir(),
            }
        };
        for kind in CallKind::ALL {
            for (times, then) in [(Times::Once, true), (Times::Forever, false)] {
                let (disk, _) = disk_with(b"x");
                disk.fail(Fault { times, ..Fault::new(kind, 2, Errno::NOSPC) });
                do_it(&disk, kind).unwrap();
                do_it(&disk, kind).unwrap();
                assert_eq!(disk.struck(), 0);
                let error = do_it(&disk, kind).unwrap_err();
                assert_eq!(error.raw_os_error(), Some(Errno::NOSPC.raw_os_error()), "{kind:?}");
                assert_eq!(disk.struck(), 1, "{kind:?}");
                assert_eq!(do_it(&disk, kind).is_ok(), then, "{kind:?} {times:?}");
                disk.heal();
                do_it(&disk, kind).unwrap();
            }
        }
    }

    #[test]
    fn a_failed_call_changes_nothing_unless_told() {
        let (disk, file) = disk_with(b"old");
        let (before, calls) = (files(&disk), disk.calls());
        for kind in [CallKind::Create, CallKind::Write, CallKind::Rename, CallKind::Remove, CallKind::SyncDir] {
            disk.fail(Fault::new(kind, 0, Errno::IO));
        }
        disk.create("b").map(drop).unwrap_err();
        file.write_at(b"new", 0).unwrap_err();
        disk.rename("a", "b").unwrap_err();
        disk.remove("a").unwrap_err();
        disk.sync_dir().unwrap_err();
        assert_eq!((files(&disk), disk.calls()), (before, calls));
    }

    #[test]
    fn a_failed_write_may_have_written_a_part() {
        let (disk, file) = disk_with(b"------");
        disk.fail(Fault { effect: Effect::Prefix(2), ..Fault::new(CallKind::Write, 0, Errno::NOSPC) });
        assert_eq!(refusal(file.write_at(b"abcd", 1)), ErrorKind::StorageFull);
        assert_eq!(disk.read_file("a").unwrap(), b"-ab---");
        file.sync().unwrap();
        assert_eq!(now(&disk, SYNCED).read_file("a").unwrap(), b"-ab---");
    }

    #[test]
    fn a_failed_sync_leaves_the_pages_pending() {
        let (disk, file) = disk_with(b"old");
        file.write_at(b"new", 0).unwrap();
        disk.fail(Fault::new(CallKind::Sync, 0, Errno::IO));
        file.sync().unwrap_err();
        let either = seen(&disk, |image| image.read_file("a").unwrap());
        assert!(either.contains(&b"old"[..]) && either.contains(&b"new"[..]));
        file.sync().unwrap();
        assert_eq!(now(&disk, SYNCED).read_file("a").unwrap(), b"new");
    }

    #[test]
    fn a_sync_that_fails_once_and_then_says_ok_may_have_dropped_the_pages() {
        let (disk, file) = disk_with(b"old");
        file.write_at(b"new!", 0).unwrap();
        disk.fail(Fault { effect: Effect::Dropped, ..Fault::new(CallKind::Sync, 0, Errno::IO) });
        file.sync().unwrap_err();
        file.sync().unwrap();
        assert_eq!(disk.read_file("a").unwrap(), b"new!", "the machine still sees them");
        for policy in [SYNCED, ALL] {
            assert_eq!(now(&disk, policy).read_file("a").unwrap(), b"old", "they never reached the disk");
        }
        file.write_at(b"W", 2).unwrap();
        file.sync().unwrap();
        assert_eq!(now(&disk, SYNCED).read_file("a").unwrap(), b"olW", "only what is written again does");
    }

    #[test]
    fn a_failed_directory_sync_may_drop_names_for_good() {
        let (disk, _) = disk_with(b"x");
        disk.create("b").unwrap();
        disk.fail(Fault { effect: Effect::Dropped, ..Fault::new(CallKind::SyncDir, 0, Errno::IO) });
        disk.sync_dir().unwrap_err();
        disk.sync_dir().unwrap();
        assert_eq!(names(&disk), "a b");
        assert_eq!(names(&now(&disk, ALL)), "a");
    }

    #[test]
    #[should_panic(expected = "a failed Rename cannot leave Dropped behind")]
    fn a_fault_that_cannot_be_is_refused() {
        SimFs::new().fail(Fault { effect: Effect::Dropped, ..Fault::new(CallKind::Rename, 0, Errno::IO) });
    }
}
