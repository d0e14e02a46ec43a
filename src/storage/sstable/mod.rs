//! SSTable: a sorted, immutable file of entries, written once from front to back and then only read.
//!
//! ```text
//! +--------+------+-----+------+-----------+-----+-----------+----------+-----+------------+--------+
//! | header | data | ... | data | partition | ... | partition | [ranges] | top | properties | footer |
//! +--------+------+-----+------+-----------+-----+-----------+----------+-----+------------+--------+
//! 0        16                                                                  file length - FOOTER_BYTES
//! ```
//!
//! The parts tile the file: each starts where the one before ends, so every byte is accounted for, and every byte is
//! either covered by a checksum or known exactly beforehand (the header). Each part between header and footer is a
//! stored block ([`super::frame`]) whose checksum covers its table and its place, so that a good block in the wrong place is
//! noticed as surely as a bad one.
//!
//! A point read asks the top for the only [`partition`] that can hold the answer, that one's [`filter`] ("surely not
//! here"), then its [`index`] for the only data block, then that [`block`]; and, where a table has some, its range
//! tombstones ([`ranges`]). Partitions and blocks come through the block cache; top and range tombstones stay in memory
//! while the table is open. `docs/format.md` has all grammars on one page.

mod block;
mod block_builder;
mod carve;
mod check;
mod cut;
mod dump;
mod filter;
mod footer;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod index;
mod iter;
mod many;
mod options;
mod partition;
mod properties;
mod ranges;
mod reader;
mod reads;
mod salvage;
mod writer;

#[cfg(test)]
mod tests;

pub(crate) use block::Block;
pub(crate) use check::check;
pub(crate) use dump::dump;
pub(crate) use iter::{Backward, Forward};
pub(crate) use many::{Probe, get_cached};
pub use options::Compression;
pub(crate) use options::TableOptions;
pub(crate) use partition::Partition;
pub(crate) use properties::Properties;
pub(crate) use reader::{ReadMode, Table};
pub use reads::Reads;
pub(crate) use salvage::{Entry, Parts, Piece, Pieces};
pub(crate) use writer::{Bounds, TableMeta, TableWriter};

#[cfg(any(test, feature = "schedules"))]
pub(crate) use block_builder::one_entry_block;

use crate::storage::frame::{self, Malformed};
