//! A simulated disk that forgets what was not synced, and fails when told to.
//!
//! [`SimFs`] behaves like a directory while the machine runs. Beside that it keeps a journal of every call that changes
//! the disk, numbered from 0, so that after a run any power loss can be looked at: [`SimFs::image`] is the disk as it
//! might be found had the power gone after the first `at` calls. There is not one such disk but many; a [`CrashPolicy`]
//! chooses one.
//!
//! ```text
//!   calls        0       1      2     3      4       5        6       7
//!                create  write  sync  write  rename  syncdir  create  write
//!                                                                     ^ at = 8: power is lost here
//!   surely there [======================]    [================]
//!   undecided                           ?                     ?       ?
//! ```
//!
//! # The model
//!
//! Only what [`File`](super::File) and [`Fs`](super::Fs) promise holds, and nothing that a friendly file system adds:
//!
//! - A synced file's bytes and length are surely there, under whatever name of the file survives.
//! - Each write after that is kept, lost, or torn into sectors of [`SECTOR_BYTES`], independently of all others. A torn
//!   write leaves in each sector its new bytes, what was there before, zeros, or stale bytes that another file once had.
//!   Bytes that the write did not cover stay as they were. The length may grow although the bytes were lost; zeros
//!   appear then.
//! - Each create, rename and remove since the last directory sync is kept or lost, independently of all others. A rename
//!   is atomic: the file has one name, the old one or the new one. A file whose name was lost is gone, synced or not.
//! - A directory is a name like any other: if it is lost, so is all that is in it. A sync of one directory says nothing
//!   about the names in another.
//! - A sync that has returned is complete. A crash during a call needs no image of its own: a call that is half done is
//!   either still pending (then `at` behind it, and the policy tears it), or a sync (then `at` before it, and the policy
//!   keeps some of what it would have made sure).
//! - A process that is killed while the machine runs on loses nothing: that is [`CrashPolicy::All`].
//!
//! An image is a [`SimFs`] of its own, with a journal from 0 and no faults, unlocked; so a crash during the recovery
//! from a crash is one more image. To look at many images of one run, walk [`SimFs::images`]: a step costs what one
//! call costs, and an image shares every unchanged file with the disk it was taken from.
//!
//! Faults are armed with [`SimFs::fail`], damage is done with [`SimFs::corrupt`] and [`SimFs::write_file`].

mod disk;
mod fault;
mod images;
mod journal;
mod new_directory;
mod policy;
#[cfg(test)]
mod tests;
mod tree;

pub use disk::SimFs;
pub use fault::{CallKind, Effect, Errno, Fault, Times};
pub use images::Images;
pub use journal::SECTOR_BYTES;
pub use policy::CrashPolicy;
