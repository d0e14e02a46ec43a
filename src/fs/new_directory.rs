//! A directory in the making, on the operating system: built under a name that no database is opened by, renamed when
//! it is whole.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{AtFlags, Mode};
use rustix::io::Errno;

use super::os::{OsFs, create_directories, open_directory, parent};
use super::{Fs, NewDirectory, UNFINISHED, check_name};

/// As for any directory: the umask decides.
const DIRECTORY_MODE: Mode = Mode::RWXU.union(Mode::RWXG).union(Mode::RWXO);

/// See [`NewDirectory`].
pub(super) struct OsNewDirectory {
    /// The directory that files are linked from.
    from: OwnedFd,
    /// The directory that will hold the new one.
    parent: OwnedFd,
    name: OsString,
    unfinished: OsString,
    files: Arc<OsFs>,
    published: bool,
}

impl OsNewDirectory {
    pub(super) fn begin(from: OwnedFd, path: &Path) -> io::Result<OsNewDirectory> {
        let name = path.file_name().ok_or_else(|| refuse(io::ErrorKind::InvalidInput, path, "is no name for it"))?;
        create_directories(parent(path))?;
        let parent = open_directory(parent(path))?;
        if exists(&parent, name)? {
            return Err(refuse(io::ErrorKind::AlreadyExists, path, "exists already"));
        }
        let mut unfinished = name.to_owned();
        unfinished.push(UNFINISHED);
        let building = path.with_file_name(&unfinished);
        match rustix::fs::mkdirat(&parent, &unfinished, DIRECTORY_MODE) {
            Err(Errno::EXIST) => {
                let what =
                    "exists: an earlier attempt did not end, or is still at work; delete it or take another name";
                return Err(refuse(io::ErrorKind::AlreadyExists, &building, what));
            }
            result => result?,
        }
        let files = Arc::new(OsFs::at(&building)?);
        Ok(OsNewDirectory { from, parent, name: name.to_owned(), unfinished, files, published: false })
    }
}

fn refuse(kind: io::ErrorKind, path: &Path, what: &str) -> io::Error {
    io::Error::new(kind, format!("{} {what}", path.display()))
}

/// Removes the directory at `path` if there is one without anything in it: a new one may take its name.
pub(crate) fn remove_if_empty(path: &Path) {
    // Whatever else is there, who wants the name is told.
    let _ = std::fs::remove_dir(path);
}

fn exists(parent: &OwnedFd, name: &OsStr) -> io::Result<bool> {
    match rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(_) => Ok(true),
        Err(Errno::NOENT) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

impl NewDirectory for OsNewDirectory {
    fn files(&self) -> Arc<dyn Fs> {
        self.files.clone()
    }

    fn link(&self, name: &str) -> io::Result<()> {
        check_name(name)?;
        Ok(rustix::fs::linkat(&self.from, name, self.files.dir(), name, AtFlags::empty())?)
    }

    fn publish(mut self: Box<Self>) -> io::Result<()> {
        self.files.sync_dir()?;
        if exists(&self.parent, &self.name)? {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, "a directory of that name has come meanwhile"));
        }
        // Had one come just now, it could only be replaced if it is empty.
        rustix::fs::renameat(&self.parent, &self.unfinished, &self.parent, &self.name)?;
        if let Err(errno) = rustix::fs::fsync(&self.parent) {
            // Whoever is told of an error shall not find it there; dropping it then deletes it.
            let _ = rustix::fs::renameat(&self.parent, &self.name, &self.parent, &self.unfinished);
            return Err(errno.into());
        }
        self.published = true;
        Ok(())
    }
}

impl Drop for OsNewDirectory {
    fn drop(&mut self) {
        if self.published {
            return;
        }
        // All that is in it was put there by its maker. What cannot be deleted keeps its unfinished name.
        for name in self.files.list().unwrap_or_default() {
            let _ = self.files.remove(&name);
        }
        let _ = rustix::fs::unlinkat(&self.parent, &self.unfinished, AtFlags::REMOVEDIR);
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::ErrorKind;
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn what_is_published_is_there_whole_with_the_files_linked_and_nothing_else_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let from = OsFs::open(dir.path().join("from")).unwrap();
        from.create("a").unwrap().write_at(b"shared", 0).unwrap();
        let path = dir.path().join("deep/copy");
        let new = from.new_directory(&path).unwrap();
        new.link("a").unwrap();
        new.files().create("own").unwrap();
        assert!(!path.exists());
        assert!(new.link("../a").is_err() && new.link("b").is_err());
        new.publish().unwrap();
        assert_eq!(fs::read(path.join("a")).unwrap(), b"shared");
        assert_eq!(fs::metadata(path.join("a")).unwrap().nlink(), 2);
        assert_eq!(fs::read_dir(dir.path().join("deep")).unwrap().count(), 1);

        drop(from.new_directory(&dir.path().join("deep/given-up")).unwrap());
        assert_eq!(fs::read_dir(dir.path().join("deep")).unwrap().count(), 1, "what is not published is deleted");
    }

    #[test]
    fn nothing_that_exists_is_replaced_and_nothing_unfinished_is_opened() {
        let dir = tempfile::tempdir().unwrap();
        let from = OsFs::open(dir.path().join("from")).unwrap();
        let refusal = |name: &str| from.new_directory(&dir.path().join(name)).err().expect("refused");
        fs::create_dir(dir.path().join("directory")).unwrap();
        fs::write(dir.path().join("file"), "").unwrap();
        std::os::unix::fs::symlink("nowhere", dir.path().join("link")).unwrap();
        for name in ["directory", "file", "link"] {
            assert_eq!(refusal(name).kind(), ErrorKind::AlreadyExists, "{name}");
        }
        assert_eq!(refusal("..").kind(), ErrorKind::InvalidInput);

        let new = from.new_directory(&dir.path().join("copy")).unwrap();
        let message = refusal("copy").to_string();
        assert!(message.contains("copy.unfinished exists: an earlier attempt"), "{message}");
        assert!(OsFs::open(dir.path().join("copy.unfinished")).is_err());
        fs::create_dir(dir.path().join("copy")).unwrap();
        assert_eq!(new.publish().unwrap_err().kind(), ErrorKind::AlreadyExists, "it came meanwhile");
        assert!(!dir.path().join("copy.unfinished").exists());
    }
}
