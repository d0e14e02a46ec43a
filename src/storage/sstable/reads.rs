//! What point reads came to, counted by whoever reads.

/// Point reads of the tables of a level, and what they came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Reads {
    /// Tables that were asked for a key.
    pub asked: u64,
    /// Of those, how many had a filter that said "surely not here".
    pub filtered: u64,
    /// Of the others, how many had the key all the same not, or only newer versions of it.
    pub false_positives: u64,
    /// Data blocks that were looked into and cached.
    pub cached_blocks: u64,
    /// Data blocks that were read from the file.
    pub read_blocks: u64,
    /// Partitions of index and filter that were read from the file.
    pub read_indexes: u64,
}

impl Reads {
    /// All counters, in the order of the fields.
    pub(crate) const COUNTERS: usize = 6;

    pub(crate) fn to_array(self) -> [u64; Reads::COUNTERS] {
        let Reads { asked, filtered, false_positives, cached_blocks, read_blocks, read_indexes } = self;
        [asked, filtered, false_positives, cached_blocks, read_blocks, read_indexes]
    }

    pub(crate) fn from_array(counters: [u64; Reads::COUNTERS]) -> Reads {
        let [asked, filtered, false_positives, cached_blocks, read_blocks, read_indexes] = counters;
        Reads { asked, filtered, false_positives, cached_blocks, read_blocks, read_indexes }
    }
}
