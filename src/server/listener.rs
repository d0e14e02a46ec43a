//! The accept loop.
//!
//! One thread polls the listening sockets and the shutdown bell, and gives each client a thread of its own. Being out
//! of descriptors, threads or places is answered or waited out, never spun on and never fatal.

use std::fs::File;
use std::io;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, SocketFlags, acceptfrom_with, recv, send, sockopt};
use socket2::{Domain, Protocol, Socket, Type};

use super::clients::Clients;
use super::connection::{Connection, House};
use super::drainer::Drainer;
use super::outbox::Outbox;
use super::shutdown::Shutdown;

/// Connections that the kernel completes and keeps until they are accepted: a thundering herd of clients that
/// reconnect at once. The kernel clips it to its own limit.
const BACKLOG: i32 = 1024;

/// A connection's stack. Command functions keep their data on the heap; the rest is for the depth of calls into the
/// engine. Only touched pages cost memory: 10,000 of these are 5 GiB of address space and little else.
const STACK_BYTES: usize = 512 << 10;

/// Descriptors to give up where there are no others. One is enough to send a client away; but what is given up the engine
/// may take instead, for the few files that it needs to flush and to go on with its log.
const RESERVED: usize = 8;

/// When nobody can be accepted although somebody waits.
const BACK_OFF: Duration = Duration::from_millis(100);

/// Accepts clients until shutdown.
pub(crate) struct Listener {
    socket: TcpListener,
    house: Arc<House>,
    clients: Arc<Clients>,
    drainer: Arc<Drainer>,
    shutdown: Shutdown,
    max_clients: usize,
    /// See [`RESERVED`].
    reserve: Vec<File>,
    next_id: u64,
}

/// Takes the first address that `host` stands for. Clients cannot connect before [`listen`].
pub(crate) fn bind(host: &str, port: u16) -> io::Result<Socket> {
    let address = (host, port).to_socket_addrs()?.next().ok_or(io::ErrorKind::AddrNotAvailable)?;
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // After a restart, the old connections' remains must not keep the address.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

/// Lets clients connect: the address, with the port that was taken for port 0.
pub(crate) fn listen(socket: &Socket) -> io::Result<SocketAddr> {
    socket.listen(BACKLOG)?;
    socket.local_addr()?.as_socket().ok_or_else(|| io::ErrorKind::AddrNotAvailable.into())
}

impl Listener {
    pub(crate) fn new(
        socket: TcpListener,
        house: Arc<House>,
        clients: Arc<Clients>,
        drainer: Arc<Drainer>,
        shutdown: Shutdown,
        max_clients: usize,
    ) -> Listener {
        let mut reserve = Vec::new();
        fill(&mut reserve);
        Listener { socket, house, clients, drainer, shutdown, max_clients, reserve, next_id: 1 }
    }

    /// Starts the thread.
    pub(crate) fn start(self) -> io::Result<JoinHandle<()>> {
        thread::Builder::new().name("listener".into()).spawn(move || self.run())
    }

    fn run(mut self) {
        while !self.shutdown.is_requested() {
            let mut polled =
                [PollFd::new(&self.socket, PollFlags::IN), PollFd::new(self.shutdown.wake().source(), PollFlags::IN)];
            match poll(&mut polled, None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => self.back_off("cannot wait for clients", error),
            }
            self.accept_all();
        }
    }

    /// Accepts whoever waits.
    fn accept_all(&mut self) {
        while !self.shutdown.is_requested() {
            match acceptfrom_with(&self.socket, SocketFlags::CLOEXEC) {
                Ok((socket, peer)) => {
                    let peer = peer.and_then(|peer| SocketAddr::try_from(peer).ok());
                    self.welcome(socket, peer.map_or_else(|| "?".to_owned(), |peer| peer.to_string()));
                }
                Err(Errno::AGAIN) => return,
                Err(Errno::MFILE | Errno::NFILE) => return self.refuse_without_descriptor(),
                Err(error @ (Errno::NOBUFS | Errno::NOMEM)) => return self.back_off("cannot accept a client", error),
                // The client was gone before it was its turn (Linux passes on what happened to it).
                Err(error) => tracing::debug!(%error, "a client left before it was accepted"),
            }
        }
    }

    fn welcome(&mut self, socket: OwnedFd, peer: String) {
        let environment = &self.house.environment;
        if self.clients.len() >= self.max_clients {
            environment.rejected_connections.fetch_add(1, Ordering::Relaxed);
            tracing::debug!(peer, limit = self.max_clients, "max number of clients reached");
            return refuse(&socket, b"-ERR max number of clients reached\r\n");
        }
        // Neither matters enough to refuse a client over it.
        let _ = sockopt::set_tcp_nodelay(&socket, true);
        let _ = sockopt::set_socket_keepalive(&socket, true);
        let id = self.next_id;
        self.next_id += 1;
        let db = self.house.keyspace.db.clone();
        let outbox = Outbox::new(socket, self.drainer.clone(), Box::new(move |seq| db.is_durable(seq)));
        let guest = Guest::enter(self.house.clone(), self.clients.clone(), id, outbox.clone());
        let connection = Connection::new(self.house.clone(), outbox.clone(), id, peer);
        let spawned = thread::Builder::new().name(format!("client-{id}")).stack_size(STACK_BYTES).spawn(move || {
            let _guest = guest;
            connection.serve();
        });
        match spawned {
            Ok(_) => {
                self.house.environment.total_connections.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) => {
                self.house.environment.rejected_connections.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(%error, clients = self.clients.len(), "no thread for a client");
                refuse(outbox.socket(), b"-ERR no thread for another client\r\n");
            }
        }
    }

    /// Without a descriptor the client that waits cannot be accepted, and it would make `poll` return for ever. So a
    /// reserved one is given up for it, to send it away.
    fn refuse_without_descriptor(&mut self) {
        tracing::warn!(clients = self.clients.len(), "out of file descriptors, refusing a client");
        self.house.environment.rejected_connections.fetch_add(1, Ordering::Relaxed);
        while self.reserve.pop().is_some() {
            match acceptfrom_with(&self.socket, SocketFlags::CLOEXEC) {
                Ok((socket, _)) => {
                    refuse(&socket, b"-ERR out of file descriptors\r\n");
                    break;
                }
                // Somebody was quicker.
                Err(Errno::MFILE | Errno::NFILE) => {}
                Err(_) => break,
            }
        }
        fill(&mut self.reserve);
        if self.reserve.is_empty() {
            self.back_off("cannot accept a client", Errno::MFILE);
        }
    }

    /// A pause that shutdown ends.
    fn back_off(&self, what: &str, error: Errno) {
        tracing::warn!(%error, what, "pausing");
        let pause = Timespec { tv_sec: 0, tv_nsec: BACK_OFF.subsec_nanos().into() };
        let _ = poll(&mut [PollFd::new(self.shutdown.wake().source(), PollFlags::IN)], Some(&pause));
    }
}

fn fill(reserve: &mut Vec<File>) {
    while reserve.len() < RESERVED
        && let Ok(file) = File::open("/dev/null")
    {
        reserve.push(file);
    }
}

/// One line, readable in both dialects, if it fits; then the socket is closed. What the client has already sent is
/// taken first: closing a socket with unread bytes would reset it, and the line might not arrive.
fn refuse(socket: impl std::os::fd::AsFd, line: &[u8]) {
    let _ = send(&socket, line, SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
    let _ = rustix::net::shutdown(&socket, rustix::net::Shutdown::Write);
    let _ = recv(&socket, &mut [0_u8; 4096], RecvFlags::DONTWAIT);
}

/// A connection's place among the clients, given back however its thread ends.
struct Guest {
    house: Arc<House>,
    clients: Arc<Clients>,
    id: u64,
    outbox: Arc<Outbox>,
}

impl Guest {
    fn enter(house: Arc<House>, clients: Arc<Clients>, id: u64, outbox: Arc<Outbox>) -> Guest {
        house.environment.connected_clients.fetch_add(1, Ordering::Relaxed);
        clients.add(id, outbox.clone());
        Guest { house, clients, id, outbox }
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        // After a panic the engine may still hold the outbox, and with it the socket.
        if thread::panicking() {
            self.outbox.break_off();
        }
        self.house.environment.connected_clients.fetch_sub(1, Ordering::Relaxed);
        self.clients.remove(self.id);
    }
}
