//! The directory as the operating system keeps it.
//!
//! Every name is resolved against one directory descriptor and never through a symbolic link, so neither a renamed
//! parent nor a planted link can make the database write elsewhere. Nothing is buffered here: a write is a `pwrite`, a
//! sync is an `fdatasync`, and each failure reaches the caller as it is. What to do about one is the engine's business.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::{Errno, retry_on_intr};

use super::lock::{LOCK_NAME, LockGuard};
use super::new_directory::OsNewDirectory;
use super::whole::{read_whole, write_whole};
use super::{File, Fs, LockError, NewDirectory, UNFINISHED, check_name};

/// Our files are nobody else's: read and write for the owner only.
const FILE_MODE: Mode = Mode::RUSR.union(Mode::WUSR);

/// Flags of every open: no symbolic links, nothing leaks into child processes.
const SAFELY: OFlags = OFlags::NOFOLLOW.union(OFlags::CLOEXEC);

/// A planted fifo or terminal must neither hang the open nor become ours. No effect on regular files.
const UNHURT: OFlags = OFlags::NONBLOCK.union(OFlags::NOCTTY);

/// A directory of the operating system.
#[derive(Debug)]
pub struct OsFs {
    path: PathBuf,
    dir: OwnedFd,
}

impl OsFs {
    /// Opens the directory at `path`. It and its parents are created if missing, and are durable when this returns.
    ///
    /// A directory that was never finished (see [`Fs::new_directory`]) is refused.
    pub fn open(path: impl AsRef<Path>) -> io::Result<OsFs> {
        let path = path.as_ref();
        refuse_unfinished(path)?;
        create_directories(path)?;
        OsFs::at(path)
    }

    /// Opens the directory at `path` if it is there.
    pub fn open_existing(path: impl AsRef<Path>) -> io::Result<OsFs> {
        let path = path.as_ref();
        refuse_unfinished(path)?;
        OsFs::at(path)
    }

    pub(super) fn at(path: &Path) -> io::Result<OsFs> {
        Ok(OsFs { path: path.to_owned(), dir: open_directory(path)? })
    }

    pub(super) fn dir(&self) -> &OwnedFd {
        &self.dir
    }

    /// Keeps the directory from being opened as a database for as long as the guard lives, without writing to it.
    /// `None` if it has no lock file: then no server has ever opened it.
    pub fn lock_for_reading(&self) -> Result<Option<Box<dyn Send + Sync>>, LockError> {
        match self.open_regular(LOCK_NAME, OFlags::RDONLY) {
            Ok(fd) => Ok(Some(Box::new(LockGuard::share(fd)?))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(LockError::Io(error)),
        }
    }

    fn open_at(&self, name: &str, flags: OFlags) -> io::Result<OwnedFd> {
        check_name(name)?;
        match retry_on_intr(|| rustix::fs::openat(&self.dir, name, flags | SAFELY, FILE_MODE)) {
            Ok(fd) => Ok(fd),
            // The system's own words ("too many levels of symbolic links") would send the reader the wrong way.
            Err(Errno::LOOP) => Err(foreign(name)),
            Err(errno) => Err(errno.into()),
        }
    }

    /// As `open_at`, for what may be there already: anything but a regular file is refused.
    fn open_regular(&self, name: &str, flags: OFlags) -> io::Result<OwnedFd> {
        let fd = self.open_at(name, flags | UNHURT)?;
        if FileType::from_raw_mode(rustix::fs::fstat(&fd)?.st_mode) != FileType::RegularFile {
            return Err(foreign(name));
        }
        Ok(fd)
    }
}

impl Fs for OsFs {
    fn create(&self, name: &str) -> io::Result<Arc<dyn File>> {
        let fd = self.open_at(name, OFlags::CREATE | OFlags::EXCL | OFlags::RDWR)?;
        Ok(Arc::new(OsFile { fd }))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn File>> {
        let fd = self.open_regular(name, OFlags::RDONLY)?;
        Ok(Arc::new(OsFile { fd }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        check_name(from)?;
        check_name(to)?;
        Ok(rustix::fs::renameat(&self.dir, from, &self.dir, to)?)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        check_name(name)?;
        Ok(rustix::fs::unlinkat(&self.dir, name, AtFlags::empty())?)
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in retry_on_intr(|| rustix::fs::Dir::read_from(&self.dir))? {
            let entry = entry?;
            // A name that is not UTF-8 is not one of ours: it is shown, and opening what is shown finds nothing.
            let name = entry.file_name().to_string_lossy();
            if !matches!(&*name, "." | "..") {
                names.push(name.into_owned());
            }
        }
        Ok(names)
    }

    fn sync_dir(&self) -> io::Result<()> {
        Ok(rustix::fs::fsync(&self.dir)?)
    }

    fn lock(&self) -> Result<Box<dyn Send + Sync>, LockError> {
        let fd = match self.open_regular(LOCK_NAME, OFlags::CREATE | OFlags::RDWR) {
            // Who may only read can still be kept out, and be served until the disk takes writes again.
            Err(error) if error.kind() == io::ErrorKind::ReadOnlyFilesystem => {
                self.open_regular(LOCK_NAME, OFlags::RDONLY)
            }
            opened => opened,
        };
        Ok(Box::new(LockGuard::take(fd.map_err(LockError::Io)?)?))
    }

    fn new_directory(&self, path: &Path) -> io::Result<Box<dyn NewDirectory>> {
        Ok(Box::new(OsNewDirectory::begin(self.dir.try_clone()?, path)?))
    }

    fn describe(&self) -> String {
        self.path.display().to_string()
    }
}

struct OsFile {
    fd: OwnedFd,
}

impl File for OsFile {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        write_whole(bytes, offset, |bytes, offset| rustix::io::pwrite(&self.fd, bytes, offset))
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        read_whole(buffer, offset, |buffer, offset| rustix::io::pread(&self.fd, buffer, offset))
    }

    fn sync(&self) -> io::Result<()> {
        // Never retried, not even when interrupted: after a failure the second call may say OK for lost pages.
        Ok(rustix::fs::fdatasync(&self.fd)?)
    }

    fn len(&self) -> io::Result<u64> {
        // The kernel never reports a negative length for a regular file.
        Ok(rustix::fs::fstat(&self.fd)?.st_size as u64)
    }
}

fn foreign(name: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, format!("{name} is not a regular file; it was put there by others"))
}

fn refuse_unfinished(path: &Path) -> io::Result<()> {
    match path.file_name() {
        Some(name) if name.as_encoded_bytes().ends_with(UNFINISHED.as_bytes()) => {
            let what = "is what an attempt to make a copy has left behind; it is incomplete, delete it";
            Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{} {what}", path.display())))
        }
        _ => Ok(()),
    }
}

/// Creates `path` and what is missing above it, each durable before the next is created in it.
pub(super) fn create_directories(path: &Path) -> io::Result<()> {
    match fs::create_dir(path) {
        Ok(()) => sync_parent(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound && path.parent().is_some() => {
            create_directories(parent(path))?;
            fs::create_dir(path)?;
            sync_parent(path)
        }
        // It may be there only because a run that was killed had created it and not yet synced its parent. Who may
        // not read the parent, or has one that cannot be synced, has not created it.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => match sync_parent(path) {
            Err(error) if matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::InvalidInput) => {
                Ok(())
            }
            result => result,
        },
        Err(error) => Err(error),
    }
}

fn sync_parent(path: &Path) -> io::Result<()> {
    Ok(rustix::fs::fsync(open_directory(parent(path))?)?)
}

/// The directory that holds `path`; the working directory for a bare name.
pub(super) fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        Some(_) => Path::new("."),
        None => path,
    }
}

pub(super) fn open_directory(path: &Path) -> io::Result<OwnedFd> {
    // Symbolic links are followed here and only here: where the database lives is the operator's choice.
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(retry_on_intr(|| rustix::fs::open(path, flags, Mode::empty()))?)
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    fn temporary() -> (tempfile::TempDir, OsFs) {
        let dir = tempfile::tempdir().unwrap();
        let fs = OsFs::open(dir.path()).unwrap();
        (dir, fs)
    }

    fn refusal<T>(result: io::Result<T>) -> ErrorKind {
        result.err().expect("must be refused").kind()
    }

    fn plant_fifo(path: PathBuf) {
        rustix::fs::mknodat(rustix::fs::CWD, path, FileType::Fifo, FILE_MODE, 0).unwrap();
    }

    /// Runs `call` with a deadline, so that a hang is a failure instead of a stuck test run.
    fn in_time<T: Send + 'static>(call: impl FnOnce() -> T + Send + 'static) -> T {
        let (sender, receiver) = mpsc::channel();
        std::thread::spawn(move || sender.send(call()));
        receiver.recv_timeout(Duration::from_secs(20)).expect("must not hang")
    }

    #[test]
    fn what_is_written_is_read_back_and_a_read_stops_at_the_end() {
        let (_dir, fs) = temporary();
        let file = fs.create("a").unwrap();
        file.write_at(b"world", 6).unwrap();
        file.write_at(b"hello", 0).unwrap();
        file.sync().unwrap();
        fs.sync_dir().unwrap();
        assert_eq!(file.len().unwrap(), 11);

        let file = fs.open("a").unwrap();
        let mut buffer = [0xff; 32];
        assert_eq!(file.read_at(&mut buffer, 0).unwrap(), 11);
        assert_eq!(&buffer[..11], b"hello\0world", "the gap reads as zeros");
        assert_eq!(file.read_at(&mut buffer, 9).unwrap(), 2);
        assert_eq!(file.read_at(&mut buffer, 11).unwrap(), 0);
        assert_eq!(file.read_at(&mut buffer, 1 << 40).unwrap(), 0);
    }

    #[test]
    fn create_refuses_what_exists_and_makes_files_private() {
        let (dir, fs) = temporary();
        fs.create("a").unwrap();
        assert_eq!(refusal(fs.create("a")), ErrorKind::AlreadyExists);
        let mode = fs::metadata(dir.path().join("a")).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{mode:o}");
    }

    #[test]
    fn open_is_for_reading_only() {
        let (_dir, fs) = temporary();
        fs.create("a").unwrap().write_at(b"kept", 0).unwrap();
        let file = fs.open("a").unwrap();
        assert!(file.write_at(b"lost", 0).is_err());
        let mut buffer = [0; 4];
        file.read_at(&mut buffer, 0).unwrap();
        assert_eq!(&buffer, b"kept");
        assert_eq!(refusal(fs.open("b")), ErrorKind::NotFound);
    }

    #[test]
    fn a_symbolic_link_is_refused_and_its_target_untouched() {
        let (dir, fs) = temporary();
        let outside = tempfile::NamedTempFile::new().unwrap();
        fs::write(outside.path(), b"theirs").unwrap();
        symlink(outside.path(), dir.path().join("link")).unwrap();
        symlink(outside.path(), dir.path().join("LOCK")).unwrap();
        symlink(dir.path().join("nowhere"), dir.path().join("dangling")).unwrap();

        assert_eq!(refusal(fs.open("link")), ErrorKind::InvalidInput);
        assert_eq!(refusal(fs.create("link")), ErrorKind::AlreadyExists);
        assert_eq!(refusal(fs.create("dangling")), ErrorKind::AlreadyExists);
        assert!(matches!(fs.lock(), Err(LockError::Io(error)) if error.kind() == ErrorKind::InvalidInput));
        assert_eq!(fs::read(outside.path()).unwrap(), b"theirs");
        assert!(!dir.path().join("nowhere").exists());
    }

    #[test]
    fn a_fifo_a_directory_and_a_device_are_refused_without_hanging() {
        let (dir, fs) = temporary();
        plant_fifo(dir.path().join("fifo"));
        plant_fifo(dir.path().join("LOCK"));
        fs::create_dir(dir.path().join("directory")).unwrap();

        let fs = Arc::new(fs);
        for name in ["fifo", "directory"] {
            let fs = Arc::clone(&fs);
            assert_eq!(in_time(move || refusal(fs.open(name))), ErrorKind::InvalidInput, "{name}");
        }
        let locked = in_time({
            let fs = Arc::clone(&fs);
            move || fs.lock().map(drop)
        });
        assert!(matches!(locked, Err(LockError::Io(error)) if error.kind() == ErrorKind::InvalidInput));
        assert_eq!(refusal(OsFs::open("/dev").unwrap().open("null")), ErrorKind::InvalidInput);
    }

    #[test]
    fn no_name_leads_out_of_the_directory() {
        let (dir, fs) = temporary();
        fs.create("a").unwrap();
        for name in ["", ".", "..", "../a", "/etc/passwd", "b/c", "a\0b"] {
            assert_eq!(refusal(fs.create(name)), ErrorKind::InvalidInput, "create {name:?}");
            assert_eq!(refusal(fs.open(name)), ErrorKind::InvalidInput, "open {name:?}");
            assert_eq!(refusal(fs.remove(name)), ErrorKind::InvalidInput, "remove {name:?}");
            assert_eq!(refusal(fs.rename("a", name)), ErrorKind::InvalidInput, "rename to {name:?}");
            assert_eq!(refusal(fs.rename(name, "a")), ErrorKind::InvalidInput, "rename from {name:?}");
        }
        assert!(dir.path().join("a").exists());
    }

    #[test]
    fn rename_replaces_remove_keeps_open_handles_and_list_shows_everything() {
        let (dir, fs) = temporary();
        fs.create("old").unwrap().write_at(b"old", 0).unwrap();
        fs.create("new").unwrap().write_at(b"new", 0).unwrap();
        fs::create_dir(dir.path().join("foreign")).unwrap();
        let replaced = fs.open("old").unwrap();
        fs.rename("new", "old").unwrap();

        let mut names = fs.list().unwrap();
        names.sort();
        assert_eq!(names, ["foreign", "old"]);
        assert_eq!(fs.list().unwrap().len(), 2, "a second list starts from the front");

        let mut buffer = [0; 3];
        fs.open("old").unwrap().read_at(&mut buffer, 0).unwrap();
        assert_eq!(&buffer, b"new");
        fs.remove("old").unwrap();
        assert_eq!(refusal(fs.open("old")), ErrorKind::NotFound);
        assert_eq!(replaced.read_at(&mut buffer, 0).unwrap(), 3);
        assert_eq!(&buffer, b"old");
        assert!(fs.remove("foreign").is_err(), "a directory is not ours to remove");
    }

    #[test]
    fn open_creates_missing_parents_and_refuses_a_file_in_their_place() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b/c");
        OsFs::open(&path).unwrap().create("x").unwrap();
        assert!(path.join("x").exists());
        assert_eq!(refusal(OsFs::open(path.join("x"))), ErrorKind::NotADirectory);
        assert_eq!(refusal(OsFs::open(path.join("x/y"))), ErrorKind::NotADirectory);
        assert_eq!(refusal(OsFs::open("")), ErrorKind::NotFound);
        OsFs::open("/").unwrap();
        OsFs::open(".").unwrap();
    }
}
