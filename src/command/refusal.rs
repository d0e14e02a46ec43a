//! Why a command gave no answer: the text of an error reply, code first. Where Redis has the case, the text is its.

use std::borrow::Cow;

use super::time;
use crate::engine;
use crate::keyspace;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal(pub(crate) Cow<'static, str>);

impl Refusal {
    pub(crate) const SYNTAX: Refusal = Refusal::new("ERR syntax error");
    pub(crate) const NOT_AN_INTEGER: Refusal = Refusal::new("ERR value is not an integer or out of range");
    pub(crate) const NOT_A_FLOAT: Refusal = Refusal::new("ERR value is not a valid float");
    pub(crate) const STRING_TOO_LONG: Refusal =
        Refusal::new("ERR string exceeds maximum allowed size (proto-max-bulk-len)");

    pub(crate) const fn new(text: &'static str) -> Refusal {
        Refusal(Cow::Borrowed(text))
    }

    /// `name` is the command's in lower case, `container|subcommand` for a subcommand.
    pub(crate) fn arity(name: &str) -> Refusal {
        Refusal(format!("ERR wrong number of arguments for '{name}' command").into())
    }

    pub(crate) fn expire_time(command: &[u8]) -> Refusal {
        let name = String::from_utf8_lossy(command).to_lowercase();
        Refusal(format!("ERR invalid expire time in '{name}' command").into())
    }
}

impl From<String> for Refusal {
    fn from(text: String) -> Refusal {
        Refusal(text.into())
    }
}

impl From<keyspace::Error> for Refusal {
    fn from(error: keyspace::Error) -> Refusal {
        match error {
            keyspace::Error::Engine(error) => error.into(),
            keyspace::Error::ValueTooLong => Refusal::STRING_TOO_LONG,
            other => format!("ERR {other}").into(),
        }
    }
}

impl From<engine::Error> for Refusal {
    fn from(error: engine::Error) -> Refusal {
        match error {
            engine::Error::ReadOnly(_) => format!("MISCONF {error}").into(),
            engine::Error::OutsideHistory { oldest } => {
                let shown = time::show(oldest);
                format!("ERR that time is not in the history: the oldest that can be read is {shown} ({oldest})").into()
            }
            engine::Error::NoHistory => {
                Refusal::new("ERR no history is kept: start the server with --history DURATION, such as --history 24h")
            }
            engine::Error::Closed => Refusal::new("ERR the server is shutting down"),
            _ => format!("ERR {error}").into(),
        }
    }
}
