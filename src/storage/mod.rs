//! One file format per module: what the bytes are, who writes them, who reads them, and a dump for people. When files
//! are written, renamed and removed is the engine's business.

mod cache;
mod entry;
mod error;
pub(crate) mod sstable;
#[cfg(test)]
mod testing;

pub(crate) use cache::BlockCache;
pub(crate) use entry::{Kind, TableId, Version};
pub(crate) use error::{Error, Result};
