//! Back-pressure: writers are slowed down as the tree falls behind, by a delay that grows with how far, so that no
//! writer meets a wall.
//!
//! | sign | from | to | delay of one write |
//! |---|---|---|---|
//! | tables in level 0 | [`L0_SOFT`] | [`L0_HARD`] | 0 to [`MAX_DELAY`] |
//! | sealed memtables | all but one of [`MAX_SEALED`] | all | waits for a flush, which bounds the memory |
//!
//! A delayed thread sleeps; it never holds a lock meanwhile.

use std::time::{Duration, Instant};

use super::flush::MAX_SEALED;
use super::shared::{Job, Shared};
use super::stats::add;
use super::{Error, Result, Strategy};

/// Tables in level 0 from which on writes are slowed down: three rounds of compaction behind.
pub(crate) const L0_SOFT: usize = 12;

/// Tables in level 0 at which the delay is greatest.
pub(crate) const L0_HARD: usize = 36;

/// The longest delay of one write by the ramp.
pub(crate) const MAX_DELAY: Duration = Duration::from_millis(2);

/// Waiting for a flush is checked again at least this often, should the wait depend on something that tells nobody.
const FLUSH_WAIT: Duration = Duration::from_millis(50);

/// The delay of one write when level 0 has `tables` tables: a ramp whose square makes its start gentle.
fn delay(tables: usize) -> Duration {
    let over = tables.saturating_sub(L0_SOFT).min(L0_HARD - L0_SOFT) as f64 / (L0_HARD - L0_SOFT) as f64;
    MAX_DELAY.mul_f64(over * over)
}

impl Shared {
    /// Called before a write takes any lock.
    pub(crate) fn slow_down(&self) -> Result<()> {
        if self.options.stepped {
            return Ok(());
        }
        let state = self.state();
        // Where nothing is merged, level 0 is where the tables belong.
        let tables = match self.options.compaction {
            Strategy::Fifo { .. } => 0,
            Strategy::Leveled | Strategy::Tiered => state.version.levels[0].len(),
        };
        if tables <= L0_SOFT && state.sealed.len() < MAX_SEALED {
            return Ok(());
        }
        drop(state);
        let started = Instant::now();
        let delay = delay(tables);
        if !delay.is_zero() {
            std::thread::sleep(delay);
        }
        let result = self.wait_for_flush();
        add(&self.counters.delayed_writes, 1);
        add(&self.counters.delayed_us, started.elapsed().as_micros() as u64);
        result
    }

    /// Waits while as many memtables as may are waiting to be flushed: memory is bounded whatever the disk does. If it
    /// takes no tables at the moment, the write is refused instead: nobody knows how long that will last.
    fn wait_for_flush(&self) -> Result<()> {
        let mut progress = self.progress.lock();
        while self.state().sealed.len() >= MAX_SEALED
            && !self.is_stopping()
            && self.commit.writer().check_open().is_ok()
        {
            if let Some(why) = progress.error_of(Job::Flush) {
                return Err(Error::ReadOnly(why.to_owned()));
            }
            // What the flush waits for may be a sync that nobody has asked for yet.
            self.commit.log_work.notify();
            self.progressed.wait_for(&mut progress, FLUSH_WAIT);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ramp_starts_gently_and_ends_at_its_bound() {
        assert_eq!(delay(0), Duration::ZERO);
        assert_eq!(delay(L0_SOFT), Duration::ZERO);
        assert!(delay(L0_SOFT + 1) < MAX_DELAY / 100);
        assert!((L0_SOFT..L0_HARD).all(|tables| delay(tables) < delay(tables + 1)));
        assert_eq!(delay(L0_HARD), MAX_DELAY);
        assert_eq!(delay(usize::MAX), MAX_DELAY);
    }
}
