//! A walk through a journal, with an image of the disk at any step.
//!
//! The walker keeps what is surely on the disk apart from what is still pending, so that an image costs only what is
//! pending: everything else is shared.

use std::mem;
use std::sync::Arc;

use super::disk::SimFs;
use super::journal::{Call, Damage, Journal, NameOp, Write, put};
use super::policy::{CrashPolicy, Fate, Judge, Sector};
use super::tree::{Directory, Inode, Names, Tree};

/// Stands between two calls of a run that is over, and tells what a power loss there could leave.
///
/// ```
/// use chronos::fs::{Fs, SimFs, sim::CrashPolicy};
///
/// # fn main() -> std::io::Result<()> {
/// let disk = SimFs::new();
/// disk.create("a")?.write_at(b"hello", 0)?;
/// let mut images = disk.images();
/// while images.advance() {
///     for policy in images.systematic() {
///         let found = images.image(&policy); // a disk to start from
///         assert!(found.calls() == 0, "at call {} with {policy:?}", images.at());
///     }
///     let found = images.image(&CrashPolicy::Random { seed: images.at() as u64 });
///     assert!(found.read_file("b").is_none());
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Images {
    journal: Journal,
    /// How many calls have been issued, and how much of the damage has been done.
    at: usize,
    damaged: usize,
    durable: Tree,
    /// For each file, and for the directory: what is pending, in order, each with its call's number.
    writes: Vec<Vec<(usize, Write)>>,
    names: Vec<(usize, NameOp)>,
}

impl Images {
    pub(super) fn new(journal: Journal) -> Images {
        let durable = journal.start.clone();
        let writes = vec![Vec::new(); durable.inodes()];
        let mut images = Images { journal, at: 0, damaged: 0, durable, writes, names: Vec::new() };
        images.suffer();
        images
    }

    /// How many calls have been issued here.
    pub fn at(&self) -> usize {
        self.at
    }

    /// Goes past one more call; `false` if that was all.
    pub fn advance(&mut self) -> bool {
        let Some(call) = self.journal.calls.get(self.at).cloned() else {
            return false;
        };
        match call {
            Call::Name(op) => {
                if matches!(op, NameOp::Create { .. } | NameOp::MakeDirectory { .. }) {
                    self.add_inode();
                }
                if let NameOp::MakeDirectory { inode, .. } = op {
                    self.durable.directories.insert(inode);
                }
                self.names.push((self.at, op));
            }
            Call::Write(write) => self.writes[write.inode.0].push((self.at, write)),
            Call::Sync(inode) => {
                for (_, write) in mem::take(&mut self.writes[inode.0]) {
                    write.apply(self.durable.content_mut(inode));
                }
            }
            Call::SyncDir(directory) => self.settle_names(directory),
            Call::DropWrites(inode) => self.writes[inode.0].clear(),
            Call::DropNames(directory) => self.names.retain(|(_, op)| op.directory() != directory),
        }
        self.at += 1;
        self.suffer();
        true
    }

    /// Goes to the point at which `at` calls have been issued. Panics if that is behind, or if there are not so many.
    pub fn advance_to(&mut self, at: usize) {
        let calls = self.journal.calls.len();
        assert!(self.at <= at && at <= calls, "there is no way to call {at} from call {} of {calls}", self.at);
        while self.at < at {
            self.advance();
        }
    }

    /// The calls whose effect is undecided here, in order.
    pub fn pending(&self) -> Vec<usize> {
        let writes = self.writes.iter().flatten().map(|(call, _)| *call);
        let mut calls: Vec<usize> = self.names.iter().map(|(call, _)| *call).chain(writes).collect();
        calls.sort_unstable();
        calls
    }

    /// Every policy that is worth a look here and involves no chance: the extremes, each pending call lost alone, and
    /// the newest call, if it is a write, torn at each sector, so that either the front or the back arrived.
    pub fn systematic(&self) -> Vec<CrashPolicy> {
        let mut policies = vec![CrashPolicy::Synced, CrashPolicy::All];
        policies.extend(self.pending().into_iter().map(|call| CrashPolicy::Without { call }));
        if let Some((call, Call::Write(write))) = self.at.checked_sub(1).map(|call| (call, &self.journal.calls[call])) {
            let count = write.sectors();
            for cut in 1..count {
                policies.push(CrashPolicy::Torn { call, sectors: 0..cut });
                policies.push(CrashPolicy::Torn { call, sectors: cut..count });
            }
        }
        policies
    }

    /// The disk that is found after a power loss here.
    pub fn image(&self, policy: &CrashPolicy) -> SimFs {
        let mut judge = Judge::new(policy);
        let mut names = self.durable.names.clone();
        for (call, op) in &self.names {
            if judge.keeps_name(*call) {
                op.apply(&mut names);
            }
        }
        // Files without a name are gone; the others are numbered anew.
        let mut found = Found { numbers: vec![None; self.durable.inodes()], ..Found::default() };
        self.find(None, None, &names, &mut judge, &mut found);
        SimFs::from_tree(found.tree)
    }

    /// Puts what is found in `directory` into `place`, its new number.
    fn find(&self, directory: Directory, place: Directory, names: &Names, judge: &mut Judge<'_>, found: &mut Found) {
        for ((_, name), &inode) in names.iter().filter(|((at, _), _)| *at == directory) {
            let number = match found.numbers[inode.0] {
                // A file that was met under another name.
                Some(number) => number,
                None => found.tree.add_inode(self.content(inode, judge)),
            };
            found.numbers[inode.0] = Some(number);
            found.tree.names.insert((place, Arc::clone(name)), number);
            if self.durable.directories.contains(&inode) {
                found.tree.directories.insert(number);
                self.find(Some(inode), Some(number), names, judge, found);
            }
        }
    }

    /// What is found in a file. Shared with the walker unless a pending write changed it.
    fn content(&self, inode: Inode, judge: &mut Judge<'_>) -> Arc<Vec<u8>> {
        let mut content = Arc::clone(self.durable.content(inode));
        for (call, write) in &self.writes[inode.0] {
            match judge.fate(*call, write) {
                Fate::Lost => {}
                Fate::Kept => write.apply(Arc::make_mut(&mut content)),
                Fate::Mixed { sectors, whole_length } => {
                    self.tear(Arc::make_mut(&mut content), write, &sectors, whole_length);
                }
            }
        }
        content
    }

    fn tear(&self, content: &mut Vec<u8>, write: &Write, sectors: &[Sector], whole_length: bool) {
        for (nth, sector) in sectors.iter().enumerate() {
            let range = write.sector(nth);
            match sector {
                Sector::New => put(content, range.start, write.part(&range)),
                Sector::Old => {}
                Sector::Zeros => put(content, range.start, &vec![0; range.len()]),
                Sector::Stale(owner) => {
                    // Any file there has ever been, the removed ones too. Beyond its end there were zeros.
                    let owner = Inode((owner % self.durable.inodes() as u64) as usize);
                    let theirs = self.durable.content(owner);
                    let mut stale = theirs[range.start.min(theirs.len())..range.end.min(theirs.len())].to_vec();
                    stale.resize(range.len(), 0);
                    put(content, range.start, &stale);
                }
            }
        }
        if whole_length && content.len() < write.end() {
            content.resize(write.end(), 0);
        }
    }

    fn add_inode(&mut self) -> Inode {
        self.writes.push(Vec::new());
        self.durable.add_inode(Arc::default())
    }

    fn settle_names(&mut self, directory: Directory) {
        for (_, op) in self.names.extract_if(.., |(_, op)| op.directory() == directory) {
            op.apply(&mut self.durable.names);
        }
    }

    /// Does the damage that was done between the last call and the next.
    fn suffer(&mut self) {
        while let Some((at, damage)) = self.journal.damage.get(self.damaged).cloned()
            && at == self.at
        {
            self.damaged += 1;
            match damage {
                Damage::Flip { inode, offset, xor } => self.flip(inode, offset, xor),
                Damage::Put { name, inode, bytes } => {
                    self.settle_names(name.0);
                    if inode == self.durable.next_inode() {
                        self.add_inode();
                    }
                    self.writes[inode.0].clear();
                    *self.durable.content_mut(inode) = bytes.to_vec();
                    self.durable.names.insert(name, inode);
                }
            }
        }
    }

    /// Flips bits in the durable byte and in every pending version of it: whichever survives is damaged.
    fn flip(&mut self, inode: Inode, offset: usize, xor: u8) {
        if offset < self.durable.content(inode).len() {
            self.durable.content_mut(inode)[offset] ^= xor;
        }
        for (_, write) in &mut self.writes[inode.0] {
            if (write.offset..write.end()).contains(&offset) {
                Arc::make_mut(&mut write.bytes)[offset - write.offset] ^= xor;
            }
        }
    }
}

/// A disk being put together from what a crash has left.
#[derive(Default)]
struct Found {
    tree: Tree,
    /// The new number of each file that was met.
    numbers: Vec<Option<Inode>>,
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::tests::{ALL, SYNCED, disk_with, files, names, now, wild_run};
    use super::*;
    use crate::fs::Fs;

    #[test]
    fn a_random_image_is_a_pure_function_of_its_seed() {
        let runs = [SimFs::new(), SimFs::new()];
        runs.iter().for_each(|disk| wild_run(disk, 1, 150));
        let mut walks = runs.each_ref().map(SimFs::images);
        let mut kinds = BTreeSet::new();
        while walks.iter_mut().all(Images::advance) {
            for seed in 0..10 {
                let policy = CrashPolicy::Random { seed };
                let [one, other] = walks.each_ref().map(|walk| files(&walk.image(&policy)));
                assert_eq!(one, other);
                assert_eq!(one, files(&runs[0].image(walks[0].at(), &policy)), "walked or replayed is the same");
                kinds.insert(one);
            }
        }
        assert!(kinds.len() > 200, "{}", kinds.len());
    }

    #[test]
    fn a_write_is_torn_at_every_sector_from_both_sides() {
        let (disk, file) = disk_with(&[b'o'; 1024]);
        file.write_at(&[b'n'; 1500], 512).unwrap();
        let mut images = disk.images();
        images.advance_to(disk.calls());
        let call = disk.calls() - 1;
        let torn = |sectors| CrashPolicy::Torn { call, sectors };
        assert_eq!(
            images.systematic(),
            [CrashPolicy::Synced, CrashPolicy::All, CrashPolicy::Without { call }]
                .into_iter()
                .chain([torn(0..1), torn(1..3), torn(0..2), torn(2..3)])
                .collect::<Vec<_>>()
        );
        let found = |sectors| {
            let bytes = images.image(&torn(sectors)).read_file("a").unwrap();
            let letters: String = bytes.chunks(512).map(|sector| sector[0] as char).collect();
            (bytes.len(), letters.replace('\0', "0"))
        };
        assert_eq!(found(0..1), (1024, "on".to_owned()));
        assert_eq!(found(0..2), (1536, "onn".to_owned()));
        assert_eq!(found(1..3), (2012, "oonn".to_owned()));
        assert_eq!(found(2..3), (2012, "oo0n".to_owned()));
        assert_eq!(found(0..3), (2012, "onnn".to_owned()));
    }

    #[test]
    fn each_pending_call_can_be_lost_alone() {
        let (disk, file) = disk_with(b"a");
        let first = disk.calls();
        file.write_at(b"A", 0).unwrap();
        disk.create("b").unwrap().write_at(b"b", 0).unwrap();
        disk.rename("b", "c").unwrap();
        let mut images = disk.images();
        images.advance_to(disk.calls());
        assert_eq!(images.pending(), [first, first + 1, first + 2, first + 3]);
        let without = |call| {
            let found = files(&images.image(&CrashPolicy::Without { call: first + call }));
            found.iter().map(|(name, bytes)| format!("{name}={} ", bytes.escape_ascii())).collect::<String>()
        };
        assert_eq!(without(0), "a=a c=b ");
        assert_eq!(without(1), "a=A c=b ", "the rename alone names the file");
        assert_eq!(without(2), "a=A c= ");
        assert_eq!(without(3), "a=A b=b ");
    }

    #[test]
    fn an_image_is_a_disk_of_its_own_that_can_crash_again() {
        let (disk, file) = disk_with(b"first");
        file.write_at(b"second", 5).unwrap();
        let image = now(&disk, ALL);
        let before = files(&disk);
        assert_eq!(image.calls(), 0);
        assert_eq!(files(&image.image(0, SYNCED)), before, "what was found is durable");

        image.create("b").unwrap().write_at(b"recovery", 0).unwrap();
        image.remove("a").unwrap();
        assert_eq!(files(&disk), before, "what happens on the image does not reach the disk it came from");
        assert_eq!(files(&now(&image, SYNCED)), before);
        assert_eq!(names(&now(&image, ALL)), "b");
        assert_eq!(names(&now(&now(&image, &CrashPolicy::Without { call: 2 }), SYNCED)), "a b");
        file.write_at(b"later", 0).unwrap();
        assert_eq!(image.image(0, ALL).read_file("a").unwrap(), b"firstsecond");
    }

    #[test]
    fn an_image_shares_what_no_pending_write_changed() {
        let (disk, _) = disk_with(b"");
        disk.write_file("big", vec![1; 1 << 20]);
        let file = disk.create("small").unwrap();
        file.write_at(b"x", 0).unwrap();
        let mut images = disk.images();
        images.advance_to(disk.calls());
        // 10,000 copies of a MiB would take ten gigabytes.
        let all: Vec<SimFs> = (0..10_000).map(|seed| images.image(&CrashPolicy::Random { seed })).collect();
        assert!(all.iter().all(|image| image.open("big").unwrap().len().unwrap() == 1 << 20));
    }
}
