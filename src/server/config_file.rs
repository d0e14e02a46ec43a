//! The configuration file: TOML whose keys are the long names of flags.
//!
//! ```toml
//! dir = "/var/lib/chronos"
//! memory = "1GiB"
//! port = 7000
//! no-protected-mode = true
//! ```
//!
//! Each entry becomes the flag of its name. So it is read, checked and refused as on the command line, and there is no second
//! list of what can be set. The command line goes first, then variables, then the file, then the defaults.

use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Command};
use toml::{Table, Value};

/// The argument that names the file.
const CONFIG: &str = "config";

/// How clap begins what it adds to an error, which the error about the file has, too.
const USAGE: &str = "\n\nUsage:";

/// A configuration is a page or two; what is longer is another file, or a device.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// What `arguments` say, the program's name first, and the file that they name, if they name one by `--config`.
///
/// # Errors
///
/// As clap has them, to be shown by [`clap::Error::exit`]; those of the file begin with its name.
pub fn parse(command: &Command, arguments: Vec<OsString>) -> Result<ArgMatches, clap::Error> {
    let given = command.clone().try_get_matches_from(&arguments)?;
    let Some(path) = given.get_one::<PathBuf>(CONFIG) else { return Ok(given) };
    let in_file = |error: String| {
        let error = error.strip_prefix("error: ").unwrap_or(&error);
        let error = error.split(USAGE).next().unwrap_or(error).trim_end();
        command.clone().error(ErrorKind::InvalidValue, format!("{}: {error}", path.display()))
    };
    let flags = read(path).and_then(|text| flags(command, &text)).map_err(in_file)?;
    let said = |flag: &Flag| given.value_source(&flag.id).is_some_and(|source| source != ValueSource::DefaultValue);
    let (program, others) = arguments.split_at(1.min(arguments.len()));
    let from_file = flags.into_iter().filter(|flag| !said(flag)).map(|flag| flag.argument.into());
    command.clone().try_get_matches_from(program.iter().cloned().chain(from_file).chain(others.iter().cloned()))
}

fn read(path: &Path) -> Result<String, String> {
    let mut text = String::new();
    let file = File::open(path).map_err(|error| error.to_string())?;
    file.take(MAX_FILE_BYTES + 1).read_to_string(&mut text).map_err(|error| error.to_string())?;
    if text.len() as u64 > MAX_FILE_BYTES {
        return Err(format!("longer than the {MAX_FILE_BYTES} bytes that a configuration may have"));
    }
    Ok(text)
}

/// An entry of the file.
pub(super) struct Flag {
    id: String,
    /// As on the command line.
    pub(super) argument: String,
}

/// The entries of a file, as flags that `command` takes.
pub(super) fn flags(command: &Command, text: &str) -> Result<Vec<Flag>, String> {
    let table: Table = text.parse().map_err(|error: toml::de::Error| error.to_string())?;
    // In a file there is nothing to ask.
    let known = command.clone().disable_help_flag(true).disable_version_flag(true);
    let mut flags = Vec::new();
    for (key, value) in table {
        if key == CONFIG {
            return Err(format!("{key}: a file cannot name another"));
        }
        let argument = known.get_arguments().find(|argument| argument.get_long() == Some(&key));
        let takes_value = argument.is_none_or(|argument| argument.get_action().takes_values());
        let text = match (value, takes_value) {
            (Value::Boolean(true), false) => format!("--{key}"),
            (Value::Boolean(false), false) => continue,
            (Value::String(text), _) => format!("--{key}={text}"),
            (Value::Integer(number), _) => format!("--{key}={number}"),
            (other, _) => return Err(format!("{key}: a {} where a text or a number belongs", other.type_str())),
        };
        // The nearest name, or what is wrong with the value, is for clap to say.
        known.clone().try_get_matches_from([known.get_name(), &text]).map_err(|error| error.render().to_string())?;
        let id = argument.map(Arg::get_id).map_or(key, ToString::to_string);
        flags.push(Flag { id, argument: text });
    }
    Ok(flags)
}

#[cfg(test)]
mod tests {
    use clap::FromArgMatches;

    use super::*;
    use crate::server::Config;
    use crate::server::fuzz::command;

    /// What comes of this file and this command line.
    fn with(file: &str, line: &str) -> Result<Config, String> {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("chronos.toml");
        std::fs::write(&path, file).unwrap();
        let path = path.to_str().unwrap();
        let line = format!("chronos-server --config {path} {line}");
        let matches = parse(&command(), line.split_whitespace().map(OsString::from).collect());
        let matches = matches.map_err(|error| error.render().to_string().replace(path, "FILE"))?;
        Ok(Config::from_arg_matches(&matches).unwrap())
    }

    #[test]
    fn each_flag_is_a_key_and_the_command_line_goes_first() {
        let file = "# a server\nport = 7000\nmemory = '1GiB' # much\nno-protected-mode = true\nidle-timeout = \"5m\"";
        let config = with(file, "--memory 8MiB").unwrap();
        let said = Config {
            port: 7000,
            memory: 8 << 20,
            no_protected_mode: true,
            idle_timeout: Some(std::time::Duration::from_secs(300)),
            ..Config::default()
        };
        assert_eq!(format!("{config:?}"), format!("{said:?}"));
        let nothing = with("no-protected-mode = false\n", "").unwrap();
        assert_eq!(format!("{nothing:?}"), format!("{:?}", Config::default()));
        assert_eq!(with("port = 7000", "-p 8000").unwrap().port, 8000);
    }

    #[test]
    fn what_is_wrong_is_said_with_the_file_and_the_nearest_name() {
        let refused = |file, parts: &[&str]| {
            let said = with(file, "").unwrap_err();
            assert!(said.starts_with("error: FILE: ") && parts.iter().all(|part| said.contains(part)), "{said}");
            assert!(said.matches("Usage:").count() == 1, "{said}");
        };
        refused("memroy = 1", &["--memroy", "'--memory'"]);
        refused("memory = 'much'", &["much", "--memory <SIZE>"]);
        refused("memory = 1.5", &["memory: a float where a text or a number belongs"]);
        refused("[memory]\nport = 1", &["memory: a table"]);
        refused("memory = true", &["memory: a boolean"]);
        refused("no-protected-mode = 'yes'", &["unexpected value 'yes'"]);
        refused("help = true", &["--help"]);
        refused("config = 'other.toml'", &["config: a file cannot name another"]);
        refused("port = 1\nport = 2", &["duplicate key"]);
        refused("port 7000", &["line 1"]);
        refused(&"#".repeat(MAX_FILE_BYTES as usize + 1), &["longer than"]);
        // What is overruled is read, too.
        assert!(with("port = 'many'", "--port 7000").is_err());
        let missing = parse(&command(), ["chronos-server", "--config", "/no/such"].map(OsString::from).to_vec());
        assert!(missing.unwrap_err().to_string().contains("/no/such: No such file"));
    }
}
