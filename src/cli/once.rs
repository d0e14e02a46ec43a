//! One command from the command line.

use std::io::{self, IsTerminal, Read};

use crate::protocol::reply_reader::encode_command;

use super::asked::{Asked, Verb};
use super::connection::{Connection, Requests};
use super::conversation::{Conversation, Outcome};
use super::failure::Failure;
use super::options::{Format, Server};
use super::printer::Printer;

/// Runs the command and prints its reply; `false` if that is an error.
pub(crate) fn run(
    server: &Server,
    format: Format,
    mut words: Vec<Vec<u8>>,
    last_from_stdin: bool,
) -> Result<bool, Failure> {
    if last_from_stdin {
        let mut last = Vec::new();
        io::stdin().read_to_end(&mut last).map_err(Failure::Input)?;
        words.push(last);
    }
    let asked = Asked::of_words(&words);
    let connection = Connection::open(server, Requests::Arrays)?;
    let mut talk = Conversation::new(connection, server, Printer::new(io::stdout(), format));
    if asked.verb != Verb::Mute {
        let mut request = Vec::new();
        encode_command(&words, &mut request);
        if asked.verb == Verb::Reset {
            encode_command(&["HELLO", "3"], &mut request);
        }
        talk.connection.send(&request)?;
    }
    let outcome = talk.only_answer(&asked, io::stdout().is_terminal())?;
    talk.listen()?;
    Ok(outcome != Outcome::Failed)
}
