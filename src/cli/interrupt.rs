//! Ctrl-C while a reply is awaited: it ends the wait, not the client.
//!
//! The wait is a blocking read, which nothing but the end of its connection ends early; so that is what a Ctrl-C does.
//! (At the prompt the terminal hands Ctrl-C to the line editor, and none of this is asked.)

use std::net::{Shutdown, TcpStream};
use std::process;
use std::sync::{Arc, Mutex, PoisonError};

use super::failure::Failure;

/// As a shell reports a program that SIGINT ended.
const INTERRUPTED: i32 = 130;

/// What a Ctrl-C would end. Clones share it.
#[derive(Clone, Default)]
pub(crate) struct Interrupt {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
enum State {
    #[default]
    Idle,
    Waiting(TcpStream),
    Interrupted,
}

impl Interrupt {
    /// Takes over SIGINT, SIGTERM and SIGHUP.
    pub(crate) fn install() -> Result<Interrupt, Failure> {
        let interrupt = Interrupt::default();
        let handler = interrupt.clone();
        ctrlc::set_handler(move || handler.signal())
            .map_err(|error| Failure::Input(std::io::Error::other(error.to_string())))?;
        Ok(interrupt)
    }

    /// Runs `wait`; says also whether it was interrupted.
    pub(crate) fn guard<T>(&self, connection: TcpStream, wait: impl FnOnce() -> T) -> (T, bool) {
        self.replace(State::Waiting(connection));
        let result = wait();
        (result, matches!(self.replace(State::Idle), State::Interrupted))
    }

    fn signal(&self) {
        match self.replace(State::Interrupted) {
            // An error means that the connection has just ended by itself, and the wait with it.
            State::Waiting(connection) => drop(connection.shutdown(Shutdown::Both)),
            State::Idle | State::Interrupted => process::exit(INTERRUPTED),
        }
    }

    fn replace(&self, state: State) -> State {
        // No code under this lock can panic, so a poisoned one is as good as any.
        std::mem::replace(&mut *self.state.lock().unwrap_or_else(PoisonError::into_inner), state)
    }
}
