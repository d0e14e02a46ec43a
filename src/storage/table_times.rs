//! What the manifest keeps of the times in a table, so that none is opened to find out what of it has expired.

/// When a table's entries were written and when they expire; all times are milliseconds since 1970.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct TableTimes {
    /// When the newest of them was flushed.
    pub(crate) written: Option<u64>,
    /// How many of them expire ...
    pub(crate) expiring: u64,
    /// ... and until when a quarter, a half, three quarters and all of those have, about. Each is the expiry of an entry
    /// of the table.
    pub(crate) quartiles: [u64; 4],
}

impl TableTimes {
    /// How many entries have expired by `now`, about; if not 0, then at least one.
    pub(crate) fn expired(&self, now: u64) -> u64 {
        let quarters = self.quartiles.iter().filter(|at| **at <= now).count() as u64;
        (self.expiring * quarters).div_ceil(4)
    }
}
