//! Which of the many disks that a power loss may leave.

use std::ops::Range;

use super::journal::Write;
use crate::codec::Rng;

/// Decides what becomes of everything that was issued and not synced. Calls are named by their number in the journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CrashPolicy {
    /// Only what was surely durable.
    Synced,
    /// Everything issued: what a killed process leaves behind on a machine that runs on.
    All,
    /// Everything issued but this one call: the change that the system got to last.
    Without {
        /// The write, create, rename or remove that is lost.
        call: usize,
    },
    /// Everything issued, but one write is torn: of its sectors only these are new, the others stay as they were. The
    /// file is no longer than they need.
    Torn {
        /// The write.
        call: usize,
        /// Which of the sectors that it touches arrived, counted from its first.
        sectors: Range<usize>,
    },
    /// Each call is decided at random: a pure function of the journal, the point in it and the seed.
    Random {
        /// Any number will do.
        seed: u64,
    },
}

/// What becomes of a write.
pub(super) enum Fate {
    Lost,
    Kept,
    /// One entry a sector. With `whole_length` the file is extended to the write's end even where nothing arrived.
    Mixed {
        sectors: Vec<Sector>,
        whole_length: bool,
    },
}

/// What is found in a sector that was being written.
#[derive(Clone, Copy)]
pub(super) enum Sector {
    New,
    Old,
    Zeros,
    /// Bytes of another file, named by a random number: the block was somebody else's before.
    Stale(u64),
}

/// How likely a change is kept, in percent. One is drawn for each image, since fair coins alone would hardly ever show
/// the disk on which nearly nothing or nearly everything arrived.
const MOODS: [u64; 5] = [0, 15, 50, 85, 100];

/// A policy at work on one image.
pub(super) struct Judge<'a> {
    policy: &'a CrashPolicy,
    rng: Rng,
    names_kept: u64,
    writes_kept: u64,
}

impl<'a> Judge<'a> {
    pub(super) fn new(policy: &'a CrashPolicy) -> Judge<'a> {
        let mut rng = Rng::new(if let CrashPolicy::Random { seed } = policy { *seed } else { 0 });
        let names_kept = *rng.pick(&MOODS);
        let writes_kept = *rng.pick(&MOODS);
        Judge { policy, rng, names_kept, writes_kept }
    }

    /// Whether a create, rename or remove has reached the disk.
    pub(super) fn keeps_name(&mut self, call: usize) -> bool {
        match self.policy {
            CrashPolicy::Synced => false,
            CrashPolicy::All | CrashPolicy::Torn { .. } => true,
            CrashPolicy::Without { call: lost } => call != *lost,
            CrashPolicy::Random { .. } => self.rng.chance(self.names_kept, 100),
        }
    }

    pub(super) fn fate(&mut self, call: usize, write: &Write) -> Fate {
        match self.policy {
            CrashPolicy::Synced => Fate::Lost,
            CrashPolicy::Without { call: lost } if call == *lost => Fate::Lost,
            CrashPolicy::Torn { call: torn, sectors } if call == *torn => only(write, sectors, false),
            CrashPolicy::All | CrashPolicy::Without { .. } | CrashPolicy::Torn { .. } => Fate::Kept,
            CrashPolicy::Random { .. } => self.random_fate(write),
        }
    }

    fn random_fate(&mut self, write: &Write) -> Fate {
        if self.rng.chance(self.writes_kept, 100) {
            return Fate::Kept;
        }
        let whole_length = self.rng.chance(1, 2);
        let count = write.sectors();
        match self.rng.below(4) {
            0 => Fate::Lost,
            // Lost bytes, but perhaps not the length.
            1 => only(write, &(0..0), whole_length),
            // Written in order, and not to the end.
            2 => only(write, &(0..self.rng.below(count as u64) as usize), whole_length),
            _ => Fate::Mixed { sectors: (0..count).map(|_| self.random_sector()).collect(), whole_length },
        }
    }

    fn random_sector(&mut self) -> Sector {
        match self.rng.below(6) {
            0..=2 => Sector::New,
            3 => Sector::Old,
            4 => Sector::Zeros,
            _ => Sector::Stale(self.rng.next_u64()),
        }
    }
}

fn only(write: &Write, new: &Range<usize>, whole_length: bool) -> Fate {
    let sector = |nth| if new.contains(&nth) { Sector::New } else { Sector::Old };
    Fate::Mixed { sectors: (0..write.sectors()).map(sector).collect(), whole_length }
}
