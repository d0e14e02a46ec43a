//! Counters: numbers kept as their decimal text.

use super::argument::{canonical_integer, integer};
use super::refusal::Refusal;
use super::spec::Flag::{DenyOom, Fast, Write};
use super::spec::{Answer, Group, Keys, Spec};
use super::{Context, decimal};
use crate::protocol::{Reply, Request};

pub(super) const COMMANDS: &[Spec] = &[
    Spec {
        name: "INCR",
        arity: 2,
        summary: "Adds 1 to a counter; what it is then",
        syntax: "key",
        example: "INCR visits",
        ..counter(|context, request| add(context, request.arg(1), 1))
    },
    Spec {
        name: "DECR",
        arity: 2,
        summary: "Takes 1 from a counter; what it is then",
        syntax: "key",
        example: "DECR stock:7",
        ..counter(|context, request| add(context, request.arg(1), -1))
    },
    Spec {
        name: "INCRBY",
        arity: 3,
        summary: "Adds to a counter; what it is then",
        syntax: "key increment",
        example: "INCRBY visits 10",
        ..counter(|context, request| add(context, request.arg(1), integer(request.arg(2))?))
    },
    Spec {
        name: "DECRBY",
        arity: 3,
        summary: "Takes from a counter; what it is then",
        syntax: "key decrement",
        example: "DECRBY stock:7 3",
        ..counter(decrby)
    },
    Spec {
        name: "INCRBYFLOAT",
        arity: 3,
        summary: "Adds a decimal number to a counter; what it is then",
        syntax: "key increment",
        example: "INCRBYFLOAT price:7 0.5",
        ..counter(incrbyfloat)
    },
];

const fn counter(run: super::spec::Run) -> Spec {
    Spec { flags: &[Write, DenyOom, Fast], keys: Keys::ONE, group: Group::String, ..Spec::new(run) }
}

fn add(context: &mut Context<'_>, key: &[u8], increment: i64) -> Answer {
    let outcome = context.database().update(key, |edit| {
        let old = match edit.current() {
            Some(value) => canonical_integer(&value.data).ok_or(Refusal::NOT_AN_INTEGER)?,
            None => 0,
        };
        let new = old.checked_add(increment).ok_or(Refusal::new("ERR increment or decrement would overflow"))?;
        edit.put_keeping_expiry(&[digits(new, &mut [0; DIGITS])])?;
        Ok(Reply::Int(new))
    })?;
    context.settle(outcome)
}

/// The longest i64 is -9223372036854775808.
const DIGITS: usize = 20;

/// `value` in decimal, without an allocation: a hot counter is all that some servers do.
fn digits(value: i64, buffer: &mut [u8; DIGITS]) -> &[u8] {
    let mut rest = value.unsigned_abs();
    let mut at = DIGITS;
    loop {
        at -= 1;
        buffer[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    if value < 0 {
        at -= 1;
        buffer[at] = b'-';
    }
    &buffer[at..]
}

fn decrby(context: &mut Context<'_>, request: &Request<'_>) -> Answer {
    let increment = integer(request.arg(2))?.checked_neg().ok_or(Refusal::new("ERR decrement would overflow"))?;
    add(context, request.arg(1), increment)
}

fn incrbyfloat(context: &mut Context<'_>, request: &Request<'_>) -> Answer {
    let increment = request.arg(2);
    let outcome = context.database().update(request.arg(1), |edit| {
        let sum = decimal::add(edit.current().map_or(b"0", |value| &value.data), increment)
            .ok_or(Refusal::NOT_A_FLOAT)?
            .map_err(|_| Refusal::new("ERR increment would produce NaN or Infinity"))?;
        edit.put_keeping_expiry(&[sum.as_bytes()])?;
        Ok(Reply::Text(sum))
    })?;
    context.settle(outcome)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_those_of_the_number() {
        for value in [0, 7, -7, 10, i64::MAX, i64::MIN] {
            assert_eq!(digits(value, &mut [0; DIGITS]), value.to_string().as_bytes());
        }
    }
}
