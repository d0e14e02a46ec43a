//! SET and its relatives, and the options for a time to live that they share.

use super::Context;
use super::argument::{integer, is};
use super::refusal::Refusal;
use super::spec::Flag::{DenyOom, Fast, Write};
use super::spec::{Answer, Group, Keys, Spec};
use super::strings::bulk_or_nil;
use crate::keyspace::{Condition, Lifetime, SetOptions};
use crate::protocol::{Reply, Request};

pub(super) const COMMANDS: &[Spec] = &[
    Spec {
        name: "SET",
        arity: -3,
        flags: &[Write, DenyOom],
        keys: Keys::ONE,
        group: Group::String,
        summary: "Sets a key, if the condition holds; GET answers with the old value",
        syntax: "key value [NX | XX] [GET] [EX seconds | PX milliseconds | EXAT unix-seconds | \
                 PXAT unix-milliseconds | KEEPTTL]",
        example: r#"SET user:101 {"name": "Venom", "role": "Symbiote"}"#,
        tail: Some(2),
        ..Spec::new(set)
    },
    Spec {
        name: "SETNX",
        arity: 3,
        flags: &[Write, DenyOom, Fast],
        keys: Keys::ONE,
        group: Group::String,
        summary: "Sets a key if it does not exist; 1 if it did so",
        syntax: "key value",
        example: "SETNX lock:7 me",
        tail: Some(2),
        ..Spec::new(setnx)
    },
    Spec {
        name: "SETEX",
        arity: 4,
        flags: &[Write, DenyOom],
        keys: Keys::ONE,
        group: Group::String,
        summary: "Sets a key for so many seconds",
        syntax: "key seconds value",
        example: "SETEX session:9 60 any text up to the end of the line",
        tail: Some(3),
        ..Spec::new(|context, request| set_for(context, request, Unit::Seconds))
    },
    Spec {
        name: "PSETEX",
        arity: 4,
        flags: &[Write, DenyOom],
        keys: Keys::ONE,
        group: Group::String,
        summary: "Sets a key for so many milliseconds",
        syntax: "key milliseconds value",
        example: "PSETEX session:9 60000 any text up to the end of the line",
        tail: Some(3),
        ..Spec::new(|context, request| set_for(context, request, Unit::Milliseconds))
    },
    Spec {
        name: "GETSET",
        arity: 3,
        flags: &[Write, DenyOom, Fast],
        keys: Keys::ONE,
        group: Group::String,
        summary: "Sets a key and answers with its old value",
        syntax: "key value",
        example: "GETSET state stopped",
        tail: Some(2),
        ..Spec::new(getset)
    },
    Spec {
        name: "GETEX",
        arity: -2,
        flags: &[Write, Fast],
        keys: Keys::ONE,
        group: Group::String,
        summary: "The value of a key, whose time to live is changed",
        syntax: "key [EX seconds | PX milliseconds | EXAT unix-seconds | PXAT unix-milliseconds | PERSIST]",
        example: "GETEX session:9 EX 60",
        ..Spec::new(getex)
    },
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Unit {
    Seconds,
    Milliseconds,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Base {
    Now,
    Epoch,
}

/// A time to live as it was written; what it comes to is asked for later, since the command is looked at as a whole
/// first.
#[derive(Clone, Copy)]
struct Expiry<'r> {
    word: &'r [u8],
    unit: Unit,
    base: Base,
}

impl<'r> Expiry<'r> {
    /// The option at word `at`, with its argument behind it. As in Redis, an option may be said again, and its last
    /// argument counts; a different one is an error.
    fn parse(request: &Request<'r>, at: usize, before: Option<Expiry<'r>>) -> Result<Expiry<'r>, Refusal> {
        let option = request.arg(at);
        let (unit, base) = match () {
            () if is(option, "EX") => (Unit::Seconds, Base::Now),
            () if is(option, "PX") => (Unit::Milliseconds, Base::Now),
            () if is(option, "EXAT") => (Unit::Seconds, Base::Epoch),
            () if is(option, "PXAT") => (Unit::Milliseconds, Base::Epoch),
            () => return Err(Refusal::SYNTAX),
        };
        let agrees = before.is_none_or(|before| (before.unit, before.base) == (unit, base));
        if !agrees || at + 1 == request.len() {
            return Err(Refusal::SYNTAX);
        }
        Ok(Expiry { word: request.arg(at + 1), unit, base })
    }

    /// Milliseconds since 1970.
    fn resolve(&self, now: u64, command: &[u8]) -> Result<u64, Refusal> {
        let value = integer(self.word)?;
        let ms = match self.unit {
            Unit::Seconds => value.checked_mul(1000),
            Unit::Milliseconds => Some(value),
        };
        let at = match self.base {
            Base::Now => ms.and_then(|ms| ms.checked_add_unsigned(now)),
            Base::Epoch => ms,
        };
        match at {
            Some(at) if value > 0 => Ok(at as u64),
            _ => Err(Refusal::expire_time(command)),
        }
    }
}

fn set(context: &mut Context<'_>, request: &Request<'_>) -> Answer {
    let mut options = SetOptions::default();
    let mut expiry: Option<Expiry<'_>> = None;
    let mut keep = false;
    let mut at = 3;
    while at < request.len() {
        let word = request.arg(at);
        match () {
            () if is(word, "NX") && options.condition != Condition::IfPresent => {
                options.condition = Condition::IfAbsent;
            }
            () if is(word, "XX") && options.condition != Condition::IfAbsent => {
                options.condition = Condition::IfPresent;
            }
            () if is(word, "GET") => options.previous = true,
            () if is(word, "KEEPTTL") && expiry.is_none() => keep = true,
            () if keep => return Err(Refusal::SYNTAX),
            () => {
                expiry = Some(Expiry::parse(request, at, expiry)?);
                at += 1;
            }
        }
        at += 1;
    }
    options.lifetime = match expiry {
        Some(expiry) => Lifetime::Until(expiry.resolve(context.keyspace.db.now(), b"set")?),
        None if keep => Lifetime::Keep,
        None => Lifetime::Forever,
    };
    let result = context.database().set(request.arg(1), request.arg(2), options)?;
    let result = context.settle(result);
    Ok(match (options.previous, result.written) {
        (true, _) => bulk_or_nil(result.previous),
        (false, true) => Reply::OK,
        (false, false) => Reply::Nil,
    })
}

fn setnx(context: &mut Context<'_>, request: &Request<'_>) -> Answer {
    let options = SetOptions { condition: Condition::IfAbsent, ..SetOptions::default() };
    let result = context.database().set(request.arg(1), request.arg(2), options)?;
    Ok(Reply::Int(context.settle(result).written.into()))
}

fn set_for(context: &mut Context<'_>, request: &Request<'_>, unit: Unit) -> Answer {
    let expiry = Expiry { word: request.arg(2), unit, base: Base::Now };
    let until = expiry.resolve(context.keyspace.db.now(), request.arg(0))?;
    let options = SetOptions { lifetime: Lifetime::Until(until), ..SetOptions::default() };
    let result = context.database().set(request.arg(1), request.arg(3), options)?;
    context.settle(result);
    Ok(Reply::OK)
}

fn getset(context: &mut Context<'_>, request: &Request<'_>) -> Answer {
    let options = SetOptions { previous: true, ..SetOptions::default() };
    let result = context.database().set(request.arg(1), request.arg(2), options)?;
    Ok(bulk_or_nil(context.settle(result).previous))
}

fn getex(context: &mut Context<'_>, request: &Request<'_>) -> Answer {
    let mut expiry: Option<Expiry<'_>> = None;
    let mut persist = false;
    let mut at = 2;
    while at < request.len() {
        match () {
            () if is(request.arg(at), "PERSIST") && expiry.is_none() => persist = true,
            () if persist => return Err(Refusal::SYNTAX),
            () => {
                expiry = Some(Expiry::parse(request, at, expiry)?);
                at += 1;
            }
        }
        at += 1;
    }
    if expiry.is_none() && !persist {
        let value = context.database().get(request.arg(1))?;
        return Ok(bulk_or_nil(context.settle(value)));
    }
    let now = context.keyspace.db.now();
    let outcome = context.database().update(request.arg(1), |edit| {
        let Some(value) = edit.current().cloned() else { return Ok(Reply::Nil) };
        match expiry.map(|expiry| expiry.resolve(now, b"getex")).transpose()? {
            Some(at) if at <= now => edit.delete(),
            Some(at) => edit.expire_at(Some(at)),
            None if value.expires_at.is_some() => edit.expire_at(None),
            None => {}
        }
        Ok(Reply::Bulk(value.data))
    })?;
    context.settle(outcome)
}
