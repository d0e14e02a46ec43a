//! Pure functions over bytes: the alphabet that every file format is written in.

pub(crate) mod crc;
pub(crate) mod cursor;
pub(crate) mod defect;
pub(crate) mod hash;
#[cfg(test)]
pub(crate) mod heap;
pub mod rng;
mod seqno;
pub mod slice;
pub(crate) mod varint;

/// A list of rarely more than sixteen, which then takes no allocation.
pub(crate) type Few<T> = smallvec::SmallVec<[T; 16]>;

pub use rng::Rng;
pub use seqno::SeqNo;
pub use slice::Slice;
