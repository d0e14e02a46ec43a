//! A directory in the making on the simulated disk.

use std::io;
use std::path::Path;
use std::sync::Arc;

use super::disk::SimFs;
use super::fault::{CallKind, Errno};
use super::journal::NameOp;
use crate::fs::{Fs, NewDirectory, UNFINISHED, check_name};

/// See [`NewDirectory`]. Its path is a plain name: it becomes a directory in the one it was begun from.
pub(super) struct SimNewDirectory {
    from: SimFs,
    files: SimFs,
    name: String,
    published: bool,
}

impl SimNewDirectory {
    pub(super) fn begin(from: &SimFs, path: &Path) -> io::Result<SimNewDirectory> {
        let name = path.to_str().ok_or(Errno::INVAL)?.to_owned();
        check_name(&name)?;
        let mut disk = from.disk.lock();
        disk.attempt(CallKind::MakeDirectory)?;
        let unfinished = unfinished(&name);
        if [&name, &unfinished].iter().any(|name| disk.live.find(from.directory, name).is_some()) {
            return Err(Errno::EXIST.into());
        }
        let place = (from.directory, Arc::from(unfinished));
        let inode = disk.add_inode(&place.1);
        disk.live.directories.insert(inode);
        disk.change_names(NameOp::MakeDirectory { name: place, inode });
        let files = SimFs { disk: Arc::clone(&from.disk), directory: Some(inode) };
        Ok(SimNewDirectory { from: from.clone(), files, name, published: false })
    }
}

fn unfinished(name: &str) -> String {
    format!("{name}{UNFINISHED}")
}

impl NewDirectory for SimNewDirectory {
    fn files(&self) -> Arc<dyn Fs> {
        Arc::new(self.files.clone())
    }

    fn link(&self, name: &str) -> io::Result<()> {
        check_name(name)?;
        let mut disk = self.from.disk.lock();
        disk.attempt(CallKind::Link)?;
        let inode = disk.find(self.from.directory, name)?;
        if disk.find(self.files.directory, name).is_ok() {
            return Err(Errno::EXIST.into());
        }
        disk.change_names(NameOp::Link { name: (self.files.directory, Arc::from(name)), inode });
        Ok(())
    }

    fn publish(mut self: Box<Self>) -> io::Result<()> {
        self.files.sync_dir()?;
        if self.from.disk.lock().find(self.from.directory, &self.name).is_ok() {
            return Err(Errno::EXIST.into());
        }
        self.from.rename(&unfinished(&self.name), &self.name)?;
        if let Err(error) = self.from.sync_dir() {
            let _ = self.from.rename(&self.name, &unfinished(&self.name));
            return Err(error);
        }
        self.published = true;
        Ok(())
    }
}

impl Drop for SimNewDirectory {
    fn drop(&mut self) {
        if self.published {
            return;
        }
        let mut disk = self.from.disk.lock();
        let names: Vec<_> = disk.live.list(self.files.directory).map(|(name, _)| Arc::clone(name)).collect();
        for name in names {
            disk.change_names(NameOp::Remove { name: (self.files.directory, name) });
        }
        disk.change_names(NameOp::Remove { name: (self.from.directory, Arc::from(unfinished(&self.name))) });
    }
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;

    use super::super::tests::{ALL, SYNCED, disk_with, names, now, refusal, seen};
    use super::*;

    #[test]
    fn a_published_directory_is_whole_in_every_crash_and_an_unpublished_one_never_has_its_name() {
        let (disk, _) = disk_with(b"shared");
        let at = disk.calls();
        let new = disk.new_directory(Path::new("copy")).unwrap();
        new.link("a").unwrap();
        let file = new.files().create("own").unwrap();
        file.write_at(b"own", 0).unwrap();
        file.sync().unwrap();
        new.publish().unwrap();
        let whole = |disk: &SimFs| {
            let copy = disk.directory("copy")?;
            Some((copy.list().unwrap().join(" "), copy.read_file("a"), copy.read_file("own")))
        };
        let expected = Some(("a own".to_owned(), Some(b"shared".to_vec()), Some(b"own".to_vec())));
        for at in at..=disk.calls() {
            for seed in 0..200 {
                let found = disk.image(at, &super::super::CrashPolicy::Random { seed });
                assert!(found.directory("copy").is_none() || whole(&found) == expected, "at {at}: {found:?}");
            }
        }
        assert_eq!(whole(&now(&disk, SYNCED)), expected);

        // The file is one, whatever its names.
        disk.remove("a").unwrap();
        assert_eq!(whole(&now(&disk, ALL)), expected);
        assert_eq!(refusal(disk.open("copy")), ErrorKind::IsADirectory);
        assert_eq!(refusal(disk.remove("copy")), ErrorKind::IsADirectory);
        assert_eq!(refusal(disk.new_directory(Path::new("copy"))), ErrorKind::AlreadyExists);
    }

    #[test]
    fn the_names_of_one_directory_are_not_synced_with_those_of_another() {
        let (disk, _) = disk_with(b"x");
        let new = disk.new_directory(Path::new("copy")).unwrap();
        disk.sync_dir().unwrap();
        new.link("a").unwrap();
        disk.sync_dir().unwrap();
        let found = seen(&disk, |image| image.directory("copy.unfinished").unwrap().list().unwrap().len());
        assert!(found.contains(&0) && found.contains(&1));
        new.files().sync_dir().unwrap();
        assert_eq!(now(&disk, SYNCED).directory("copy.unfinished").unwrap().list().unwrap(), ["a"]);
        drop(new);
        assert_eq!(names(&disk), "a", "what is not published is deleted");
    }
}
