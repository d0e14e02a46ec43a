//! The thread that deletes what has expired.
//!
//! Expired keys are invisible at once and are dropped by compaction; this makes them real, logged deletes in between,
//! so that feeds see them and memory comes back.

use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::connection::House;
use super::shutdown::Shutdown;

/// Deletes at a time: short enough not to hold up a foreground write noticeably.
const STEP: usize = 200;

/// The pause after a step that found something, and the one when nothing expires.
const BUSY: Duration = Duration::from_millis(100);
const IDLE: Duration = Duration::from_secs(1);

/// Starts the thread; it ends with the server.
pub(crate) fn start(house: Arc<House>, shutdown: Shutdown) -> io::Result<JoinHandle<()>> {
    thread::Builder::new().name("expiry".into()).spawn(move || {
        let mut pause = BUSY;
        while !shutdown.sleep(pause) {
            pause = match house.keyspace.sweep(house.keyspace.db.now(), STEP) {
                // More is due now: on at once, but a breath for the others.
                Ok(swept) if swept.more => Duration::from_millis(1),
                Ok(swept) if swept.expired + swept.outdated > 0 => BUSY,
                // Back off step by step, so that a key that expires soon after is not late.
                Ok(_) => (pause * 2).clamp(BUSY, IDLE),
                Err(error) => {
                    tracing::warn!(%error, "expired keys could not be deleted");
                    IDLE
                }
            };
        }
    })
}
