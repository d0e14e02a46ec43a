//! How many keys each database has, for INFO: exact when counted, and counted again only when that is cheap.
//!
//! Counting walks the database. So that INFO may be asked every second of a database with 100 million keys, a count
//! is answered again until it is older than [`PATIENCE`] times what it cost.

use std::time::{Duration, Instant};

use super::range::Order;
use super::{Database, MAX_DATABASES, Result};
use crate::engine::{Outcome, SeqNo};

/// Counting takes at most one part in so many of one thread's time.
const PATIENCE: u32 = 20;

/// What a database holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Census {
    pub(crate) keys: u64,
    /// Keys that expire.
    pub(crate) expiring: u64,
    /// How long those have left on average, in milliseconds.
    pub(crate) average_ttl_ms: u64,
}

/// The last count of each database.
#[derive(Default)]
pub(super) struct Counts {
    counts: Vec<Option<Counted>>,
}

#[derive(Clone, Copy)]
struct Counted {
    census: Census,
    seq: SeqNo,
    at: Instant,
    cost: Duration,
}

impl Database<'_> {
    /// What this database holds, or held a short while ago.
    pub(crate) fn census(&self) -> Result<Outcome<Census>> {
        let known = self.keyspace.counts.lock().counts.get(usize::from(self.number)).copied().flatten();
        let counted = match known {
            Some(counted) if counted.at.elapsed() < counted.cost * PATIENCE => counted,
            // Not under the lock: others may then count at the same time, but nobody waits for a count not its own.
            _ => {
                let counted = self.take_census()?;
                let counts = &mut self.keyspace.counts.lock().counts;
                counts.resize(MAX_DATABASES.into(), None);
                counts[usize::from(self.number)] = Some(counted);
                counted
            }
        };
        Ok(Outcome { value: counted.census, seq: counted.seq })
    }

    fn take_census(&self) -> Result<Counted> {
        let started = Instant::now();
        let now = self.db().now();
        let mut census = Census::default();
        let mut total_ttl = 0u128;
        let mut entries = self.entries(&self.between(None, None), Order::Forward);
        for entry in &mut entries {
            let (_, value) = entry?;
            census.keys += 1;
            if let Some(at) = value.expires_at {
                census.expiring += 1;
                total_ttl += u128::from(at.saturating_sub(now));
            }
        }
        census.average_ttl_ms = total_ttl.checked_div(u128::from(census.expiring)).unwrap_or(0) as u64;
        Ok(Counted { census, seq: entries.seq, at: Instant::now(), cost: started.elapsed() })
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Fixture, START};
    use super::super::{Lifetime, SetOptions};
    use super::*;

    #[test]
    fn counts_are_exact_and_a_dear_one_is_answered_again() {
        let fixture = Fixture::new();
        let database = fixture.keyspace.database(7);
        database.put(b"a", b"").unwrap();
        for (key, ttl) in [(b"b", 100), (b"c", 300)] {
            let options = SetOptions { lifetime: Lifetime::Until(START + ttl), ..SetOptions::default() };
            database.set(key, b"", options).unwrap();
        }
        let census = Census { keys: 3, expiring: 2, average_ttl_ms: 200 };
        assert_eq!(database.take_census().unwrap().census, census);
        let dear = Counted { cost: Duration::from_secs(60), ..database.take_census().unwrap() };
        fixture.keyspace.counts.lock().counts.resize(MAX_DATABASES.into(), Some(dear));
        database.put(b"d", b"").unwrap();
        assert_eq!(database.census().unwrap().value, census);
        assert_eq!(database.take_census().unwrap().census.keys, 4);
    }
}
