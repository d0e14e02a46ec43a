//! The sequence number: the one clock of the system.

/// A position in the history of the database: one for each write, never reused. The one clock of the system.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SeqNo(pub u64);

impl SeqNo {
    /// Later than every write: reading as of it sees the newest version.
    pub const MAX: SeqNo = SeqNo(u64::MAX);
}

impl std::fmt::Display for SeqNo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}
