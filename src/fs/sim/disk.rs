//! The simulated disk as the running machine sees it.

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;

use super::fault::{CallKind, Effect, Errno, Fault, Faults};
use super::images::Images;
use super::journal::{Call, Damage, Journal, NameOp, Write};
use super::new_directory::SimNewDirectory;
use super::policy::CrashPolicy;
use super::tree::{Directory, Inode, Tree};
use crate::fs::{File, Fs, LockError, NewDirectory, check_name};
use crate::sync::Mutex;

/// The lock file, here too, so that whoever lists the directory meets it.
const LOCK_NAME: &str = "LOCK";

/// The process id in the lock file. Not the real one: the bytes on a simulated disk are the same in every run.
const SIM_PID: u32 = 4711;

/// A test that writes at a wild offset shall fail, not take the machine's memory with it.
const MAX_FILE_BYTES: u64 = 1 << 30;

/// A directory in memory with a journal. Cloning gives another handle to the same one. See the [module](super).
#[derive(Clone, Default)]
pub struct SimFs {
    pub(super) disk: Arc<Mutex<Disk>>,
    pub(super) directory: Directory,
}

#[derive(Default)]
pub(super) struct Disk {
    /// What the machine sees, page cache included.
    pub(super) live: Tree,
    journal: Journal,
    faults: Faults,
    locked: BTreeSet<Directory>,
}

impl SimFs {
    /// An empty disk.
    pub fn new() -> SimFs {
        SimFs::default()
    }

    /// A disk on which all of `tree` is durable.
    pub(super) fn from_tree(tree: Tree) -> SimFs {
        let disk = Disk { live: tree.clone(), journal: Journal::new(tree), ..Disk::default() };
        SimFs { disk: Arc::new(Mutex::new(disk)), directory: None }
    }

    /// How many calls have changed the disk so far: whatever is issued from now on has this number or a higher one. A
    /// call that failed without an effect is not counted.
    pub fn calls(&self) -> usize {
        self.disk.lock().journal.calls.len()
    }

    /// A call by its number, in words, for the message of a failed test.
    pub fn call(&self, number: usize) -> Option<String> {
        let disk = self.disk.lock();
        disk.journal.calls.get(number).map(|call| disk.journal.describe(call))
    }

    /// A walk through the crashes of the calls issued so far, standing before the first.
    pub fn images(&self) -> Images {
        Images::new(self.disk.lock().journal.clone())
    }

    /// The disk as it may be found after power was lost when the first `at` calls had been issued. Replays them all; to
    /// make many images, walk [`SimFs::images`]. Panics if there were not so many.
    pub fn image(&self, at: usize, policy: &CrashPolicy) -> SimFs {
        let mut images = self.images();
        images.advance_to(at);
        images.image(policy)
    }

    /// The directory `name` in this one, if there is one. Its calls are of the same disk.
    pub fn directory(&self, name: &str) -> Option<SimFs> {
        let disk = self.disk.lock();
        let inode = disk.live.find(self.directory, name).filter(|inode| disk.live.directories.contains(inode))?;
        Some(SimFs { disk: Arc::clone(&self.disk), directory: Some(inode) })
    }

    /// Arms a fault. Panics if its effect does not fit its kind of call.
    pub fn fail(&self, fault: Fault) {
        self.disk.lock().faults.arm(fault);
    }

    /// Disarms all faults. What they did stays done.
    pub fn heal(&self) {
        self.disk.lock().faults.disarm();
    }

    /// As if the process that uses the directory had been killed: the lock is free, and what was not synced is still
    /// pending, for the next process to read and for the power to lose.
    pub fn kill(&self) {
        self.disk.lock().locked.remove(&self.directory);
    }

    /// How many calls have failed because of faults.
    pub fn struck(&self) -> usize {
        self.disk.lock().faults.struck()
    }

    /// Damages a byte at rest, without a call and past every sync: flips the bits of `xor` in it. Panics if the file
    /// has no such byte, since a test of damage that does none would prove nothing.
    pub fn corrupt(&self, name: &str, offset: usize, xor: u8) {
        let mut disk = self.disk.lock();
        let inode = disk.live.find(self.directory, name);
        let byte = inode.and_then(|inode| disk.live.content_mut(inode).get_mut(offset));
        let (Some(inode), Some(byte)) = (inode, byte) else { panic!("{name} has no byte {offset} to damage") };
        *byte ^= xor;
        disk.damage(Damage::Flip { inode, offset, xor });
    }

    /// What a file holds now, synced or not; `None` if there is none of that name. Not a call: no fault strikes it.
    pub fn read_file(&self, name: &str) -> Option<Vec<u8>> {
        let disk = self.disk.lock();
        let inode = disk.live.find(self.directory, name)?;
        Some(disk.live.content(inode).to_vec())
    }

    /// Puts a file on the disk as if it had always been there: durable at once, without a call. A file of that name
    /// gets this content, under open handles too. Names that were pending become durable with it.
    pub fn write_file(&self, name: &str, bytes: impl Into<Vec<u8>>) {
        let mut disk = self.disk.lock();
        let bytes = Arc::new(bytes.into());
        let inode = match disk.live.find(self.directory, name) {
            Some(inode) => inode,
            None => disk.add_inode(&Arc::from(name)),
        };
        *disk.live.content_mut(inode) = bytes.to_vec();
        let name = (self.directory, Arc::from(name));
        disk.live.names.insert(name.clone(), inode);
        disk.damage(Damage::Put { name, inode, bytes });
    }

    fn handle(&self, inode: Inode, writable: bool) -> Arc<dyn File> {
        Arc::new(SimFile { disk: Arc::clone(&self.disk), inode, writable })
    }
}

impl Disk {
    /// Counts a call that is about to be done; fails it if a fault is due.
    pub(super) fn attempt(&mut self, kind: CallKind) -> io::Result<()> {
        match self.faults.strike(kind) {
            Some(fault) => Err(fault.error.into()),
            None => Ok(()),
        }
    }

    pub(super) fn find(&self, directory: Directory, name: &str) -> io::Result<Inode> {
        self.live.find(directory, name).ok_or_else(|| Errno::NOENT.into())
    }

    /// As `find`, and it is a file.
    fn find_file(&self, directory: Directory, name: &str) -> io::Result<Inode> {
        let inode = self.find(directory, name)?;
        if self.live.directories.contains(&inode) { Err(Errno::ISDIR.into()) } else { Ok(inode) }
    }

    pub(super) fn add_inode(&mut self, name: &Arc<str>) -> Inode {
        self.journal.births.push(Arc::clone(name));
        self.live.add_inode(Arc::default())
    }

    fn damage(&mut self, damage: Damage) {
        self.journal.damage.push((self.journal.calls.len(), damage));
    }

    pub(super) fn change_names(&mut self, op: NameOp) {
        op.apply(&mut self.live.names);
        self.journal.calls.push(Call::Name(op));
    }

    fn create(&mut self, directory: Directory, name: &str) -> io::Result<Inode> {
        check_name(name)?;
        self.attempt(CallKind::Create)?;
        if self.live.find(directory, name).is_some() {
            return Err(Errno::EXIST.into());
        }
        let name: Arc<str> = Arc::from(name);
        let inode = self.add_inode(&name);
        self.change_names(NameOp::Create { name: (directory, name), inode });
        Ok(inode)
    }

    fn write(&mut self, inode: Inode, bytes: &[u8], offset: u64) -> io::Result<()> {
        let (bytes, result) = match self.faults.strike(CallKind::Write) {
            None => (bytes, Ok(())),
            Some(Fault { error, effect: Effect::Prefix(len), .. }) => {
                (&bytes[..len.min(bytes.len())], Err(error.into()))
            }
            Some(Fault { error, .. }) => return Err(error.into()),
        };
        if offset.checked_add(bytes.len() as u64).is_none_or(|end| end > MAX_FILE_BYTES) {
            return Err(Errno::FBIG.into());
        }
        if !bytes.is_empty() {
            let write = Write { inode, offset: offset as usize, bytes: Arc::from(bytes) };
            write.apply(self.live.content_mut(inode));
            self.journal.calls.push(Call::Write(write));
        }
        result
    }

    /// A sync of either kind: `done` is what it is when it succeeds, `dropped` when it loses what was pending.
    fn sync(&mut self, kind: CallKind, done: Call, dropped: Call) -> io::Result<()> {
        match self.faults.strike(kind) {
            None => {
                self.journal.calls.push(done);
                Ok(())
            }
            Some(fault) => {
                if fault.effect == Effect::Dropped {
                    self.journal.calls.push(dropped);
                }
                Err(fault.error.into())
            }
        }
    }

    fn lock(&mut self, directory: Directory) -> io::Result<()> {
        let inode = match self.live.find(directory, LOCK_NAME) {
            Some(inode) => inode,
            None => self.create(directory, LOCK_NAME)?,
        };
        // Only messages need it: the lock holds without.
        let _ = self.write(inode, format!("{SIM_PID}\n").as_bytes(), 0);
        self.locked.insert(directory);
        Ok(())
    }
}

impl Fs for SimFs {
    fn create(&self, name: &str) -> io::Result<Arc<dyn File>> {
        let inode = self.disk.lock().create(self.directory, name)?;
        Ok(self.handle(inode, true))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn File>> {
        check_name(name)?;
        let mut disk = self.disk.lock();
        disk.attempt(CallKind::Open)?;
        Ok(self.handle(disk.find_file(self.directory, name)?, false))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        check_name(from)?;
        check_name(to)?;
        let mut disk = self.disk.lock();
        disk.attempt(CallKind::Rename)?;
        let inode = disk.find(self.directory, from)?;
        let [from, to] = [from, to].map(|name| (self.directory, Arc::from(name)));
        disk.change_names(NameOp::Rename { from, to, inode });
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        check_name(name)?;
        let mut disk = self.disk.lock();
        disk.attempt(CallKind::Remove)?;
        disk.find_file(self.directory, name)?;
        disk.change_names(NameOp::Remove { name: (self.directory, Arc::from(name)) });
        Ok(())
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut disk = self.disk.lock();
        disk.attempt(CallKind::List)?;
        Ok(disk.live.list(self.directory).map(|(name, _)| name.to_string()).collect())
    }

    fn sync_dir(&self) -> io::Result<()> {
        let directory = self.directory;
        self.disk.lock().sync(CallKind::SyncDir, Call::SyncDir(directory), Call::DropNames(directory))
    }

    fn lock(&self) -> Result<Box<dyn Send + Sync>, LockError> {
        let mut disk = self.disk.lock();
        if disk.locked.contains(&self.directory) {
            return Err(LockError::Held(Some(SIM_PID)));
        }
        disk.lock(self.directory).map_err(LockError::Io)?;
        Ok(Box::new(LockGuard { disk: Arc::clone(&self.disk), directory: self.directory }))
    }

    fn new_directory(&self, path: &Path) -> io::Result<Box<dyn NewDirectory>> {
        Ok(Box::new(SimNewDirectory::begin(self, path)?))
    }

    fn describe(&self) -> String {
        "the simulated disk".to_owned()
    }
}

impl fmt::Debug for SimFs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let disk = self.disk.lock();
        let sizes = disk.live.list(self.directory).map(|(name, inode)| (name, disk.live.content(inode).len()));
        write!(f, "SimFs after {} calls: ", disk.journal.calls.len())?;
        f.debug_map().entries(sizes).finish()
    }
}

struct SimFile {
    disk: Arc<Mutex<Disk>>,
    inode: Inode,
    writable: bool,
}

impl File for SimFile {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        if !self.writable {
            return Err(Errno::BADF.into());
        }
        self.disk.lock().write(self.inode, bytes, offset)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut disk = self.disk.lock();
        disk.attempt(CallKind::Read)?;
        let content = disk.live.content(self.inode);
        let start = usize::try_from(offset).map_or(content.len(), |offset| offset.min(content.len()));
        let len = buffer.len().min(content.len() - start);
        buffer[..len].copy_from_slice(&content[start..start + len]);
        Ok(len)
    }

    fn sync(&self) -> io::Result<()> {
        self.disk.lock().sync(CallKind::Sync, Call::Sync(self.inode), Call::DropWrites(self.inode))
    }

    fn len(&self) -> io::Result<u64> {
        let disk = self.disk.lock();
        Ok(disk.live.content(self.inode).len() as u64)
    }
}

struct LockGuard {
    disk: Arc<Mutex<Disk>>,
    directory: Directory,
}

impl Drop for LockGuard {
    fn drop(&mut self) {
        self.disk.lock().locked.remove(&self.directory);
    }
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;

    use super::super::tests::{ALL, SYNCED, disk_with, files, names, now, refusal};
    use super::*;
    use crate::fs::sim::Times;

    #[test]
    fn the_running_machine_sees_an_ordinary_directory() {
        let disk = SimFs::new();
        let file = disk.create("a").unwrap();
        assert_eq!(refusal(disk.create("a")), ErrorKind::AlreadyExists);
        file.write_at(b"world", 6).unwrap();
        file.write_at(b"hello", 0).unwrap();
        assert_eq!(file.len().unwrap(), 11);
        let reader = disk.open("a").unwrap();
        let mut buffer = [0xff; 32];
        assert_eq!(reader.read_at(&mut buffer, 0).unwrap(), 11);
        assert_eq!(&buffer[..11], b"hello\0world", "the gap reads as zeros");
        assert_eq!(reader.read_at(&mut buffer, 9).unwrap(), 2);
        assert_eq!(reader.read_at(&mut buffer, u64::MAX).unwrap(), 0);
        assert!(reader.write_at(b"x", 0).is_err(), "opened for reading only");
        assert_eq!(refusal(file.write_at(b"x", u64::MAX)), ErrorKind::FileTooLarge);

        disk.create("b").unwrap().write_at(b"b", 0).unwrap();
        disk.rename("b", "a").unwrap();
        assert_eq!(files(&disk), [("a".to_owned(), b"b".to_vec())]);
        assert_eq!(reader.read_at(&mut buffer, 0).unwrap(), 11, "an open handle stays with its file");
        disk.remove("a").unwrap();
        for result in [disk.remove("a"), disk.rename("a", "b"), disk.open("a").map(drop)] {
            assert_eq!(refusal(result), ErrorKind::NotFound);
        }
        assert_eq!(refusal(disk.create("../a")), ErrorKind::InvalidInput);
    }

    #[test]
    fn the_lock_is_exclusive_and_neither_it_nor_a_fault_outlives_the_power() {
        let disk = SimFs::new();
        let guard = disk.lock().unwrap();
        let Err(LockError::Held(Some(pid))) = disk.clone().lock() else { panic!("held by this disk") };
        assert_eq!(disk.read_file("LOCK").unwrap(), format!("{pid}\n").as_bytes());
        disk.fail(Fault { times: Times::Forever, ..Fault::new(CallKind::Write, 0, Errno::IO) });
        let image = now(&disk, ALL);
        image.lock().map(drop).unwrap();
        drop(guard);
        drop(disk.lock().expect("the process id is only for messages"));
        disk.heal();
        let guard = disk.lock().unwrap();
        disk.kill();
        disk.lock().map(drop).unwrap();
        drop(guard);
    }

    #[test]
    fn calls_can_be_told_in_words() {
        let (disk, file) = disk_with(b"abc");
        disk.rename("a", "b").unwrap();
        file.write_at(b"xy", 9).unwrap();
        let story: Vec<String> = (0..disk.calls()).filter_map(|call| disk.call(call)).collect();
        let expected =
            ["create a", "write a at 0: 3 bytes", "sync a", "sync directory", "rename a to b", "write a at 9: 2 bytes"];
        assert_eq!(story, expected);
        assert_eq!(disk.call(6), None);
    }

    #[test]
    fn calls_from_many_threads_are_each_whole() {
        let (disk, file) = disk_with(&[0; 800]);
        std::thread::scope(|scope| {
            for byte in 1..=8u8 {
                let (disk, file) = (&disk, &file);
                scope.spawn(move || {
                    for at in 0..100 {
                        file.write_at(&[byte], (u64::from(byte) - 1) * 100 + at).unwrap();
                    }
                    disk.create(&format!("t{byte}")).unwrap();
                    file.sync().unwrap();
                });
            }
        });
        disk.sync_dir().unwrap();
        let expected: Vec<u8> = (0..800).map(|at| (at / 100 + 1) as u8).collect();
        assert_eq!(now(&disk, SYNCED).read_file("a").unwrap(), expected);
        assert_eq!(names(&now(&disk, SYNCED)), "a t1 t2 t3 t4 t5 t6 t7 t8");
    }
}
