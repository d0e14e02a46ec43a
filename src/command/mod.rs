//! What a client may ask: one table row and one function per command. Knows no RESP and no socket.

mod context;

pub(crate) use context::{Context, Environment, Session};

use crate::protocol::{Reply, Request};

/// Runs one request: looks it up, checks arity, and calls its function.
pub(crate) fn dispatch(_context: &mut Context<'_>, _request: &Request<'_>) -> Reply {
    Reply::error("ERR not yet")
}

/// For the text dialect: which argument of this command (its name is word 0) is a value that takes the rest of the
/// line, if any.
pub(crate) fn tail_argument(_name: &[u8]) -> Option<usize> {
    None
}
