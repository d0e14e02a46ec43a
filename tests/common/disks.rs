//! Small file systems that can be filled, broken and cut off. They are unmounted with their test, however it ends.

#![allow(dead_code, reason = "each test binary uses its own part")]

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::needs::{has_root_and, skip};

/// Runs a program: what it said if it failed.
pub fn run(program: &str, arguments: &[&str], paths: &[&Path]) -> Result<(), String> {
    let output = Command::new(program).args(arguments).args(paths).output();
    match output {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(format!("{program}: {}", String::from_utf8_lossy(&output.stderr).trim())),
        Err(error) => Err(format!("{program}: {error}")),
    }
}

/// A tmpfs of a few megabytes.
pub struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    /// `None` where that cannot be done.
    pub fn mount(megabytes: u32) -> Option<SmallDisk> {
        if !has_root_and(&["mount"]) {
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let size = format!("size={megabytes}m");
        if let Err(why) = run("mount", &["-t", "tmpfs", "-o", &size, "chronos-test"], &[dir.path()]) {
            skip(&format!("a small tmpfs cannot be mounted: {why}"));
            return None;
        }
        Some(SmallDisk(dir))
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    pub fn data(&self) -> PathBuf {
        self.path().join("data")
    }

    fn filler(&self) -> PathBuf {
        self.path().join("filler")
    }

    /// Takes all the room that is left, to the last byte.
    pub fn fill(&self) {
        let mut file = File::options().create(true).append(true).open(self.filler()).unwrap();
        for size in [1 << 20, 4 << 10, 1] {
            while file.write_all(&vec![b'x'; size]).is_ok() {}
        }
    }

    /// As [`SmallDisk::fill`], but for so many bytes.
    pub fn fill_but(&self, bytes: u64) {
        self.fill();
        let file = File::options().write(true).open(self.filler()).unwrap();
        file.set_len(file.metadata().unwrap().len().saturating_sub(bytes)).unwrap();
    }

    /// Gives back what [`SmallDisk::fill`] took.
    pub fn free(&self) {
        std::fs::remove_file(self.filler()).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = run("umount", &["-l"], &[self.path()]);
    }
}

/// Where an ext4 of one group has its bitmaps and inodes, and more.
const STRUCTURES: usize = 12 << 20;

/// An ext4 in a file on a tmpfs, behind a loop device. Nothing that is written to it survives the machine, but what it
/// forgets when it is cut off is what a disk forgets.
pub struct Ext4 {
    at: tempfile::TempDir,
    mounted: bool,
    /// Last, so that it is unmounted last.
    pub below: SmallDisk,
}

impl Ext4 {
    /// A file system of `size` megabytes on a tmpfs of `room`, mounted. `None` where that cannot be done.
    pub fn mount_new(size: u32, room: u32) -> Option<Ext4> {
        if !has_root_and(&["mkfs.ext4", "losetup"]) {
            return None;
        }
        let below = SmallDisk::mount(room)?;
        let mut disk = Ext4 { at: tempfile::tempdir().unwrap(), mounted: false, below };
        File::create(disk.image()).unwrap().set_len(u64::from(size) << 20).unwrap();
        // The smallest journal there is, and everything in its place now: nothing writes to the disk behind the back of
        // the test.
        let options = ["-q", "-F", "-b", "4096", "-J", "size=4", "-E", "lazy_itable_init=0,lazy_journal_init=0"];
        let made = run("mkfs.ext4", &options, &[&disk.image()]).and_then(|()| disk.mount(&[]));
        if let Err(why) = made {
            skip(&format!("an ext4 cannot be made and mounted through a loop device: {why}"));
            return None;
        }
        Some(disk)
    }

    /// Has the disk below give the file system's own structures their room now. Where ext4 cannot write its inodes it may
    /// lose what it had called durable, and no program can do anything about that.
    pub fn take_room_for_inodes(&mut self) -> std::io::Result<()> {
        let fail = std::io::Error::other;
        self.unmount().map_err(fail)?;
        let image = File::options().read(true).write(true).open(self.image())?;
        let mut structures = vec![0; STRUCTURES];
        image.read_exact_at(&mut structures, 0)?;
        image.write_all_at(&structures, 0)?;
        drop(image);
        self.mount(&[]).map_err(fail)
    }

    /// The same for the journal, by going round in it a few times.
    pub fn take_room_for_journal(&mut self) -> std::io::Result<()> {
        let fail = std::io::Error::other;
        self.unmount().map_err(fail)?;
        self.mount(&["data=journal"]).map_err(fail)?;
        // It stays: its blocks would be found again by others.
        std::fs::write(self.path().join("junk"), vec![b'x'; 10 << 20])?;
        self.unmount().map_err(fail)?;
        self.mount(&[]).map_err(fail)
    }

    fn image(&self) -> PathBuf {
        self.below.path().join("image")
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        self.at.path()
    }

    pub fn data(&self) -> PathBuf {
        self.path().join("data")
    }

    pub fn mount(&mut self, options: &[&str]) -> Result<(), String> {
        let options = [&["loop"], options].concat().join(",");
        run("mount", &["-o", &options], &[&self.image(), self.at.path()])?;
        self.mounted = true;
        Ok(())
    }

    /// Has the kernel find an error in it. Mounted with `errors=remount-ro`, it then lets nobody write any more.
    pub fn find_error(&self) -> std::io::Result<()> {
        let device = std::fs::metadata(self.path())?.dev();
        let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
        let device = std::fs::read_link(format!("/sys/dev/block/{major}:{minor}"))?;
        let name = device.file_name().unwrap_or_default().to_string_lossy();
        std::fs::write(format!("/sys/fs/ext4/{name}/trigger_fs_error"), "on purpose")
    }

    pub fn remount(&self, option: &str) -> Result<(), String> {
        run("mount", &["-o", &format!("remount,{option}")], &[self.path()])
    }

    /// Nothing may be open in it.
    pub fn unmount(&mut self) -> Result<(), String> {
        run("umount", &[], &[self.path()])?;
        self.mounted = false;
        Ok(())
    }
}

/// A file system on which every write waits, until this is dropped.
pub struct Frozen<'a>(&'a Path);

impl Frozen<'_> {
    pub fn freeze(path: &Path) -> Frozen<'_> {
        run("fsfreeze", &["-f"], &[path]).unwrap();
        Frozen(path)
    }
}

impl Drop for Frozen<'_> {
    fn drop(&mut self) {
        let _ = run("fsfreeze", &["-u"], &[self.0]);
    }
}

impl Drop for Ext4 {
    fn drop(&mut self) {
        if self.mounted {
            // Lazily, should a server still be there: the last to go frees the loop device.
            let _ = run("umount", &["-l"], &[self.path()]);
        }
    }
}
