//! Pure functions over bytes: the alphabet that every file format is written in.

pub(crate) mod crc;
pub(crate) mod cursor;
pub mod rng;
pub mod slice;
pub(crate) mod varint;

pub use rng::Rng;
pub use slice::Slice;
