//! What was done to a disk, call by call.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use super::tree::{Directory, Inode, Name, Names, Tree};

/// The most that a disk writes in one piece. Disks of 4 KiB sectors exist; 512 is the case that tears more.
pub const SECTOR_BYTES: usize = 512;

/// A change of names.
#[derive(Clone, Debug)]
pub(super) enum NameOp {
    Create {
        name: Name,
        inode: Inode,
    },
    MakeDirectory {
        name: Name,
        inode: Inode,
    },
    /// A second name for a file that has one.
    Link {
        name: Name,
        inode: Inode,
    },
    Rename {
        from: Name,
        to: Name,
        inode: Inode,
    },
    Remove {
        name: Name,
    },
}

impl NameOp {
    /// The directory whose sync makes it durable.
    pub(super) fn directory(&self) -> Directory {
        match self {
            NameOp::Create { name, .. }
            | NameOp::MakeDirectory { name, .. }
            | NameOp::Link { name, .. }
            | NameOp::Rename { to: name, .. }
            | NameOp::Remove { name } => name.0,
        }
    }

    /// Changes the names. Makes sense in any state of them, since earlier operations may have been lost.
    pub(super) fn apply(&self, names: &mut Names) {
        match self {
            NameOp::Create { name, inode } | NameOp::MakeDirectory { name, inode } | NameOp::Link { name, inode } => {
                names.insert(name.clone(), *inode);
            }
            NameOp::Rename { to, inode, .. } => {
                // The file leaves whatever name it has here: if an earlier rename was lost, that is an older one.
                names.retain(|(directory, _), named| named != inode || *directory != to.0);
                names.insert(to.clone(), *inode);
            }
            NameOp::Remove { name } => {
                names.remove(name);
            }
        }
    }
}

/// A change of bytes.
#[derive(Clone)]
pub(super) struct Write {
    pub(super) inode: Inode,
    pub(super) offset: usize,
    pub(super) bytes: Arc<[u8]>,
}

impl Write {
    pub(super) fn end(&self) -> usize {
        self.offset + self.bytes.len()
    }

    /// How many sectors of the file the write touches.
    pub(super) fn sectors(&self) -> usize {
        self.end().div_ceil(SECTOR_BYTES) - self.offset / SECTOR_BYTES
    }

    /// What the write covers of its `nth` sector, as a range of the file. The first and the last may be partial.
    pub(super) fn sector(&self, nth: usize) -> Range<usize> {
        let start = (self.offset / SECTOR_BYTES + nth) * SECTOR_BYTES;
        start.max(self.offset)..(start + SECTOR_BYTES).min(self.end())
    }

    /// The bytes for a part of the file that the write covers.
    pub(super) fn part(&self, range: &Range<usize>) -> &[u8] {
        &self.bytes[range.start - self.offset..range.end - self.offset]
    }

    pub(super) fn apply(&self, content: &mut Vec<u8>) {
        put(content, self.offset, &self.bytes);
    }
}

/// Puts `bytes` at `offset`; a gap becomes zeros.
pub(super) fn put(content: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    let end = offset + bytes.len();
    if content.len() < end {
        content.resize(end, 0);
    }
    content[offset..end].copy_from_slice(bytes);
}

/// A call that changed the disk, or what a crash may find of it.
#[derive(Clone)]
pub(super) enum Call {
    Name(NameOp),
    Write(Write),
    Sync(Inode),
    SyncDir(Directory),
    /// A file sync that failed, and after which the system took the dirty pages for clean: they are never written.
    DropWrites(Inode),
    /// The same for the directory.
    DropNames(Directory),
}

/// What happened to the disk from outside. Not a call: it is durable at once, and no crash can fall into it.
#[derive(Clone)]
pub(super) enum Damage {
    Flip { inode: Inode, offset: usize, xor: u8 },
    Put { name: Name, inode: Inode, bytes: Arc<Vec<u8>> },
}

/// Where a disk began, and all that was done to it since.
#[derive(Clone, Default)]
pub(super) struct Journal {
    pub(super) start: Tree,
    pub(super) calls: Vec<Call>,
    /// Each with the number of calls that came before it.
    pub(super) damage: Vec<(usize, Damage)>,
    /// The name that each file had first, for messages.
    pub(super) births: Vec<Arc<str>>,
}

impl Journal {
    pub(super) fn new(start: Tree) -> Journal {
        let mut births = vec![Arc::from("?"); start.inodes()];
        for (name, inode) in &start.names {
            births[inode.0] = Arc::clone(&name.1);
        }
        Journal { start, births, ..Journal::default() }
    }

    /// One call as a person reads it, files by their first name.
    pub(super) fn describe(&self, call: &Call) -> String {
        let file = |inode: &Inode| &self.births[inode.0];
        match call {
            Call::Name(op) => op.to_string(),
            Call::Write(write) => {
                format!("write {} at {}: {} bytes", file(&write.inode), write.offset, write.bytes.len())
            }
            Call::Sync(inode) => format!("sync {}", file(inode)),
            Call::SyncDir(_) => "sync directory".to_owned(),
            Call::DropWrites(inode) => format!("sync {} failed, dirty pages dropped", file(inode)),
            Call::DropNames(_) => "sync directory failed, its changes dropped".to_owned(),
        }
    }
}

impl fmt::Display for NameOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NameOp::Create { name, .. } => write!(f, "create {}", name.1),
            NameOp::MakeDirectory { name, .. } => write!(f, "make directory {}", name.1),
            NameOp::Link { name, .. } => write!(f, "link {}", name.1),
            NameOp::Rename { from, to, .. } => write!(f, "rename {} to {}", from.1, to.1),
            NameOp::Remove { name } => write!(f, "remove {}", name.1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sectors_are_those_of_the_file_and_cover_the_write_exactly() {
        let write = |offset, len| Write { inode: Inode(0), offset, bytes: vec![1; len].into() };
        assert_eq!(write(0, 512).sectors(), 1);
        assert_eq!(write(511, 2).sectors(), 2, "two bytes across a border");
        for (offset, len) in [(0, 1), (0, 512), (100, 412), (100, 413), (511, 2), (1000, 3000), (512, 1024)] {
            let write = write(offset, len);
            let mut at = offset;
            for nth in 0..write.sectors() {
                let range = write.sector(nth);
                assert_eq!(range.start, at);
                assert!(range.start < range.end && range.start / SECTOR_BYTES == (range.end - 1) / SECTOR_BYTES);
                at = range.end;
            }
            assert_eq!(at, write.end());
        }
    }
}
