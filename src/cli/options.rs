//! The command line of `chronos-cli`, parsed into what is to be done and with which server.
//!
//! `-h` is the host, as in `redis-cli`, so help is `--help` only. Options come before the command: every word behind the
//! command's name belongs to the command, so that `chronos-cli SET k --raw` stores `--raw`.

use std::ffi::OsString;
use std::fmt;
use std::os::unix::ffi::OsStringExt;

use clap::{ArgAction, CommandFactory, Parser};

const EXAMPLES: &str = "\
Examples:
  chronos-cli                                    a prompt; `help` lists the commands
  chronos-cli SET user:101 '{\"name\": \"Venom\"}'   one command; each word is taken byte for byte
  chronos-cli -x SET photo < cat.png             the last argument comes from stdin, byte for byte
  chronos-cli --raw GET photo > copy.png         the value's bytes as they are, nothing added
  printf 'SET a 1\\nINCR a\\n' | chronos-cli       lines of the text dialect, one reply each, in order
  chronos-cli --pipe < dump.resp                 load RESP or lines at full speed

Replies are written as in the text dialect: `(nil)`, `(error) ...`, `(3 entries)` are remarks, a line that begins
with a double quote is a quoted value, anything else is the value itself.

Exit codes:
  0    everything was answered without an error
  1    an error was answered, or the server could not be reached
  2    wrong arguments
  141  whoever read the output closed it early";

/// As it is typed.
#[derive(Debug, Parser)]
#[command(name = "chronos-cli", version, about = "The client of Chronos", after_help = EXAMPLES, disable_help_flag = true, args_override_self = true)]
struct Args {
    /// Server's host name or address
    #[arg(short = 'h', long, env = "CHRONOS_HOST", default_value = "127.0.0.1")]
    host: String,

    /// Server's port
    #[arg(short = 'p', long, env = "CHRONOS_PORT", default_value_t = 6379, value_parser = clap::value_parser!(u16).range(1..))]
    port: u16,

    /// Database to select
    #[arg(short = 'n', long, value_name = "DB", default_value_t = 0)]
    db: u32,

    /// Write the bytes of values as they are: no quotes, no remarks; errors go to stderr
    #[arg(long)]
    raw: bool,

    /// Take the command's last argument from stdin, byte for byte
    #[arg(short = 'x', requires = "command")]
    last_from_stdin: bool,

    /// Exit with 1 when the reply is an error. It always does; taken for scripts written for redis-cli
    #[arg(short = 'e')]
    error_code: bool,

    /// Load stdin, RESP or lines of text, at full speed: replies are counted, not printed
    #[arg(long, conflicts_with_all = ["command", "raw"])]
    pipe: bool,

    /// Print this help
    #[arg(long, action = ArgAction::Help)]
    help: Option<bool>,

    /// Command to run; without one: a prompt on a terminal, else the lines of stdin are executed
    command: Option<OsString>,

    /// Its arguments
    #[arg(value_name = "ARG", trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<OsString>,
}

/// Where the server is and which of its databases is meant.
#[derive(Clone, Debug)]
pub(crate) struct Server {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) db: u32,
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // An IPv6 address needs its brackets to be told from the port.
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// How replies are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// The text dialect.
    Text,
    /// The bytes of values.
    Raw,
}

/// What is to be done.
#[derive(Debug)]
pub(crate) enum Task {
    /// One command from the command line; with `last_from_stdin` its last word is still to be read.
    Once { words: Vec<Vec<u8>>, last_from_stdin: bool },
    /// Lines of stdin, each answered on stdout.
    Script,
    /// A bulk load from stdin.
    Load,
    /// A prompt.
    Repl,
}

/// The command line, understood.
#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) server: Server,
    pub(crate) format: Format,
    pub(crate) task: Task,
}

impl Options {
    /// Parses `args`, the program's name first. An error knows its own exit code: 0 for `--help`, 2 for a mistake.
    pub(crate) fn parse(
        args: impl IntoIterator<Item = OsString>,
        stdin_is_terminal: bool,
    ) -> Result<Options, clap::Error> {
        let args = Args::try_parse_from(args)?;
        if args.pipe && stdin_is_terminal {
            let why = "--pipe loads what is piped into it, as in `chronos-cli --pipe < FILE`";
            return Err(Args::command().error(clap::error::ErrorKind::MissingRequiredArgument, why));
        }
        let task = if args.pipe {
            Task::Load
        } else if let Some(command) = args.command {
            let words = [command].into_iter().chain(args.args).map(OsString::into_vec).collect();
            Task::Once { words, last_from_stdin: args.last_from_stdin }
        } else if stdin_is_terminal {
            Task::Repl
        } else {
            Task::Script
        };
        let format = if args.raw { Format::Raw } else { Format::Text };
        Ok(Options { server: Server { host: args.host, port: args.port, db: args.db }, format, task })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str, stdin_is_terminal: bool) -> Result<Options, clap::Error> {
        Options::parse(line.split(' ').map(OsString::from), stdin_is_terminal)
    }

    #[test]
    fn h_is_the_host_as_in_redis_cli() {
        let options = parse("chronos-cli -h ::1 -p 7000 -n 3", true).unwrap();
        assert_eq!(options.server.to_string(), "[::1]:7000");
        assert_eq!(options.server.db, 3);
        assert!(matches!(options.task, Task::Repl));
    }

    #[test]
    fn words_behind_the_command_are_never_options() {
        let options = parse("chronos-cli SET -k --raw -x -5", false).unwrap();
        assert_eq!(options.format, Format::Text);
        let Task::Once { words, last_from_stdin: false } = options.task else { panic!("one command") };
        assert_eq!(words.join(&b' '), b"SET -k --raw -x -5");
    }

    #[test]
    fn without_a_command_stdin_decides() {
        assert!(matches!(parse("chronos-cli", true).unwrap().task, Task::Repl));
        assert!(matches!(parse("chronos-cli", false).unwrap().task, Task::Script));
        assert!(matches!(parse("chronos-cli --pipe", false).unwrap().task, Task::Load));
    }

    #[test]
    fn mistakes_exit_with_two_and_help_with_zero() {
        for wrong in ["-p 0", "-p 70000", "--bogus", "-x", "--pipe GET k", "-n -1"] {
            assert_eq!(parse(&format!("chronos-cli {wrong}"), false).unwrap_err().exit_code(), 2, "{wrong}");
        }
        assert_eq!(parse("chronos-cli --pipe", true).unwrap_err().exit_code(), 2);
        let help = parse("chronos-cli --help", false).unwrap_err();
        assert_eq!(help.exit_code(), 0);
        assert!(help.to_string().contains("chronos-cli -x SET photo < cat.png"));
    }
}
