//! A command's row: all that is known of it before it runs.
//!
//! Dispatch checks it once; COMMAND, HELP and `docs/commands.md` are made from it, and the tests run over it.

use super::Context;
use super::refusal::Refusal;
use crate::protocol::{Reply, Request};

/// What a command's function returns: a reply, or why there is none.
pub(crate) type Answer = Result<Reply, Refusal>;

pub(crate) type Run = fn(&mut Context<'_>, &Request<'_>) -> Answer;

/// One command, or one subcommand of a command.
pub(crate) struct Spec {
    /// In upper case; a subcommand's own word only.
    pub(crate) name: &'static str,
    /// How many words a request has, its name (and subcommand) included; `-n` is "n or more".
    pub(crate) arity: i32,
    pub(crate) flags: &'static [Flag],
    pub(crate) keys: Keys,
    pub(crate) group: Group,
    /// The first version of Chronos that has it.
    pub(crate) since: &'static str,
    pub(crate) summary: &'static str,
    /// What follows the name (and subcommand), in the notation of [`super::syntax`].
    pub(crate) syntax: &'static str,
    /// A request, as one would type it.
    pub(crate) example: &'static str,
    /// In the text dialect, the word that takes the rest of the line.
    pub(crate) tail: Option<usize>,
    pub(crate) subcommands: &'static [Spec],
    pub(crate) run: Run,
}

impl Spec {
    /// What most rows agree on.
    pub(crate) const fn new(run: Run) -> Spec {
        Spec {
            name: "",
            arity: 0,
            flags: &[],
            keys: Keys::NONE,
            group: Group::Server,
            since: "0.1.0",
            summary: "",
            syntax: "",
            example: "",
            tail: None,
            subcommands: &[],
            run,
        }
    }

    pub(crate) fn has(&self, flag: Flag) -> bool {
        self.flags.contains(&flag)
    }

    /// Whether a request of so many words may run.
    pub(crate) fn accepts(&self, words: usize) -> bool {
        let least = self.arity.unsigned_abs() as usize;
        if self.arity < 0 { words >= least } else { words == least }
    }

    /// The subcommand that is called `name`, in any case.
    pub(crate) fn subcommand(&self, name: &[u8]) -> Option<&'static Spec> {
        self.subcommands.iter().find(|spec| spec.name.as_bytes().eq_ignore_ascii_case(name))
    }
}

/// What dispatch and clients may know about a command. The names are Redis's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flag {
    Write,
    Readonly,
    DenyOom,
    Admin,
    Noscript,
    Loading,
    Stale,
    Fast,
    NoAuth,
}

impl Flag {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Flag::Write => "write",
            Flag::Readonly => "readonly",
            Flag::DenyOom => "denyoom",
            Flag::Admin => "admin",
            Flag::Noscript => "noscript",
            Flag::Loading => "loading",
            Flag::Stale => "stale",
            Flag::Fast => "fast",
            Flag::NoAuth => "no_auth",
        }
    }
}

/// Which words are keys: from `first` to `last` (counted from the end if negative), each `step`-th. All 0 for none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Keys {
    pub(crate) first: i32,
    pub(crate) last: i32,
    pub(crate) step: i32,
}

impl Keys {
    pub(crate) const NONE: Keys = Keys { first: 0, last: 0, step: 0 };
    pub(crate) const ONE: Keys = Keys { first: 1, last: 1, step: 1 };
    /// Behind a subcommand.
    pub(crate) const SECOND: Keys = Keys { first: 2, last: 2, step: 1 };
    pub(crate) const ALL: Keys = Keys { first: 1, last: -1, step: 1 };
    pub(crate) const PAIRS: Keys = Keys { first: 1, last: -1, step: 2 };

    /// The key positions in a request of so many words.
    pub(crate) fn positions(self, words: usize) -> impl Iterator<Item = usize> {
        let last = if self.last < 0 { words as i64 + i64::from(self.last) } else { i64::from(self.last) };
        let end = if self.first == 0 { 0 } else { (last + 1).clamp(0, words as i64) as usize };
        (self.first.max(0) as usize..end).step_by(self.step.max(1) as usize)
    }
}

/// Chapters of HELP, in its order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Group {
    String,
    Generic,
    Range,
    Past,
    Connection,
    Server,
}

impl Group {
    pub(crate) const ALL: [Group; 6] =
        [Group::String, Group::Generic, Group::Range, Group::Past, Group::Connection, Group::Server];

    pub(crate) fn title(self) -> &'static str {
        match self {
            Group::String => "Strings and counters",
            Group::Generic => "Keys and expiry",
            Group::Range => "Ranges of keys, in order",
            Group::Past => "The past, with --history",
            Group::Connection => "Connection",
            Group::Server => "Server",
        }
    }

    /// As COMMAND DOCS has it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Group::String => "string",
            Group::Generic => "generic",
            Group::Range => "range",
            Group::Past => "past",
            Group::Connection => "connection",
            Group::Server => "server",
        }
    }
}
