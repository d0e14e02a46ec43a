//! Requests that were sent, their answers, and stdout: reads exactly the frames that answer a request and prints them.

use crate::protocol::Reply;
use crate::protocol::reply_reader::Value;

use super::asked::{Asked, Verb};
use super::connection::Connection;
use super::failure::Failure;
use super::options::{Format, Server};
use super::printer::{Printer, has_error};
use super::session::Session;

/// What is said to a CLIENT REPLY OFF or SKIP, which is not sent: every request is waited for here.
const MUTE: &str = "ERR chronos-cli prints every reply; CLIENT REPLY OFF and SKIP are for programs that read none";

/// How a request went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Done,
    /// An error was answered.
    Failed,
    /// Answered, and more will come unasked: messages of a subscription, or what MONITOR sees.
    Listening,
    /// The server ended the connection as it was asked to.
    Farewell,
}

/// One connection and the replies printed from it.
pub(crate) struct Conversation {
    pub(crate) connection: Connection,
    pub(crate) session: Session,
    pub(crate) printer: Printer,
    /// Channels and patterns that are subscribed to, as the server last said.
    subscriptions: i64,
    monitoring: bool,
}

impl Conversation {
    pub(crate) fn new(connection: Connection, server: &Server, printer: Printer) -> Conversation {
        Conversation { connection, session: Session::new(server.db), printer, subscriptions: 0, monitoring: false }
    }

    /// Waits for the answer to the oldest request that is not answered yet, and prints it.
    pub(crate) fn answer(&mut self, asked: &Asked) -> Result<Outcome, Failure> {
        self.take(asked, |printer, reply| printer.reply(reply))
    }

    /// As [`answer`](Self::answer), for a command that is alone on stdout: with `--raw` a value gets no line end, so
    /// that what was stored from a file with `-x` comes back as that file.
    pub(crate) fn only_answer(&mut self, asked: &Asked, stdout_is_terminal: bool) -> Result<Outcome, Failure> {
        let exact = self.printer.format() == Format::Raw && !stdout_is_terminal;
        self.take(asked, |printer, reply| match reply {
            Reply::Bulk(_) | Reply::Nil | Reply::Error(_) if exact => printer.bytes(reply),
            _ => printer.reply(reply),
        })
    }

    fn take(
        &mut self,
        asked: &Asked,
        print: impl Fn(&mut Printer, &Reply) -> Result<(), Failure>,
    ) -> Result<Outcome, Failure> {
        if asked.verb == Verb::Mute {
            self.printer.reply(&Reply::error(MUTE))?;
            return Ok(Outcome::Failed);
        }
        let mut confirmations = match asked.verb {
            Verb::Subscribe { channels } => channels,
            _ => 0,
        };
        loop {
            let value = match self.frame() {
                Err(Failure::Closed { .. }) if asked.verb == Verb::Shutdown => return Ok(Outcome::Farewell),
                frame => frame?,
            };
            let is_push = matches!(value, Value::Push(_));
            let reply = self.session.understand(if is_push { &Asked::PLAIN } else { asked }, value);
            self.subscriptions = confirmed(&reply).filter(|_| is_push).unwrap_or(self.subscriptions);
            print(&mut self.printer, &reply)?;
            match asked.verb {
                // Messages may come between the confirmations; they do not count.
                Verb::Subscribe { .. } if is_push => {
                    confirmations -= usize::from(confirmed(&reply).is_some());
                    if confirmations == 0 {
                        return Ok(if self.subscriptions > 0 { Outcome::Listening } else { Outcome::Done });
                    }
                }
                _ if is_push => {}
                Verb::Reset => {
                    // That of the HELLO behind it.
                    self.frame()?;
                    return Ok(if has_error(&reply) { Outcome::Failed } else { Outcome::Done });
                }
                _ if has_error(&reply) => return Ok(Outcome::Failed),
                Verb::Monitor if reply == Reply::OK => {
                    self.monitoring = true;
                    return Ok(Outcome::Listening);
                }
                _ => return Ok(Outcome::Done),
            }
        }
    }

    /// Prints whatever comes, as long as anything may come that no request waits for.
    pub(crate) fn listen(&mut self) -> Result<(), Failure> {
        while self.monitoring || self.subscriptions > 0 {
            let value = self.frame()?;
            let reply = self.session.understand(&Asked::PLAIN, value);
            self.subscriptions = confirmed(&reply).unwrap_or(self.subscriptions);
            self.printer.reply(&reply)?;
        }
        self.printer.flush()
    }

    /// The next frame. Before a wait for one, what is printed is shown.
    fn frame(&mut self) -> Result<Value, Failure> {
        if let Some(value) = self.connection.received()? {
            return Ok(value);
        }
        self.printer.flush()?;
        self.connection.receive()
    }
}

/// How many subscriptions are left, if this push confirms a change of them.
fn confirmed(push: &Reply) -> Option<i64> {
    match push {
        Reply::Array(items) => match items.as_slice() {
            [Reply::Bulk(kind), _, Reply::Int(left)] if kind.ends_with(b"subscribe") => Some(*left),
            _ => None,
        },
        _ => None,
    }
}
