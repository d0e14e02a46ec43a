//! Any text as a size and as a duration: what is read has the value that wide arithmetic gives it, and what is shown is
//! read again as the same. Any text as a configuration file: it is refused, or its entries are a command line.

#![allow(clippy::unwrap_used, reason = "a fuzz target may")]

use clap::{Arg, Args, Command, FromArgMatches, value_parser};

use super::Config;
use super::config_file::flags;
use super::units::{parse_duration, parse_size, show_duration};

/// `input := text`.
pub(crate) fn units(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    if let Ok(bytes) = parse_size(text) {
        let factors = [1, 1000, 1 << 10, 1_000_000, 1 << 20, 1_000_000_000, 1 << 30, 1_000_000_000_000, 1u128 << 40];
        assert!(factors.iter().any(|factor| number(text) * factor == bytes as u128), "{text} as {bytes}");
        assert_eq!(parse_size(&bytes.to_string()), Ok(bytes));
    }
    if let Ok(duration) = parse_duration(text) {
        let factors = [1, 1000, 60_000, 3_600_000, 86_400_000u128];
        assert!(factors.iter().any(|factor| number(text) * factor == duration.as_millis()), "{text} as {duration:?}");
        assert_eq!(parse_duration(&show_duration(duration)), Ok(duration));
    }
}

/// The digits in front.
fn number(text: &str) -> u128 {
    let digits: String = text.trim().chars().take_while(char::is_ascii_digit).collect();
    digits.parse().unwrap()
}

/// `chronos-server`, but for its logging.
pub(super) fn command() -> Command {
    let file = Arg::new("config").long("config").value_parser(value_parser!(std::path::PathBuf));
    Config::augment_args(Command::new("chronos-server")).arg(file)
}

/// `input := text`.
pub(crate) fn config(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let command = command();
    let Ok(flags) = flags(&command, text) else { return };
    assert!(flags.len() <= text.lines().count(), "an entry has a line of its own");
    let line = flags.into_iter().map(|flag| flag.argument);
    let matches = command.try_get_matches_from(std::iter::once("chronos-server".to_owned()).chain(line)).unwrap();
    let config = Config::from_arg_matches(&matches).unwrap();
    if text.trim().is_empty() {
        assert_eq!(format!("{config:?}"), format!("{:?}", Config::default()));
    }
}

pub(crate) fn config_seeds() -> Vec<Vec<u8>> {
    let texts = [
        "dir = '/var/lib/chronos'\nport = 7_000\nmemory = \"1GiB\" # much\n",
        "no-protected-mode = true\ndurability = \"1s\"\nidle-timeout = \"\"\"5m\"\"\"\n",
        "databases = 0x10\n\"max-clients\" = 5\ncompaction = 'fifo'\nfifo-max-age = '7d'\n",
        "[memory]\nport = [1, 2.5, 1979-05-27T07:32:00Z, {a = 1}]\n",
    ];
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}

pub(crate) fn unit_seeds() -> Vec<Vec<u8>> {
    let texts = ["256MiB", "1 gb", "64k", "7d", "100ms", "18446744073709551615", "5min", "0", "\u{a0}1h", "16777216t"];
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}
