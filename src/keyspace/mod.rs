//! The data model over ordered bytes: databases, types, expiry. Knows no command names.

use crate::engine::Db;

/// All databases over one engine.
pub(crate) struct Keyspace {
    pub(crate) db: Db,
}

impl Keyspace {
    pub(crate) fn new(db: Db) -> Keyspace {
        Keyspace { db }
    }
}
