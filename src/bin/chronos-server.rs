//! chronos-server: arguments, logging, exit codes; the rest is in the library.

use std::ffi::OsString;
use std::io::{IsTerminal, Write, stderr};
use std::path::PathBuf;
use std::process::{ExitCode, exit};

use chronos::server::{Config, Error, Server, ShutdownHandle, config_file};
use clap::{CommandFactory, FromArgMatches, Parser, ValueEnum};
use tracing::level_filters::LevelFilter;

/// A durable key-value server. Type into it with nc, or use any Redis client.
#[derive(Parser)]
#[command(name = "chronos-server", version, max_term_width = 120, after_help = EXAMPLES)]
struct Arguments {
    /// Read the flags that are not given here, nor as variables, from this TOML file: `memory = "1GiB"` is --memory 1GiB
    // It is read before all others: see `config_file`.
    #[arg(long = "config", id = "config", env = "CHRONOS_CONFIG", value_name = "FILE")]
    _file: Option<PathBuf>,

    #[command(flatten)]
    config: Config,

    /// What is logged to stderr: off, error, warn, info, debug or trace
    #[arg(long, env = "CHRONOS_LOG_LEVEL", value_name = "LEVEL", default_value = "info", help_heading = "Logging",
          value_parser = parse_level)]
    log_level: LevelFilter,

    /// How it is logged
    #[arg(long, env = "CHRONOS_LOG_FORMAT", value_name = "FORMAT", default_value = "text", help_heading = "Logging")]
    log_format: LogFormat,
}

#[derive(Clone, Copy, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

const EXAMPLES: &str = "Examples:
  chronos-server                                    serve ./chronos-data on 127.0.0.1:6379
  chronos-server --dir /var/lib/chronos --port 7000
  chronos-server --config /etc/chronos.toml         a file with lines such as: port = 7000
  chronos-server --durability 1s                    faster; a crash may lose the last second
  printf 'SET greeting hello\\nGET greeting\\n' | nc -N 127.0.0.1 6379
  redis-cli -p 6379 SET greeting hello

Exit status: 0 after an orderly shutdown (SIGINT, SIGTERM, SIGHUP, SHUTDOWN), 1 if it could not start, 2 for wrong
arguments. A terminal that closes sends SIGHUP, also to a server under nohup; setsid detaches from it.";

/// After a second signal: as a shell reports a death by SIGINT.
const EXIT_INTERRUPTED: i32 = 130;
/// After a panic, as Rust's own.
const EXIT_PANICKED: i32 = 101;

fn main() -> ExitCode {
    let arguments = parse(std::env::args_os().collect()).unwrap_or_else(|error| error.exit());
    start_logging(&arguments);
    end_on_panic();
    match serve(arguments.config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Error::Config(message)) => {
            Arguments::command().error(clap::error::ErrorKind::ArgumentConflict, message).exit()
        }
        Err(error) => {
            say(&format!("chronos-server: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn parse(arguments: Vec<OsString>) -> Result<Arguments, clap::Error> {
    let mut command = Arguments::command();
    let matches = config_file::parse(&command, arguments)?;
    Arguments::from_arg_matches(&matches).map_err(|error| error.format(&mut command))
}

fn serve(config: Config) -> Result<(), Error> {
    let server = Server::start(config)?;
    let handle = server.shutdown_handle();
    if let Err(error) = ctrlc::set_handler(move || on_signal(&handle)) {
        tracing::warn!(%error, "signals will end the server at once");
    }
    server.wait()
}

/// SIGINT, SIGTERM, SIGHUP: the first asks for an orderly end. The second means it, and is as safe as kill -9.
fn on_signal(handle: &ShutdownHandle) {
    if !handle.request() {
        tracing::warn!("told twice: ending at once");
        exit(EXIT_INTERRUPTED);
    }
}

/// A server that has lost a thread is not to go on half alive. What was acknowledged is in the log.
fn end_on_panic() {
    std::panic::set_hook(Box::new(|panic| {
        let thread = std::thread::current();
        let thread = thread.name().unwrap_or("?");
        let trace = std::backtrace::Backtrace::capture();
        say(&format!("chronos-server: internal error in thread {thread}: {panic}\n{trace}"));
        exit(EXIT_PANICKED);
    }));
}

fn start_logging(arguments: &Arguments) {
    let subscriber = tracing_subscriber::fmt()
        // A log that nobody reads is no reason to panic on stderr.
        .log_internal_errors(false)
        .with_max_level(arguments.log_level)
        .with_ansi(stderr().is_terminal())
        .with_writer(stderr);
    match arguments.log_format {
        LogFormat::Text => subscriber.init(),
        LogFormat::Json => subscriber.json().init(),
    }
}

fn parse_level(text: &str) -> Result<LevelFilter, String> {
    text.parse().map_err(|_| "off, error, warn, info, debug or trace".to_owned())
}

/// One line for a person, whatever the log level. A closed stderr is no reason to end differently.
fn say(line: &str) {
    let _ = writeln!(stderr(), "{line}");
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::thread;

    use super::*;

    /// Set in the process that is to panic, which is this test once more.
    const PANIC: &str = "CHRONOS_TEST_PANIC";

    #[test]
    fn a_panic_in_any_thread_ends_the_process_and_says_where() {
        if std::env::var_os(PANIC).is_some() {
            end_on_panic();
            let thread =
                thread::Builder::new().name("unlucky".into()).spawn(|| panic!("on purpose")).expect("a thread");
            // Without the hook this would be all, and the test would pass.
            let _ = thread.join();
            return;
        }
        let itself = std::env::current_exe().expect("a path");
        let mut command = Command::new(itself);
        command.args(["--exact", "tests::a_panic_in_any_thread_ends_the_process_and_says_where"]).env(PANIC, "1");
        let output = command.output().expect("it runs");
        let message = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(EXIT_PANICKED), "{message}");
        assert!(
            message.starts_with("chronos-server: internal error in thread unlucky: panicked at src/bin"),
            "{message}"
        );
        assert!(message.contains("on purpose"), "{message}");
    }
}
