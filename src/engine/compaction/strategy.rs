//! The strategies of compaction that an application can choose from.

use std::time::Duration;

/// How tables are merged: what is saved of writing, reading and space, each at the cost of the others. A database may be
/// opened with another strategy than before; its tables get to the shape of the new one step by step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Strategy {
    /// Each level is ten times as large as the one above it, the last one holds nine tenths of everything: little space,
    /// few tables to ask, about ten bytes written for each byte that comes in.
    #[default]
    Leveled,
    /// Tables are merged with those of about their size: fewer bytes written, more tables to ask, and up to twice the
    /// space.
    Tiered,
    /// Nothing is merged: the oldest tables are dropped whole. For data that is worth nothing after a while; what is
    /// overwritten or deleted takes space until it has its age. The limits hold whoever reads: a snapshot does not keep
    /// what is dropped, a range that is being read does.
    Fifo {
        /// A table goes when everything in it was flushed this long ago.
        max_age: Option<Duration>,
        /// The oldest tables go while all together have more bytes than this.
        max_bytes: Option<u64>,
    },
}
