//! Names and the files behind them: one state of a disk, with nothing undecided in it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The number of a file, or of a directory: its place in [`Tree::contents`]. Never reused, so a handle stays with its file whatever happens to
/// the name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Inode(pub(super) usize);

/// Which directory: `None` is the one that the disk begins with.
pub(super) type Directory = Option<Inode>;

/// A name in a directory.
pub(super) type Name = (Directory, Arc<str>);

/// Which file each name means. Ordered, so that whatever walks the names does so the same way in every run.
pub(super) type Names = BTreeMap<Name, Inode>;

/// Cloning shares the contents; a write then copies the one file that it changes.
#[derive(Clone, Debug, Default)]
pub(super) struct Tree {
    pub(super) names: Names,
    contents: Vec<Arc<Vec<u8>>>,
    /// Those that are no files. Their content is empty.
    pub(super) directories: BTreeSet<Inode>,
}

impl Tree {
    /// The number that the next created file gets.
    pub(super) fn next_inode(&self) -> Inode {
        Inode(self.contents.len())
    }

    /// How many files there have ever been.
    pub(super) fn inodes(&self) -> usize {
        self.contents.len()
    }

    /// Makes room for a new file, which has no name yet.
    pub(super) fn add_inode(&mut self, content: Arc<Vec<u8>>) -> Inode {
        let inode = self.next_inode();
        self.contents.push(content);
        inode
    }

    pub(super) fn content(&self, inode: Inode) -> &Arc<Vec<u8>> {
        &self.contents[inode.0]
    }

    pub(super) fn content_mut(&mut self, inode: Inode) -> &mut Vec<u8> {
        Arc::make_mut(&mut self.contents[inode.0])
    }

    pub(super) fn find(&self, directory: Directory, name: &str) -> Option<Inode> {
        self.names.get(&(directory, Arc::from(name))).copied()
    }

    /// The names in a directory.
    pub(super) fn list(&self, directory: Directory) -> impl Iterator<Item = (&Arc<str>, Inode)> {
        self.names.iter().filter(move |((at, _), _)| *at == directory).map(|((_, name), inode)| (name, *inode))
    }
}
