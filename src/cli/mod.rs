//! The client: one command, lines from a pipe, a bulk load, or a prompt. It talks to a server over a socket and knows
//! nothing of how data is kept.

mod asked;
mod catalog;
mod connection;
mod conversation;
mod counter;
mod editor;
mod failure;
mod interrupt;
mod load;
mod once;
mod options;
mod pipeline;
mod printer;
mod repl;
mod script;
mod session;

use std::env;
use std::io::{self, IsTerminal};
use std::process::ExitCode;

use failure::Failure;
use options::{Options, Task};

/// Something failed; stderr says what.
const FAILED: u8 = 1;
/// As a shell reports a program that SIGPIPE ended.
const OUTPUT_CLOSED: u8 = 141;

/// `chronos-cli`: its arguments from the environment, its exit code.
pub fn main() -> ExitCode {
    let options = match Options::parse(env::args_os(), io::stdin().is_terminal()) {
        Ok(options) => options,
        Err(error) => {
            // Help goes to stdout, a mistake to stderr. If that is closed there is no one to tell.
            let _ = error.print();
            return ExitCode::from(error.exit_code() as u8);
        }
    };
    match run(options) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(FAILED),
        Err(Failure::OutputClosed) => ExitCode::from(OUTPUT_CLOSED),
        Err(failure) => {
            printer::complain(&format!("chronos-cli: {failure}"));
            ExitCode::from(FAILED)
        }
    }
}

fn run(options: Options) -> Result<bool, Failure> {
    let Options { server, format, task } = options;
    match task {
        Task::Once { words, last_from_stdin } => once::run(&server, format, words, last_from_stdin),
        Task::Script => script::run(&server, format),
        Task::Load => load::run(&server),
        Task::Repl => repl::run(server, format),
    }
}
