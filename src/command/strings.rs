//! Strings: read, write and change them in part.

use super::Context;
use super::argument::integer;
use super::refusal::Refusal;
use super::spec::Flag::{DenyOom, Fast, Readonly, Write};
use super::spec::{Answer, Group, Keys, Spec};
use crate::codec::{Few, Slice};
use crate::engine::Outcome;
use crate::keyspace::Value;
use crate::protocol::{Reply, Request};

pub(super) const COMMANDS: &[Spec] = &[
    Spec {
        name: "GET",
        arity: 2,
        flags: &[Readonly, Fast],
        keys: Keys::ONE,
        group: Group::String,
        summary: "The value of a key",
        syntax: "key",
        example: "GET user:101",
        ..Spec::new(get)
    },
    Spec {
        name: "MGET",
        arity: -2,
        flags: &[Readonly, Fast],
        keys: Keys::ALL,
        group: Group::String,
        summary: "The values of several keys, as of one moment",
        syntax: "key [key ...]",
        example: "MGET user:101 user:102",
        ..Spec::new(mget)
    },
    Spec {
        name: "MSET",
        arity: -3,
        flags: &[Write, DenyOom],
        keys: Keys::PAIRS,
        group: Group::String,
        summary: "Sets several keys together",
        syntax: "key value [key value ...]",
        example: "MSET a 1 b 2",
        ..Spec::new(mset)
    },
    Spec {
        name: "MSETNX",
        arity: -3,
        flags: &[Write, DenyOom],
        keys: Keys::PAIRS,
        group: Group::String,
        summary: "Sets several keys together if none of them exists",
        syntax: "key value [key value ...]",
        example: "MSETNX a 1 b 2",
        ..Spec::new(msetnx)
    },
    Spec {
        name: "GETDEL",
        arity: 2,
        flags: &[Write, Fast],
        keys: Keys::ONE,
        group: Group::String,
        summary: "The value of a key, which is deleted",
        syntax: "key",
        example: "GETDEL token:7",
        ..Spec::new(getdel)
    },
    Spec {
        name: "APPEND",
        arity: 3,
        flags: &[Write, DenyOom, Fast],
        keys: Keys::ONE,
        group: Group::String,
        summary: "Puts bytes behind a value; the length it has then",
        syntax: "key value",
        example: "APPEND log:today one more line",
        tail: Some(2),
        ..Spec::new(append)
    },
    Spec {
        name: "STRLEN",
        arity: 2,
        flags: &[Readonly, Fast],
        keys: Keys::ONE,
        group: Group::String,
        summary: "How many bytes a value has",
        syntax: "key",
        example: "STRLEN user:101",
        ..Spec::new(strlen)
    },
    Spec {
        name: "GETRANGE",
        arity: 4,
        flags: &[Readonly],
        keys: Keys::ONE,
        group: Group::String,
        summary: "Bytes of a value from one offset to another, both included; negative ones count from the end",
        syntax: "key start end",
        example: "GETRANGE greeting 0 4",
        ..Spec::new(getrange)
    },
    Spec {
        name: "SUBSTR",
        arity: 4,
        flags: &[Readonly],
        keys: Keys::ONE,
        group: Group::String,
        summary: "An older name of GETRANGE",
        syntax: "key start end",
        example: "SUBSTR greeting 0 4",
        ..Spec::new(getrange)
    },
    Spec {
        name: "SETRANGE",
        arity: 4,
        flags: &[Write, DenyOom],
        keys: Keys::ONE,
        group: Group::String,
        summary: "Overwrites a value from an offset on, padding with zero bytes; the length it has then",
        syntax: "key offset value",
        example: "SETRANGE greeting 6 Redis",
        tail: Some(3),
        ..Spec::new(setrange)
    },
];

/// A value as a reply; no key, no value.
pub(super) fn bulk_or_nil(value: Option<Value>) -> Reply {
    value.map_or(Reply::Nil, |value| Reply::Bulk(value.data))
}

fn get(context: &mut Context<'_>, request: &Request<'_>) -> Answer {
    get_key(context, request.arg(1))
}

/// GET.
pub(super) fn get_key(context: &mut Context<'_>, key: &[u8]) -> Answer {
    let value = context.database().get(key)?;
    Ok(bulk_or_nil(context.settle(value)))
}

/// Several GETs, as far as that takes no reading of files.
pub(super) fn get_cached(context: &Context<'_>, keys: &[&[u8]]) -> Few<Option<Outcome<Reply>>> {
    let values = context.database().get_cached(keys.iter().copied()).into_iter();
    values.map(|value| value.map(|Outcome { value, seq }| Outcome { value: bulk_or_nil(value), seq })).collect()
}

fn mget(context: &mut Context<'_>, request: &Request<'_>) -> Answer {
    let values = context.database().get_many(request.args(1))?;
    Ok(Reply::Array(context.settle(values).into_iter().map(bulk_or_nil).collect()))
}

/// The keys and values of MSET and MSETNX.
fn pairs<'r>(
    request: &Request<'r>,
    name: &str,
) -> Result<impl ExactSizeIterator<Item = (&'r [u8], &'r [u8])> + Clone + use<'r>, Refusal> {
    if request.len().is_multiple_of(2) {
        return Err(Refusal::arity(name));
    }
    let request = *request;
    Ok((0..request.len() / 2).map(move |at| (request.arg(2 * at + 1), request.arg(2 * at + 2))))
}

fn mset(context: &mut Context<'_>, request: &Request<'_>) -> Answer {
    let written = context.database().put_many(pairs(request, "mset")?)?;
    context.settle(written);
    Ok(Reply::OK)
}

fn msetnx(context: &mut Context<'_>, request: &Request<'_>) -> Answer {
    let written = context.database().put_many_if_absent(pairs(request, "msetnx")?)?;
    Ok(Reply::Int(context.settle(written).into()))
}

fn getdel(context: &mut Context<'_>, request: &Request<'_>) -> Answer {
    let value = context.database().update(request.arg(1), |edit| {
        let value = edit.current().cloned();
        edit.delete();
        value
    })?;
    Ok(bulk_or_nil(context.settle(value)))
}

fn append(context: &mut Context<'_>, request: &Request<'_>) -> Answer {
    let tail = request.arg(2);
    let outcome = context.database().update(request.arg(1), |edit| {
        let old = edit.current().map(|value| value.data.clone());
        let old = old.as_deref().unwrap_or(b"");
        edit.put_keeping_expiry(&[old, tail])?;
        Ok(Reply::Int((old.len() + tail.len()) as i64))
    })?;
    context.settle(outcome)
}

fn strlen(context: &mut Context<'_>, request: &Request<'_>) -> Answer {
    let value = context.database().get(request.arg(1))?;
    Ok(Reply::Int(context.settle(value).map_or(0, |value| value.data.len() as i64)))
}

fn getrange(context: &mut Context<'_>, request: &Request<'_>) -> Answer {
    let (start, end) = (integer(request.arg(2))?, integer(request.arg(3))?);
    let value = context.database().get(request.arg(1))?;
    let Some(value) = context.settle(value) else { return Ok(Reply::Bulk(Slice::copy_from(b""))) };
    let len = value.data.len() as i64;
    // Offsets before the start mean the start, those behind the end the last byte.
    let from = if start < 0 { start.saturating_add(len).max(0) } else { start };
    let to = if end < 0 { end.saturating_add(len).max(0) } else { end.min(len - 1) };
    let reversed = start < 0 && end < 0 && start > end;
    if reversed || from > to || len == 0 {
        return Ok(Reply::Bulk(Slice::copy_from(b"")));
    }
    Ok(Reply::Bulk(value.data.slice(from as usize, to as usize + 1)))
}

fn setrange(context: &mut Context<'_>, request: &Request<'_>) -> Answer {
    let offset = integer(request.arg(2))?;
    let patch = request.arg(3);
    let offset = usize::try_from(offset).map_err(|_| Refusal::new("ERR offset is out of range"))?;
    let outcome = context.database().update(request.arg(1), |edit| {
        let old = edit.current().map(|value| value.data.clone());
        let old = old.as_deref().unwrap_or(b"");
        if patch.is_empty() {
            return Ok(Reply::Int(old.len() as i64));
        }
        if offset.saturating_add(patch.len()) > crate::keyspace::MAX_STRING_BYTES {
            return Err(Refusal::STRING_TOO_LONG);
        }
        let (head, rest) = old.split_at(offset.min(old.len()));
        let padding = vec![0; offset - head.len()];
        let rest = &rest[patch.len().min(rest.len())..];
        edit.put_keeping_expiry(&[head, &padding, patch, rest])?;
        Ok(Reply::Int((offset + patch.len() + rest.len()) as i64))
    })?;
    context.settle(outcome)
}
