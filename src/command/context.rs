//! What a command's function is given besides its arguments.

use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::Instant;

use crate::engine::{Outcome, SeqNo};
use crate::keyspace::{Database, Keyspace};
use crate::protocol::Dialect;

/// Everything a command may look at or change.
pub(crate) struct Context<'a> {
    pub(crate) keyspace: &'a Keyspace,
    pub(crate) environment: &'a Environment,
    pub(crate) session: &'a mut Session,
    /// The newest position in history that the reply depends on: the connection holds the reply back until it is
    /// durable. Set to `SeqNo(0)` before each dispatch; functions raise it through [`Context::depends_on`].
    pub(crate) depends: SeqNo,
}

impl<'a> Context<'a> {
    /// The reply must not be sent before `seq` is durable.
    pub(crate) fn depends_on(&mut self, seq: SeqNo) {
        self.depends = self.depends.max(seq);
    }

    /// Takes a value out of what the keyspace answered: the reply now depends on what the value does.
    pub(crate) fn settle<T>(&mut self, outcome: Outcome<T>) -> T {
        self.depends_on(outcome.seq);
        outcome.value
    }

    /// The selected database.
    pub(crate) fn database(&self) -> Database<'a> {
        self.keyspace.database(self.session.database)
    }
}

/// How a command ends its conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// It is answered, then the connection is closed.
    Answered,
    /// That the connection is closed is the answer, as clients of Redis expect of SHUTDOWN.
    Unanswered,
}

/// What one connection has chosen.
#[derive(Debug)]
pub(crate) struct Session {
    /// Connection number, from 1, never reused.
    pub(crate) id: u64,
    /// The peer's address, as text.
    pub(crate) peer: String,
    /// How it is answered. The connection sets it from the first request; HELLO changes it.
    pub(crate) dialect: Dialect,
    /// The selected database.
    pub(crate) database: u8,
    /// CLIENT SETNAME, HELLO SETNAME.
    pub(crate) name: Vec<u8>,
    /// Set by a command after which nothing more is run.
    pub(crate) ending: Option<Ending>,
    /// CLIENT SETINFO LIB-NAME.
    pub(crate) library_name: Vec<u8>,
    /// CLIENT SETINFO LIB-VER.
    pub(crate) library_version: Vec<u8>,
}

impl Session {
    /// A connection that has chosen nothing yet.
    pub(crate) fn new(id: u64, peer: String) -> Session {
        Session {
            id,
            peer,
            dialect: Dialect::Text,
            database: 0,
            name: Vec::new(),
            ending: None,
            library_name: Vec::new(),
            library_version: Vec::new(),
        }
    }
}

/// What commands know of the server they run in. Counters are kept by the server floor.
pub(crate) struct Environment {
    pub(crate) started: Instant,
    pub(crate) started_at_unix_ms: u64,
    pub(crate) port: u16,
    pub(crate) databases: u8,
    pub(crate) connected_clients: AtomicU64,
    pub(crate) total_connections: AtomicU64,
    pub(crate) rejected_connections: AtomicU64,
    pub(crate) total_commands: AtomicU64,
    /// The configuration as CONFIG GET shows it: names as Redis has them where it has them.
    pub(crate) config: Vec<(String, String)>,
    /// Set by SHUTDOWN through `request_shutdown`.
    pub(crate) shutting_down: AtomicBool,
    /// Starts an orderly shutdown and returns at once.
    pub(crate) request_shutdown: Box<dyn Fn() + Send + Sync>,
}
