//! What one connection, and all together, may cost.

use std::time::Duration;

/// Limits on connections. On by default; the numbers are in the reach of any honest client.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// A connection that asks nothing for this long is closed.
    pub(crate) idle: Option<Duration>,
    /// A request that has begun to arrive is given up when nothing more of it comes for this long, or when it takes
    /// longer than [`Limits::for_request`] in all.
    pub(crate) incomplete: Duration,
    /// A client that owes the server the reading of this many bytes of replies is not read from until it has caught
    /// up.
    pub(crate) output: usize,
    /// A client that takes nothing of what waits for it for this long is closed.
    pub(crate) stuck: Duration,
    /// See [`super::budget::Budget`].
    pub(crate) output_in_all: usize,
}

/// How long a client may take nothing of its output while [`Limits::output_in_all`] is exceeded: long enough for a
/// round trip around the world, short enough that the others hardly notice.
pub(crate) const STUCK_OVER_BUDGET: Duration = Duration::from_secs(1);

/// Bytes a second that a request must come at once it has taken [`Limits::incomplete`]: slower than any
/// network that people still use, so that a large value may take its time; but a byte now and then does not hold a thread
/// for ever.
pub(crate) const SLOWEST_REQUEST: usize = 1 << 10;

/// Gathered replies are passed on at this size even if the batch goes on: more would not fit a socket buffer anyway,
/// and a pipeline of large reads must not pile up in memory.
pub(crate) const FLUSH_BYTES: usize = 64 << 10;

/// A buffer that is larger than this is given back when its connection goes idle: 10,000 idle connections must cost
/// next to nothing.
pub(crate) const KEEP_BYTES: usize = 2 << 10;

impl Limits {
    /// How long a request may take of which `received` bytes are there.
    pub(crate) fn for_request(&self, received: usize) -> Duration {
        self.incomplete + Duration::from_secs((received / SLOWEST_REQUEST) as u64)
    }

    /// How long a client may take nothing of what waits for it.
    pub(crate) fn patience(&self, over_budget: bool) -> Duration {
        if over_budget { self.stuck.min(STUCK_OVER_BUDGET) } else { self.stuck }
    }
}
