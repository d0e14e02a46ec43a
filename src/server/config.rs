//! How a server is set up: each field is a flag of `chronos-server` and a `CHRONOS_...` variable.

use std::net::ToSocketAddrs;
use std::path::PathBuf;
use std::time::Duration;

use super::error::{Error, Result};
use super::limits::Limits;
use super::units::{parse_duration, parse_size, show_duration};
use crate::engine::{Compression, Durability, Options, Strategy};
use crate::protocol;

/// The configuration of a server. [`Config::default`] is what `chronos-server` does without arguments.
#[derive(Clone, Debug, clap::Args)]
pub struct Config {
    /// The directory that holds the data; it is created if needed
    #[arg(long, env = "CHRONOS_DIR", value_name = "PATH", default_value = "./chronos-data", help_heading = "Data")]
    pub dir: PathBuf,

    /// What an acknowledged write has survived: `always` (on disk), an interval such as `1s` (a crash may lose that
    /// much), or `os` (the operating system writes when it likes)
    #[arg(long, env = "CHRONOS_DURABILITY", value_name = "always|DURATION|os", default_value = "always",
          value_parser = parse_durability, help_heading = "Data")]
    pub durability: Durability,

    /// How much memory the data may use: what is not yet in tables, caches, indexes
    #[arg(long, env = "CHRONOS_MEMORY", value_name = "SIZE", default_value = "256MiB", value_parser = parse_size,
          help_heading = "Data")]
    pub memory: usize,

    /// How tables are merged; may be another than the last time. `leveled`: little space, quick reads. `tiered`: fewer
    /// bytes written, up to three times the space, slower reads. `fifo`: nothing is merged, the oldest data is dropped
    #[arg(long, env = "CHRONOS_COMPACTION", value_name = "STRATEGY", default_value = "leveled", help_heading = "Data")]
    pub compaction: Compaction,

    /// How tables are compressed from now on, where it saves at least an eighth. `lz4`: quickly. `zstd`: the last level,
    /// which holds nearly everything, gets smaller, and reads from the disk take longer; lz4 above it. `none`: not at all
    #[arg(long, env = "CHRONOS_COMPRESSION", value_name = "KIND", default_value = "lz4", help_heading = "Data")]
    pub compression: TableCompression,

    /// Put values of at least this size apart, into files that compaction does not rewrite: fewer bytes written, one more
    /// read for each value. 0 puts none apart
    #[arg(long, env = "CHRONOS_BLOB_THRESHOLD", value_name = "SIZE", default_value = "4KiB", value_parser = parse_size,
          help_heading = "Data")]
    pub blob_threshold: usize,

    /// With `--compaction fifo`: drop data that was written longer ago than this [default: any age]
    #[arg(long, env = "CHRONOS_FIFO_MAX_AGE", value_name = "DURATION", value_parser = parse_duration,
          help_heading = "Data")]
    pub fifo_max_age: Option<Duration>,

    /// With `--compaction fifo`: drop the oldest data while all of it takes more than this [default: any size]
    #[arg(long, env = "CHRONOS_FIFO_MAX_SIZE", value_name = "SIZE", value_parser = parse_size, help_heading = "Data")]
    pub fifo_max_size: Option<usize>,

    /// How far back GETAT, RANGEAT, HISTORY and RESTOREAT can look; what is overwritten or deleted takes its space for as
    /// long. 0 keeps nothing
    #[arg(long, env = "CHRONOS_HISTORY", value_name = "DURATION", default_value = "0", value_parser = parse_history,
          help_heading = "Data")]
    pub history: Duration,

    /// Release snapshots that become older than this, so that they do not keep everything that was deleted since
    /// [default: any age]
    #[arg(long, env = "CHRONOS_SNAPSHOT_MAX_AGE", value_name = "DURATION", value_parser = parse_duration,
          help_heading = "Data")]
    pub snapshot_max_age: Option<Duration>,

    /// How many numbered databases SELECT offers
    #[arg(long, env = "CHRONOS_DATABASES", value_name = "N", default_value_t = 16, help_heading = "Data",
          value_parser = clap::value_parser!(u8).range(1..=MAX_DATABASES))]
    pub databases: u8,

    /// Where the CHECKPOINT command puts its copies, best on the file system of --dir [default: it is refused]
    #[arg(long, env = "CHRONOS_CHECKPOINT_DIR", value_name = "PATH", help_heading = "Data")]
    pub checkpoint_dir: Option<PathBuf>,

    /// The address to listen on
    #[arg(long, env = "CHRONOS_BIND", value_name = "ADDRESS", default_value = "127.0.0.1", help_heading = "Network")]
    pub bind: String,

    /// The TCP port; 0 takes a free one and logs it
    #[arg(long, short, env = "CHRONOS_PORT", value_name = "PORT", default_value_t = 6379, help_heading = "Network")]
    pub port: u16,

    /// Listen beyond loopback although no password is set: whoever reaches the port may do anything
    #[arg(long, env = "CHRONOS_NO_PROTECTED_MODE", value_parser = clap::builder::FalseyValueParser::new(),
          help_heading = "Network")]
    pub no_protected_mode: bool,

    /// How a connection that begins with a line of text is answered: `text` to a person, `resp` as Redis does
    #[arg(long, env = "CHRONOS_INLINE_REPLIES", value_name = "KIND", default_value = "text", help_heading = "Network")]
    pub inline_replies: InlineReplies,

    /// How many clients may be connected
    #[arg(long, env = "CHRONOS_MAX_CLIENTS", value_name = "N", default_value_t = 10_000, help_heading = "Limits",
          value_parser = parse_clients)]
    pub max_clients: usize,

    /// How long a line of the text dialect may be
    #[arg(long, env = "CHRONOS_MAX_LINE", value_name = "SIZE", default_value = "1MiB", value_parser = parse_size,
          help_heading = "Limits")]
    pub max_line: usize,

    /// Close connections that ask nothing for this long [default: never]
    #[arg(long, env = "CHRONOS_IDLE_TIMEOUT", value_name = "DURATION", value_parser = parse_duration,
          help_heading = "Limits")]
    pub idle_timeout: Option<Duration>,

    /// Give up a request that has begun when nothing more of it comes for this long, or when it takes longer than this
    /// and comes at less than 1 KiB a second
    #[arg(long, env = "CHRONOS_REQUEST_TIMEOUT", value_name = "DURATION", default_value = "60s",
          value_parser = parse_duration, help_heading = "Limits")]
    pub request_timeout: Duration,

    /// Close a client that reads nothing of what waits for it for this long
    #[arg(long, env = "CHRONOS_OUTPUT_TIMEOUT", value_name = "DURATION", default_value = "60s",
          value_parser = parse_duration, help_heading = "Limits")]
    pub output_timeout: Duration,

    /// Stop reading from a client while this much of its replies waits for it
    #[arg(long, env = "CHRONOS_OUTPUT_LIMIT", value_name = "SIZE", default_value = "1MiB", value_parser = parse_size,
          help_heading = "Limits")]
    pub output_limit: usize,

    /// When replies of this size wait for clients in all, those that do not read are closed after a second
    #[arg(long, env = "CHRONOS_OUTPUT_BUDGET", value_name = "SIZE", default_value = "256MiB",
          value_parser = parse_size, help_heading = "Limits")]
    pub output_budget: usize,
}

/// A namespace byte each, with room for the system's own.
const MAX_DATABASES: i64 = crate::keyspace::MAX_DATABASES as i64;

/// How tables are merged; the limits of `fifo` have flags of their own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Compaction {
    /// See [`Strategy::Leveled`].
    #[default]
    Leveled,
    /// See [`Strategy::Tiered`].
    Tiered,
    /// See [`Strategy::Fifo`].
    Fifo,
}

/// How tables are compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum TableCompression {
    /// See [`Compression::Lz4`].
    #[default]
    Lz4,
    /// See [`Compression::Zstd`].
    Zstd,
    /// See [`Compression::None`].
    None,
}

/// How a connection that begins with a line of text is answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum InlineReplies {
    /// To a person: `OK`, `(nil)`.
    #[default]
    Text,
    /// As Redis does: `+OK`, `$-1`.
    Resp,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            dir: "./chronos-data".into(),
            durability: Durability::Always,
            memory: 256 << 20,
            compaction: Compaction::Leveled,
            compression: TableCompression::Lz4,
            blob_threshold: 4 << 10,
            fifo_max_age: None,
            fifo_max_size: None,
            history: Duration::ZERO,
            snapshot_max_age: None,
            databases: 16,
            checkpoint_dir: None,
            bind: "127.0.0.1".into(),
            port: 6379,
            no_protected_mode: false,
            inline_replies: InlineReplies::Text,
            max_clients: 10_000,
            max_line: 1 << 20,
            idle_timeout: None,
            request_timeout: Duration::from_secs(60),
            output_timeout: Duration::from_secs(60),
            output_limit: 1 << 20,
            output_budget: 256 << 20,
        }
    }
}

impl Config {
    /// What the configuration alone can tell to be wrong.
    pub(crate) fn check(&self) -> Result<()> {
        if self.max_line > MAX_LINE {
            return Err(Error::Config(format!("--max-line may be at most {MAX_LINE} bytes: a line holds one value")));
        }
        let limited = self.fifo_max_age.is_some() || self.fifo_max_size.is_some();
        if limited && self.compaction != Compaction::Fifo {
            return Err(Error::Config(
                "--fifo-max-age and --fifo-max-size drop data: they need --compaction fifo".into(),
            ));
        }
        if !limited && self.compaction == Compaction::Fifo {
            return Err(Error::Config(
                "--compaction fifo needs --fifo-max-age or --fifo-max-size: what is to go?".into(),
            ));
        }
        if !self.history.is_zero() && self.compaction == Compaction::Fifo {
            return Err(Error::Config("--compaction fifo drops what --history is to keep: choose one of them".into()));
        }
        let Ok(mut addresses) = (self.bind.as_str(), self.port).to_socket_addrs() else {
            return Err(Error::Config(format!(
                "--bind {}: no such address; 127.0.0.1 is this machine alone, 0.0.0.0 is every interface",
                self.bind
            )));
        };
        if !self.no_protected_mode && addresses.any(|address| !address.ip().is_loopback()) {
            return Err(Error::Config(format!(
                "--bind {} would let everybody who reaches this machine read and change the data: \
                 bind to 127.0.0.1, or accept that with --no-protected-mode",
                self.bind
            )));
        }
        Ok(())
    }

    /// The engine's part.
    pub(crate) fn options(&self) -> Options {
        let compaction = match self.compaction {
            Compaction::Leveled => Strategy::Leveled,
            Compaction::Tiered => Strategy::Tiered,
            Compaction::Fifo => {
                Strategy::Fifo { max_age: self.fifo_max_age, max_bytes: self.fifo_max_size.map(|size| size as u64) }
            }
        };
        let compression = match self.compression {
            TableCompression::Lz4 => Compression::Lz4,
            TableCompression::Zstd => Compression::Zstd,
            TableCompression::None => Compression::None,
        };
        let options = Options::new().durability(self.durability).memory(self.memory);
        let options = options.compaction(compaction).compression(compression).history(self.history);
        let options = options.blob_threshold(Some(self.blob_threshold).filter(|bytes| *bytes > 0));
        match self.snapshot_max_age {
            Some(age) => options.snapshot_max_age(age),
            None => options,
        }
    }

    pub(crate) fn limits(&self) -> Limits {
        Limits {
            idle: self.idle_timeout,
            incomplete: self.request_timeout,
            output: self.output_limit,
            stuck: self.output_timeout,
            output_in_all: self.output_budget,
        }
    }

    pub(crate) fn decoding(&self) -> protocol::Limits {
        protocol::Limits {
            max_line: self.max_line,
            inline_replies: match self.inline_replies {
                InlineReplies::Text => protocol::InlineReplies::Text,
                InlineReplies::Resp => protocol::InlineReplies::Resp,
            },
            ..protocol::Limits::default()
        }
    }

    /// As CONFIG GET shows it: under Redis's names, with Redis's values, where it has them; then our own.
    pub(crate) fn shown(&self, port: u16) -> Vec<(String, String)> {
        let (appendonly, appendfsync) = match self.durability {
            Durability::Always => ("yes", "always"),
            Durability::Interval(_) => ("yes", "everysec"),
            Durability::Os => ("yes", "no"),
        };
        let yes_or_no = |yes: bool| if yes { "yes" } else { "no" };
        let seconds = |timeout: Option<Duration>| timeout.map_or(0, |timeout| timeout.as_secs()).to_string();
        [
            ("appendfsync", appendfsync.to_owned()),
            ("appendonly", appendonly.to_owned()),
            ("bind", self.bind.clone()),
            ("databases", self.databases.to_string()),
            ("dir", self.dir.display().to_string()),
            ("maxclients", self.max_clients.to_string()),
            ("maxmemory", self.memory.to_string()),
            ("port", port.to_string()),
            ("proto-max-bulk-len", protocol::Limits::default().max_bulk.to_string()),
            ("protected-mode", yes_or_no(!self.no_protected_mode).to_owned()),
            ("save", String::new()),
            ("timeout", seconds(self.idle_timeout)),
            ("compaction", format!("{:?}", self.compaction).to_lowercase()),
            ("blob-threshold", self.blob_threshold.to_string()),
            ("compression", format!("{:?}", self.compression).to_lowercase()),
            ("durability", show_durability(self.durability)),
            ("checkpoint-dir", self.checkpoint_dir.as_ref().map_or(String::new(), |dir| dir.display().to_string())),
            ("history", show_history(self.history)),
            ("inline-replies", format!("{:?}", self.inline_replies).to_lowercase()),
            ("max-line", self.max_line.to_string()),
            ("output-budget", self.output_budget.to_string()),
            ("output-limit", self.output_limit.to_string()),
            ("output-timeout", show_duration(self.output_timeout)),
            ("request-timeout", show_duration(self.request_timeout)),
            ("snapshot-max-age", self.snapshot_max_age.map_or("0".to_owned(), show_duration)),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .to_vec()
    }
}

/// A line holds a value and little more.
const MAX_LINE: usize = crate::engine::MAX_VALUE_BYTES;

fn parse_durability(text: &str) -> std::result::Result<Durability, String> {
    match text {
        "always" => Ok(Durability::Always),
        "os" => Ok(Durability::Os),
        _ => match parse_duration(text) {
            Ok(interval) if interval.is_zero() => Ok(Durability::Always),
            Ok(interval) => Ok(Durability::Interval(interval)),
            Err(_) => Err("durability is `always`, `os`, or an interval such as 100ms or 1s".to_owned()),
        },
    }
}

pub(crate) fn show_durability(durability: Durability) -> String {
    match durability {
        Durability::Always => "always".to_owned(),
        Durability::Interval(interval) => show_duration(interval),
        Durability::Os => "os".to_owned(),
    }
}

fn parse_history(text: &str) -> std::result::Result<Duration, String> {
    if text.trim() == "0" { Ok(Duration::ZERO) } else { parse_duration(text) }
}

fn show_history(window: Duration) -> String {
    if window.is_zero() { "0".to_owned() } else { show_duration(window) }
}

fn parse_clients(text: &str) -> std::result::Result<usize, String> {
    match text.parse() {
        Ok(clients) if clients > 0 => Ok(clients),
        _ => Err("at least 1".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        config: Config,
    }

    #[test]
    fn the_defaults_of_the_flags_are_those_of_the_library() {
        let line = Line::try_parse_from(["chronos-server"]).unwrap();
        assert_eq!(format!("{:?}", line.config), format!("{:?}", Config::default()));
    }

    #[test]
    fn durability_is_read_as_it_is_shown() {
        for text in ["always", "os", "1s", "250ms"] {
            assert_eq!(show_durability(parse_durability(text).unwrap()), text);
        }
        assert!(parse_durability("sometimes").is_err());
    }

    #[test]
    fn only_fifo_drops_data_and_only_with_a_limit() {
        let check = |arguments: &str| {
            let line = Line::try_parse_from(format!("chronos-server {arguments}").split_whitespace()).unwrap();
            line.config.check().is_ok()
        };
        assert!(check("--compaction tiered") && check("--compaction leveled"));
        assert!(check("--compaction fifo --fifo-max-age 24h") && check("--compaction fifo --fifo-max-size 10GiB"));
        assert!(!check("--compaction fifo"), "it would only ever grow");
        assert!(check("--history 24h") && check("--history 0 --compaction fifo --fifo-max-age 24h"));
        assert!(!check("--history 24h --compaction fifo --fifo-max-age 24h"), "it would drop what is to be kept");
        assert!(!check("--fifo-max-age 24h") && !check("--compaction tiered --fifo-max-size 10GiB"));
    }

    #[test]
    fn beyond_loopback_only_on_purpose() {
        let check = |bind: &str, no_protected_mode| {
            Config { bind: bind.into(), no_protected_mode, ..Config::default() }.check().is_ok()
        };
        assert!(check("127.0.0.1", false) && check("::1", false) && check("127.8.8.8", false));
        assert!(!check("0.0.0.0", false) && !check("::", false) && !check("10.1.2.3", false));
        assert!(check("0.0.0.0", true));
        assert!(!check("no such host", true));
    }
}
