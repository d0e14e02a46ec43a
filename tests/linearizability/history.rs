//! A history: what was asked of one key and what was answered, each with its place in the order of all events.

use std::fmt;

use super::register::{Operation, Reply, State, shown_state};

/// A place in the order of events: a count, no time of a clock.
pub type Moment = u64;

/// How a call ended.
#[derive(Clone, Debug)]
pub enum End {
    /// It took effect between its beginning and `at`, once.
    Answered { at: Moment, reply: Reply },
    /// Nobody knows. It took effect until then, once, or it never will: what was in flight when the server was killed must
    /// not come back out of what another life makes of the files.
    Unknown { until: Moment },
}

/// Nothing bounds it: it may take effect at any later time.
pub const ANY_TIME: Moment = Moment::MAX;

/// One operation of one client.
#[derive(Clone, Debug)]
pub struct Call {
    /// A connection. What it has sent earlier takes effect earlier, though it be sent in one pipeline; so what comes
    /// behind a call that never took effect never does either.
    pub session: u64,
    pub begun: Moment,
    pub operation: Operation,
    pub end: End,
}

impl Call {
    /// When it can still take effect.
    pub fn last_moment(&self) -> Moment {
        match self.end {
            End::Answered { at, .. } => at,
            End::Unknown { until } => until,
        }
    }

    /// Whether it changed nothing for sure: a history without it has an explanation if one with it has.
    pub fn is_idle(&self) -> bool {
        self.reply().map_or(!self.operation.writes(), |reply| self.operation.changed_nothing(reply))
    }

    pub fn reply(&self) -> Option<&Reply> {
        match &self.end {
            End::Answered { reply, .. } => Some(reply),
            End::Unknown { .. } => None,
        }
    }
}

/// All calls on one key, by their beginning.
#[derive(Clone, Debug)]
pub struct History {
    /// What the key held before.
    pub before: State,
    calls: Vec<Call>,
}

impl History {
    pub fn new(before: State, mut calls: Vec<Call>) -> History {
        calls.sort_by_key(|call| call.begun);
        History { before, calls }
    }

    pub fn calls(&self) -> &[Call] {
        &self.calls
    }

    /// The history as it was known at a moment: what was answered later was unknown then.
    pub fn upto(&self, moment: Moment) -> History {
        let begun = self.calls.iter().filter(|call| call.begun <= moment);
        let calls = begun.map(|call| match call.end {
            End::Answered { at, .. } if at > moment => Call { end: End::Unknown { until: ANY_TIME }, ..call.clone() },
            End::Unknown { until } if until > moment => Call { end: End::Unknown { until: ANY_TIME }, ..call.clone() },
            _ => call.clone(),
        });
        History { before: self.before.clone(), calls: calls.collect() }
    }

    pub fn without(&self, at: usize) -> History {
        let mut shorter = self.clone();
        shorter.calls.remove(at);
        shorter
    }

    /// All events, in order.
    pub fn moments(&self) -> Vec<Moment> {
        let mut moments: Vec<Moment> = self.calls.iter().flat_map(|call| [call.begun, call.last_moment()]).collect();
        moments.sort_unstable();
        moments.dedup();
        moments.retain(|moment| *moment != ANY_TIME);
        moments
    }
}

impl fmt::Display for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "      before: {}", shown_state(&self.before))?;
        for Call { session, begun, operation, end } in &self.calls {
            write!(f, "  {begun:>8} to ")?;
            match end {
                End::Answered { at, reply } => writeln!(f, "{at:>8}  client {session:<6} {operation} -> {reply}")?,
                End::Unknown { until: ANY_TIME } => writeln!(f, "       ?  client {session:<6} {operation}")?,
                End::Unknown { until } => {
                    writeln!(f, "{until:>8}? client {session:<6} {operation}")?;
                }
            }
        }
        Ok(())
    }
}
