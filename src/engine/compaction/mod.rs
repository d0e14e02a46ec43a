//! Compaction: which tables to merge, and merging them.
//!
//! | file | what it holds |
//! |---|---|
//! | [`strategy`] | what an application can choose |
//! | [`task`] | a compaction to be done: merge, move or drop |
//! | [`pick`] | which task is next: a pure function of version, options, time, retention floor and whether it is idle |
//! | [`leveled`], [`tiered`], [`fifo`] | what each strategy finds due |
//! | [`deleted`] | tables of which range tombstones have left nothing |
//! | [`garbage`] | tables full of deletes, overwritten versions and expired values |
//! | [`values`] | blob files full of garbage |
//! | [`damage`] | what is left to do round damaged tables |
//! | [`run`] | doing a task, in one edit of the manifest |
//! | [`rewrite`] | merging tables into new ones, in parts side by side |
//!
//! One compaction runs at a time, so its inputs stay in the version until its own edit removes them; only flushes come
//! in between, and they add to level 0 what is newer than every input.

mod damage;
mod deleted;
mod fifo;
mod garbage;
mod leveled;
mod pick;
mod rewrite;
mod run;
mod strategy;
mod task;
#[cfg(test)]
mod tests;
mod tiered;
mod values;

pub(crate) use leveled::{debt, replacing};
pub use strategy::Strategy;
pub(crate) use task::Why;
