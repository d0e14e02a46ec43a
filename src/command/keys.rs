//! Keys whatever they hold: delete, look for, list.

use super::Context;
use super::argument::{canonical_integer, integer, is};
use super::list::list;
use super::refusal::Refusal;
use super::spec::Flag::{Fast, Readonly, Write};
use super::spec::{Answer, Group, Keys, Spec};
use crate::keyspace::{Kind, ScanOptions, glob};
use crate::protocol::{Reply, Request, Row};

pub(super) const COMMANDS: &[Spec] = &[
    Spec {
        name: "DEL",
        arity: -2,
        flags: &[Write],
        keys: Keys::ALL,
        group: Group::Generic,
        summary: "Deletes keys, together; how many there were",
        syntax: "key [key ...]",
        example: "DEL user:101",
        ..Spec::new(del)
    },
    Spec {
        name: "DELETE",
        arity: -2,
        flags: &[Write],
        keys: Keys::ALL,
        group: Group::Generic,
        summary: "DEL, spelled out",
        syntax: "key [key ...]",
        example: "DELETE user:101",
        ..Spec::new(del)
    },
    Spec {
        name: "UNLINK",
        arity: -2,
        flags: &[Write, Fast],
        keys: Keys::ALL,
        group: Group::Generic,
        summary: "Deletes keys; the same as DEL, which does not wait for memory to be freed either",
        syntax: "key [key ...]",
        example: "UNLINK user:101 user:102",
        ..Spec::new(unlink)
    },
    Spec {
        name: "EXISTS",
        arity: -2,
        flags: &[Readonly, Fast],
        keys: Keys::ALL,
        group: Group::Generic,
        summary: "How many of the keys exist; one named twice counts twice",
        syntax: "key [key ...]",
        example: "EXISTS user:101 user:102",
        ..Spec::new(exists)
    },
    Spec {
        name: "TOUCH",
        arity: -2,
        flags: &[Readonly, Fast],
        keys: Keys::ALL,
        group: Group::Generic,
        summary: "How many of the keys exist; there is no time of last use to change",
        syntax: "key [key ...]",
        example: "TOUCH user:101",
        ..Spec::new(exists)
    },
    Spec {
        name: "TYPE",
        arity: 2,
        flags: &[Readonly, Fast],
        keys: Keys::ONE,
        group: Group::Generic,
        summary: "What a key holds: string, or none",
        syntax: "key",
        example: "TYPE user:101",
        ..Spec::new(type_of)
    },
    Spec {
        name: "KEYS",
        arity: 2,
        flags: &[Readonly],
        group: Group::Generic,
        summary: "All keys that match a glob (* ? [a-z] [^a] \\x), in order; a literal start makes it fast",
        syntax: "pattern",
        example: "KEYS user:*",
        ..Spec::new(keys)
    },
    Spec {
        name: "SCAN",
        arity: -2,
        flags: &[Readonly],
        group: Group::Generic,
        summary: "A walk over the keys in many calls: cursor 0 begins it, and each reply's cursor goes on until it is \
                  0. What is there all the time is returned exactly once",
        syntax: "cursor [MATCH pattern] [COUNT count] [TYPE type]",
        example: "SCAN 0 MATCH user:* COUNT 100",
        ..Spec::new(scan)
    },
    Spec {
        name: "OBJECT",
        arity: -2,
        group: Group::Generic,
        summary: "How a value is kept",
        syntax: "subcommand [argument ...]",
        example: "OBJECT ENCODING user:101",
        subcommands: &[
            Spec {
                name: "ENCODING",
                arity: 3,
                flags: &[Readonly],
                keys: Keys::SECOND,
                group: Group::Generic,
                summary: "What Redis would call it: int, embstr or raw",
                syntax: "key",
                example: "OBJECT ENCODING user:101",
                ..Spec::new(object_encoding)
            },
            Spec {
                name: "REFCOUNT",
                arity: 3,
                flags: &[Readonly],
                keys: Keys::SECOND,
                group: Group::Generic,
                summary: "Always 1: values are not shared between keys",
                syntax: "key",
                example: "OBJECT REFCOUNT user:101",
                ..Spec::new(object_refcount)
            },
        ],
        ..Spec::new(super::no_subcommand)
    },
    Spec {
        name: "DBSIZE",
        arity: 1,
        flags: &[Readonly],
        group: Group::Server,
        summary: "How many keys the database has, by counting them",
        example: "DBSIZE",
        ..Spec::new(dbsize)
    },
    Spec {
        name: "FLUSHDB",
        arity: -1,
        flags: &[Write],
        group: Group::Server,
        summary: "Deletes every key of the database",
        syntax: "[ASYNC | SYNC]",
        example: "FLUSHDB",
        ..Spec::new(flushdb)
    },
    Spec {
        name: "FLUSHALL",
        arity: -1,
        flags: &[Write],
        group: Group::Server,
        summary: "Deletes every key of every database",
        syntax: "[ASYNC | SYNC]",
        example: "FLUSHALL",
        ..Spec::new(flushall)
    },
];

fn del(context: &mut Context<'_>, request: &Request<'_>) -> Answer {
    let deleted = context.database().delete(request.args(1))?;
    Ok(Reply::Deleted { count: context.settle(deleted), named: request.len() - 1 })
}

fn unlink(context: &mut Context<'_>, request: &Request<'_>) -> Answer {
    let deleted = context.database().delete(request.args(1))?;
    Ok(Reply::Int(context.settle(deleted) as i64))
}

fn exists(context: &mut Context<'_>, request: &Request<'_>) -> Answer {
    let count = context.database().exists(request.args(1))?;
    Ok(Reply::Int(context.settle(count) as i64))
}

fn type_of(context: &mut Context<'_>, request: &Request<'_>) -> Answer {
    let value = context.database().get(request.arg(1))?;
    Ok(Reply::Status(context.settle(value).map_or("none", |value| value.kind.name()).into()))
}

fn keys(context: &mut Context<'_>, request: &Request<'_>) -> Answer {
    let pattern = request.arg(1).to_vec();
    let entries = context.database().around(&pattern);
    list(context, entries, 1, move |entries| {
        let pattern = pattern.clone();
        let keys = entries.map(|entry| entry.map(|(key, _)| key));
        let matching = keys.filter(move |key| key.as_ref().map_or(true, |key| glob::matches(&pattern, key)));
        Box::new(matching.map(|key| key.map(Row::One)))
    })
}

fn scan(context: &mut Context<'_>, request: &Request<'_>) -> Answer {
    let cursor = std::str::from_utf8(request.arg(1)).ok().and_then(|word| word.parse().ok());
    let cursor: u64 = cursor.ok_or(Refusal::new("ERR invalid cursor"))?;
    let mut options = ScanOptions { pattern: None, kind: None, count: 10 };
    for at in (2..request.len()).step_by(2) {
        let option = request.arg(at);
        if at + 1 == request.len() {
            return Err(Refusal::SYNTAX);
        }
        let word = request.arg(at + 1);
        match () {
            () if is(option, "COUNT") => {
                options.count = u64::try_from(integer(word)?).ok().filter(|&n| n > 0).ok_or(Refusal::SYNTAX)?;
            }
            () if is(option, "MATCH") => options.pattern = Some(word),
            () if is(option, "TYPE") => {
                options.kind = Some(Some(Kind::String).filter(|kind| is(word, kind.name())));
            }
            () => return Err(Refusal::SYNTAX),
        }
    }
    let page = context.database().scan(cursor, options)?;
    let page = context.settle(page);
    Ok(Reply::Array(vec![
        Reply::Text(page.cursor.to_string()),
        Reply::Array(page.keys.into_iter().map(Reply::Bulk).collect()),
    ]))
}

fn object_encoding(context: &mut Context<'_>, request: &Request<'_>) -> Answer {
    /// Up to here Redis keeps a string in one allocation with its header.
    const EMBEDDED_BYTES: usize = 44;
    let value = context.database().get(request.arg(2))?;
    let encoding = |data: &[u8]| match canonical_integer(data) {
        Some(_) => "int",
        None if data.len() <= EMBEDDED_BYTES => "embstr",
        None => "raw",
    };
    Ok(context.settle(value).map_or(Reply::Nil, |value| Reply::Text(encoding(&value.data).to_owned())))
}

fn object_refcount(context: &mut Context<'_>, request: &Request<'_>) -> Answer {
    let value = context.database().get(request.arg(2))?;
    Ok(context.settle(value).map_or(Reply::Nil, |_| Reply::Int(1)))
}

fn dbsize(context: &mut Context<'_>, _: &Request<'_>) -> Answer {
    let database = context.database();
    let count = database.count(&database.between(None, None))?;
    Ok(Reply::Int(context.settle(count) as i64))
}

/// Both ways take effect at once and free memory later.
fn check_flush_mode(request: &Request<'_>) -> Result<(), Refusal> {
    match request.len() {
        1 => Ok(()),
        2 if is(request.arg(1), "ASYNC") || is(request.arg(1), "SYNC") => Ok(()),
        _ => Err(Refusal::SYNTAX),
    }
}

fn flushdb(context: &mut Context<'_>, request: &Request<'_>) -> Answer {
    check_flush_mode(request)?;
    let flushed = context.database().delete_all()?;
    context.settle(flushed);
    Ok(Reply::OK)
}

fn flushall(context: &mut Context<'_>, request: &Request<'_>) -> Answer {
    check_flush_mode(request)?;
    let flushed = context.keyspace.delete_all()?;
    context.settle(flushed);
    Ok(Reply::OK)
}
