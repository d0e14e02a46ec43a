//! How many files and sockets this process may have open.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What the engine (tables, log, locks), the standard streams and the server's own threads need besides the clients.
const OWN: u64 = 512;

/// Raises the soft limit to the hard one if `max_clients` need that: how many clients there can be.
pub(crate) fn make_room_for(max_clients: usize) -> usize {
    let needed = max_clients as u64 + OWN;
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current.is_none_or(|current| current >= needed) {
        return max_clients;
    }
    let raised = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).is_ok();
    let limit = if raised { maximum } else { current };
    let Some(limit) = limit.filter(|limit| *limit < needed) else { return max_clients };
    // With very few descriptors half of them serve clients; the listener copes with running out.
    let clients = limit.saturating_sub(OWN).max(limit / 2).max(1) as usize;
    tracing::warn!(limit, needed, clients, "too few file descriptors for --max-clients: raise `ulimit -n`");
    clients
}
