//! A running server: how it starts, and how it ends.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::clients::Clients;
use super::config::{Config, show_durability};
use super::connection::House;
use super::drainer::Drainer;
use super::error::{Error, Result};
use super::listener::{self, Listener};
use super::shutdown::Shutdown;
use super::{descriptors, expiry};
use crate::command::Environment;
use crate::engine::{self, Durability};
use crate::keyspace::Keyspace;
use crate::sync;

/// How long connections get at shutdown to finish what they run and to deliver their replies.
const GRACE: Duration = Duration::from_secs(10);

/// How long they then get to notice that their sockets are gone.
const LAST_GRACE: Duration = Duration::from_secs(1);

/// A running server.
///
/// ```
/// use std::io::{BufRead, BufReader, Write};
/// use std::net::TcpStream;
///
/// use chronos::server::{Config, Server};
///
/// # let dir = tempfile::tempdir()?;
/// # let dir = dir.path().to_owned();
/// let server = Server::start(Config { dir, port: 0, ..Config::default() })?;
/// let mut client = TcpStream::connect(server.addr())?;
/// client.write_all(b"PING\n")?;
/// let mut reply = String::new();
/// BufReader::new(client).read_line(&mut reply)?;
/// assert_eq!(reply, "PONG\n");
/// server.shutdown();
/// server.wait()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Server {
    addr: SocketAddr,
    house: Arc<House>,
    clients: Arc<Clients>,
    drainer: Arc<Drainer>,
    shutdown: Shutdown,
    dir: PathBuf,
    durability: Durability,
    /// Taken when the server ends.
    threads: Option<Threads>,
}

struct Threads {
    listener: JoinHandle<()>,
    expiry: JoinHandle<()>,
    drainer: sync::thread::JoinHandle<()>,
}

/// Asks a server to end, from anywhere.
#[derive(Clone)]
pub struct ShutdownHandle(Shutdown);

impl ShutdownHandle {
    /// Starts an orderly shutdown; returns at once. `false` if it had been asked for before.
    pub fn request(&self) -> bool {
        let first = !self.0.is_requested();
        self.0.request();
        first
    }
}

impl Server {
    /// Opens the database and listens. Returns when clients can connect.
    pub fn start(config: Config) -> Result<Server> {
        config.check()?;
        let max_clients = descriptors::make_room_for(config.max_clients);
        let address = format!("{}:{}", config.bind, config.port);
        // The address first, since it is soon told; but nobody is let in before the data is there.
        let socket = listener::bind(&config.bind, config.port).map_err(|error| listen_error(&address, error))?;
        let db = config.options().open(&config.dir).map_err(|source| open_error(&config, source))?;
        let addr = listener::listen(&socket).map_err(|error| listen_error(&address, error))?;

        let shutdown = Shutdown::new()?;
        let drainer = Drainer::new(config.limits())?;
        let clients = Arc::new(Clients::default());
        let keyspace = Keyspace::new(db);
        let environment = environment(&config, addr.port(), keyspace.db.now(), shutdown.clone());
        let house = Arc::new(House { keyspace, environment, limits: config.limits(), decoding: config.decoding() });
        let listener = Listener::new(
            socket.into(),
            house.clone(),
            clients.clone(),
            drainer.clone(),
            shutdown.clone(),
            max_clients,
        );
        let drainer_thread = drainer.start()?;
        let others = expiry::start(house.clone(), shutdown.clone()).and_then(|expiry| Ok((expiry, listener.start()?)));
        let threads = match others {
            Ok((expiry, listener)) => Threads { listener, expiry, drainer: drainer_thread },
            Err(error) => {
                // What has begun must not outlive the attempt.
                shutdown.request();
                drainer.stop();
                return Err(error.into());
            }
        };
        let Config { dir, durability, .. } = config;
        Ok(Server { addr, house, clients, drainer, shutdown, dir, durability, threads: Some(threads) })
    }

    /// Where it listens, with the port that was taken for port 0.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Starts an orderly shutdown; returns at once. [`Server::wait`] carries it out.
    pub fn shutdown(&self) {
        self.shutdown.request();
    }

    /// A way to ask for the end from another thread, such as a signal handler's.
    pub fn shutdown_handle(&self) -> ShutdownHandle {
        ShutdownHandle(self.shutdown.clone())
    }

    /// Waits until the end is asked for (by [`Server::shutdown`], a handle, or the SHUTDOWN command), lets what runs
    /// finish, and closes the database.
    pub fn wait(mut self) -> Result<()> {
        // Said here and not when it began to listen: by now the owner has set up the ways to end it.
        let (dir, durability) = (self.dir.display(), show_durability(self.durability));
        tracing::info!(addr = %self.addr, %dir, %durability, "ready");
        self.shutdown.wait();
        self.end()
    }

    fn end(&mut self) -> Result<()> {
        let Some(threads) = self.threads.take() else { return Ok(()) };
        tracing::info!(clients = self.clients.len(), "shutting down");
        self.shutdown.request();
        self.house.environment.shutting_down.store(true, Ordering::Relaxed);
        join(threads.listener);
        // Nobody comes any more, so this reaches everybody.
        self.clients.stop_receiving();
        if self.clients.wait_until_gone(GRACE) > 0 {
            let clients = self.clients.len();
            tracing::warn!(clients, "clients did not take their replies in time");
            self.clients.break_off();
            self.clients.wait_until_gone(LAST_GRACE);
        }
        join(threads.expiry);
        self.drainer.stop();
        drop(threads.drainer.join());
        self.house.keyspace.db.close().map_err(|source| Error::Close { source })?;
        tracing::info!("bye");
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            tracing::error!(%error, "the server did not end cleanly");
        }
    }
}

/// A thread that panicked has said so already.
fn join(thread: JoinHandle<()>) {
    let _ = thread.join();
}

fn environment(config: &Config, port: u16, now: u64, shutdown: Shutdown) -> Environment {
    Environment {
        started: Instant::now(),
        started_at_unix_ms: now,
        port,
        databases: config.databases,
        checkpoint_dir: config.checkpoint_dir.clone(),
        connected_clients: AtomicU64::new(0),
        total_connections: AtomicU64::new(0),
        rejected_connections: AtomicU64::new(0),
        total_commands: AtomicU64::new(0),
        config: config.shown(port),
        shutting_down: AtomicBool::new(false),
        request_shutdown: Box::new(move || shutdown.request()),
    }
}

fn listen_error(address: &str, source: std::io::Error) -> Error {
    let address = address.to_owned();
    match source.kind() {
        std::io::ErrorKind::AddrInUse => Error::AddressInUse { address },
        _ => Error::Listen { address, source },
    }
}

fn open_error(config: &Config, source: engine::Error) -> Error {
    match source {
        engine::Error::Locked { .. } => Error::DirectoryInUse { source },
        _ => Error::Database { directory: config.dir.display().to_string(), source },
    }
}
