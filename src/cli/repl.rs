//! The prompt.
//!
//! It outlives its connection: servers restart under people's hands. A connection that has ended while the person was
//! thinking is replaced before the next line is sent, so nothing is lost. One that ends between a line and its reply
//! leaves open whether the line was executed; the client says so and never sends it twice.

use std::io;
use std::time::{Duration, Instant};

use crate::protocol::Reply;
use crate::protocol::reply_reader::Value;

use super::asked::{Asked, holds_password};
use super::catalog::Catalog;
use super::connection::{Connection, Requests};
use super::conversation::{Conversation, Outcome};
use super::editor::{Editor, Typed};
use super::failure::Failure;
use super::interrupt::Interrupt;
use super::options::{Format, Server};
use super::printer::Printer;
use super::script::push_request;

/// A reply that takes longer is worth a remark.
const SLOW: Duration = Duration::from_millis(100);

/// Reads lines and shows replies until the person leaves.
pub(crate) fn run(server: Server, format: Format) -> Result<bool, Failure> {
    let mut talk = connect(&server, format)?;
    let mut editor = Editor::new()?;
    editor.set_catalog(fetch_catalog(&mut talk));
    let interrupt = Interrupt::install()?;
    let mut repl =
        Repl { server, format, talk: Some(talk), editor, interrupt, notes: Printer::new(io::stdout(), format) };
    loop {
        match repl.editor.read(&repl.prompt())? {
            Typed::End => return Ok(true),
            Typed::Nothing => {}
            Typed::Text(text) => {
                // A paste of several lines is several requests.
                for line in text.lines() {
                    if repl.line(line)? == Next::Leave {
                        return Ok(true);
                    }
                }
            }
        }
    }
}

#[derive(PartialEq, Eq)]
enum Next {
    Stay,
    Leave,
}

struct Repl {
    server: Server,
    format: Format,
    talk: Option<Conversation>,
    editor: Editor,
    interrupt: Interrupt,
    notes: Printer,
}

impl Repl {
    fn prompt(&self) -> String {
        let Some(talk) = &self.talk else { return "not connected> ".into() };
        let db = match talk.session.db() {
            0 => String::new(),
            db => format!("[{db}]"),
        };
        let transaction = if talk.session.in_transaction() { "(TX)" } else { "" };
        format!("chronos{db}{transaction}> ")
    }

    fn line(&mut self, line: &str) -> Result<Next, Failure> {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        match words.as_slice() {
            [] => return Ok(Next::Stay),
            [word] if ["exit", "quit"].iter().any(|leave| word.eq_ignore_ascii_case(leave)) => return Ok(Next::Leave),
            [word, rest @ ..] if word.eq_ignore_ascii_case("help") && self.help(rest)? => return Ok(Next::Stay),
            _ => {}
        }
        let Some(asked) = Asked::of_line(line.as_bytes()) else { return Ok(Next::Stay) };
        let Some(mut talk) = self.take_connection()? else { return Ok(Next::Stay) };
        let began = Instant::now();
        let (outcome, interrupted) =
            self.interrupt.guard(talk.connection.handle()?, || exchange(&mut talk, line, &asked));
        match outcome {
            Err(failure @ (Failure::OutputClosed | Failure::Output(_))) => return Err(failure),
            Err(_) if interrupted => {
                self.note("(interrupted)")?;
                self.server.db = talk.session.db();
                drop(talk);
                self.talk = self.connect_or_say()?;
            }
            Err(failure) => {
                self.note(&format!("({failure}; it is not known whether the line was executed)"))?;
                self.server.db = talk.session.db();
            }
            Ok(Outcome::Farewell) => self.note("(the server has shut down)")?,
            Ok(outcome) => {
                if outcome == Outcome::Done && holds_password(line) {
                    // Behind a password there is more to be had than before it.
                    talk.connection.ask_for_resp3(Requests::Lines)?;
                    self.learn(&mut talk);
                }
                self.talk = Some(talk);
                let took = began.elapsed();
                if took > SLOW {
                    self.note(&format!("({:.2} s)", took.as_secs_f64()))?;
                }
            }
        }
        Ok(Next::Stay)
    }

    /// The connection if it is still there, else a new one.
    fn take_connection(&mut self) -> Result<Option<Conversation>, Failure> {
        if let Some(talk) = self.talk.take() {
            if talk.connection.is_alive() {
                return Ok(Some(talk));
            }
            self.server.db = talk.session.db();
            if talk.session.in_transaction() {
                self.note("(the connection was closed, and the transaction dropped with it; nothing was sent)")?;
                return Ok(None);
            }
        }
        let talk = self.connect_or_say()?;
        if talk.is_some() {
            self.note(&format!("(connected again to {})", self.server))?;
        }
        Ok(talk)
    }

    fn connect_or_say(&mut self) -> Result<Option<Conversation>, Failure> {
        match connect(&self.server, self.format) {
            Ok(mut talk) => {
                self.learn(&mut talk);
                Ok(Some(talk))
            }
            Err(failure) => {
                self.note(&format!("({failure})"))?;
                Ok(None)
            }
        }
    }

    /// The server may be a newer one, or have told nothing so far.
    fn learn(&mut self, talk: &mut Conversation) {
        let catalog = fetch_catalog(talk);
        if !catalog.is_empty() {
            self.editor.set_catalog(catalog);
        }
    }

    /// Help from the catalog, if the server has no HELP of its own; `false` if it has.
    fn help(&mut self, words: &[&str]) -> Result<bool, Failure> {
        let Some(catalog) = self.editor.catalog().filter(|catalog| !catalog.has("HELP")) else { return Ok(false) };
        let reply = match (words, catalog.help(words)) {
            ([], _) => Reply::Lines("Tab completes the names of commands; `help COMMAND` tells more.".into()),
            (_, Some(text)) => Reply::Lines(text),
            (_, None) => Reply::error(format!("ERR no help for '{}'", words.join(" "))),
        };
        self.notes.reply(&reply)?;
        self.notes.flush()?;
        Ok(true)
    }

    fn note(&mut self, text: &str) -> Result<(), Failure> {
        self.notes.note(text)?;
        self.notes.flush()
    }
}

fn connect(server: &Server, format: Format) -> Result<Conversation, Failure> {
    let connection = Connection::open(server, Requests::Lines)?;
    Ok(Conversation::new(connection, server, Printer::new(io::stdout(), format)))
}

fn exchange(talk: &mut Conversation, line: &str, asked: &Asked) -> Result<Outcome, Failure> {
    let mut request = Vec::new();
    push_request(line.as_bytes(), asked, &mut request);
    talk.connection.send(&request)?;
    let outcome = talk.answer(asked)?;
    if outcome == Outcome::Listening {
        talk.printer.note("(listening; Ctrl-C ends it)")?;
        talk.listen()?;
    }
    talk.printer.flush()?;
    Ok(outcome)
}

/// The server's command table; an empty one if it does not tell.
fn fetch_catalog(talk: &mut Conversation) -> Catalog {
    let mut request = Vec::new();
    push_request(b"COMMAND DOCS", &Asked::PLAIN, &mut request);
    let docs = talk.connection.send(&request).and_then(|()| talk.connection.receive());
    Catalog::from_docs(&docs.unwrap_or(Value::Nil))
}
