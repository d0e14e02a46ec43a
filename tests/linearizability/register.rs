//! One key as its clients know it: what may be asked of it, and what is right to answer. Written anew and not taken from
//! the library: what is tested must not be its own judge.

use std::fmt;
use std::sync::Arc;

use chronos::codec::Rng;

/// What a key holds.
pub type Value = Arc<[u8]>;

/// `None`: there is no such key.
pub type State = Option<Value>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    Always,
    IfAbsent,
    IfPresent,
}

/// A command on one key.
#[derive(Clone, Debug)]
pub enum Operation {
    Get,
    /// RANGE over this key alone.
    Scan,
    Set {
        value: Value,
        condition: Condition,
        /// Whether the answer is the old value.
        get: bool,
    },
    Incr(i64),
    Append(Value),
    Del,
    GetDel,
    /// RANGE.DEL over this key alone.
    DelRange,
}

/// What a client was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    Ok,
    Nil,
    Number(i64),
    Value(Value),
    /// INCR of what is no number: an answer like any other, and nothing may have changed.
    Refused,
}

fn integer(value: &[u8]) -> Option<i64> {
    std::str::from_utf8(value).ok()?.parse().ok()
}

fn old(state: &State) -> Reply {
    state.clone().map_or(Reply::Nil, Reply::Value)
}

impl Operation {
    /// What it makes of a key, and what is said about that.
    pub fn apply(&self, state: &State) -> (State, Reply) {
        match self {
            Operation::Get | Operation::Scan => (state.clone(), old(state)),
            Operation::Set { value, condition, get } => {
                let done = match condition {
                    Condition::Always => true,
                    Condition::IfAbsent => state.is_none(),
                    Condition::IfPresent => state.is_some(),
                };
                let reply = match (get, done) {
                    (true, _) => old(state),
                    (false, true) => Reply::Ok,
                    (false, false) => Reply::Nil,
                };
                (if done { Some(value.clone()) } else { state.clone() }, reply)
            }
            Operation::Incr(by) => match state.as_ref().map_or(Some(0), |value| integer(value)) {
                Some(number) => (Some((number + by).to_string().into_bytes().into()), Reply::Number(number + by)),
                None => (state.clone(), Reply::Refused),
            },
            Operation::Append(piece) => {
                let value = [state.as_deref().unwrap_or(b""), piece].concat();
                let len = value.len() as i64;
                (Some(value.into()), Reply::Number(len))
            }
            Operation::Del => (None, Reply::Number(state.is_some().into())),
            Operation::GetDel => (None, old(state)),
            Operation::DelRange => (None, Reply::Ok),
        }
    }

    pub fn writes(&self) -> bool {
        !matches!(self, Operation::Get | Operation::Scan)
    }

    /// Whether it left everything as it was, whatever that was.
    pub fn changed_nothing(&self, reply: &Reply) -> bool {
        match self {
            _ if !self.writes() => true,
            Operation::Set { condition, get: false, .. } => *condition != Condition::Always && *reply == Reply::Nil,
            Operation::Set { condition: Condition::IfAbsent, get: true, .. } => *reply != Reply::Nil,
            Operation::Set { condition: Condition::IfPresent, get: true, .. } => *reply == Reply::Nil,
            Operation::Set { condition: Condition::Always, get: true, .. } => false,
            Operation::Incr(_) => *reply == Reply::Refused,
            Operation::Append(_) => false,
            Operation::Del => *reply == Reply::Number(0),
            Operation::GetDel => *reply == Reply::Nil,
            Operation::Get | Operation::Scan | Operation::DelRange => false,
        }
    }

    /// One at random. `name` is said by no other operation, so a value tells who wrote it.
    pub fn random(rng: &mut Rng, name: u64, large: usize) -> Operation {
        match rng.below(100) {
            0..25 => Operation::Get,
            25..31 => Operation::Scan,
            31..57 => {
                let condition = match rng.below(4) {
                    0..2 => Condition::Always,
                    2 => Condition::IfAbsent,
                    _ => Condition::IfPresent,
                };
                Operation::Set { value: random_value(rng, name, large), condition, get: rng.chance(1, 3) }
            }
            57..69 => Operation::Incr(*rng.pick(&[1, 1, 1, -1, 7])),
            69..76 => Operation::Append(format!(";{name}").into_bytes().into()),
            76..88 => Operation::Del,
            88..94 => Operation::GetDel,
            _ => Operation::DelRange,
        }
    }
}

/// A number that INCR can count on from, or words; some of them `large`.
fn random_value(rng: &mut Rng, name: u64, large: usize) -> Value {
    match rng.below(6) {
        0..3 => (name * 1_000).to_string().into_bytes().into(),
        3..5 => format!("v{name}").into_bytes().into(),
        _ => {
            let mut value = format!("v{name}:").into_bytes();
            value.resize(value.len() + large, b'.');
            value.into()
        }
    }
}

/// As much of a value as is worth reading.
fn shown(value: &[u8]) -> String {
    const ENOUGH: usize = 40;
    match value.len() {
        0..=ENOUGH => value.escape_ascii().to_string(),
        len => format!("{}.. ({len} bytes)", value[..ENOUGH / 2].escape_ascii()),
    }
}

/// A state as a person reads it.
pub fn shown_state(state: &State) -> String {
    state.as_deref().map_or("nothing".to_owned(), shown)
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Operation::Get => f.write_str("GET"),
            Operation::Scan => f.write_str("RANGE"),
            Operation::Set { value, condition, get } => {
                let condition = match condition {
                    Condition::Always => "",
                    Condition::IfAbsent => " NX",
                    Condition::IfPresent => " XX",
                };
                write!(f, "SET {}{condition}{}", shown(value), if *get { " GET" } else { "" })
            }
            Operation::Incr(by) => write!(f, "INCRBY {by}"),
            Operation::Append(piece) => write!(f, "APPEND {}", shown(piece)),
            Operation::Del => f.write_str("DEL"),
            Operation::GetDel => f.write_str("GETDEL"),
            Operation::DelRange => f.write_str("RANGE.DEL"),
        }
    }
}

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reply::Ok => f.write_str("OK"),
            Reply::Nil => f.write_str("(nil)"),
            Reply::Number(number) => write!(f, "{number}"),
            Reply::Value(value) => f.write_str(&shown(value)),
            Reply::Refused => f.write_str("(refused)"),
        }
    }
}
