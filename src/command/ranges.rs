//! Keys in order: what an ordered tree can do and a hash table cannot. Chronos's own commands.

use super::Context;
use super::argument::{integer, is};
use super::list::list;
use super::refusal::Refusal;
use super::spec::Flag::{Readonly, Write};
use super::spec::{Answer, Group, Spec};
use crate::codec::Slice;
use crate::keyspace::{Database, KeyRange, Order, Value};
use crate::protocol::{Reply, Request, Row};

pub(super) const COMMANDS: &[Spec] = &[
    Spec {
        name: "RANGE",
        arity: -3,
        flags: &[Readonly],
        group: Group::Range,
        summary: "Keys and values from start (included) to end (not included), bytewise; - and + leave a side open. \
                  REV walks from the end",
        syntax: "start end [REV] [LIMIT count] [KEYS | VALUES]",
        example: "RANGE user: user:~ LIMIT 2",
        ..Spec::new(range)
    },
    Spec {
        name: "PREFIX",
        arity: -2,
        flags: &[Readonly],
        group: Group::Range,
        summary: "Keys that begin with a prefix, and their values",
        syntax: "prefix [REV] [LIMIT count] [KEYS | VALUES]",
        example: "PREFIX user: KEYS",
        ..Spec::new(prefix)
    },
    Spec {
        name: "RANGE.COUNT",
        arity: 3,
        flags: &[Readonly],
        group: Group::Range,
        summary: "How many keys a range has",
        syntax: "start end",
        example: "RANGE.COUNT - +",
        ..Spec::new(range_count)
    },
    Spec {
        name: "RANGE.DEL",
        arity: 3,
        flags: &[Write],
        group: Group::Range,
        summary: "Deletes all keys of a range at once, however many there are",
        syntax: "start end",
        example: "RANGE.DEL log:2024 log:2025",
        ..Spec::new(range_del)
    },
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Show {
    Both,
    Keys,
    Values,
}

/// Words 1 and 2.
fn between(database: Database<'_>, request: &Request<'_>) -> KeyRange {
    let bound = |word: &'static [u8], at| Some(request.arg(at)).filter(|&bound| bound != word);
    database.between(bound(b"-", 1), bound(b"+", 2))
}

fn range(context: &mut Context<'_>, request: &Request<'_>) -> Answer {
    let range = between(context.database(), request);
    walk(context, request, &range, 3)
}

fn prefix(context: &mut Context<'_>, request: &Request<'_>) -> Answer {
    let range = context.database().prefixed(request.arg(1));
    walk(context, request, &range, 2)
}

/// Answers with the entries of `range`, by the options from word `at` on.
fn walk(context: &mut Context<'_>, request: &Request<'_>, range: &KeyRange, mut at: usize) -> Answer {
    let mut order = Order::Forward;
    let mut limit = usize::MAX;
    let mut show = Show::Both;
    while at < request.len() {
        let word = request.arg(at);
        match () {
            () if is(word, "REV") => order = Order::Reverse,
            () if is(word, "KEYS") && show != Show::Values => show = Show::Keys,
            () if is(word, "VALUES") && show != Show::Keys => show = Show::Values,
            () if is(word, "LIMIT") && at + 1 < request.len() => {
                at += 1;
                let count = usize::try_from(integer(request.arg(at))?);
                limit = count.map_err(|_| Refusal::new("ERR value is out of range, must be positive"))?;
            }
            () => return Err(Refusal::SYNTAX),
        }
        at += 1;
    }
    let entries = context.database().entries(range, order);
    let words = if show == Show::Both { 2 } else { 1 };
    list(context, entries, words, move |entries| {
        let row = move |(key, value): (Slice, Value)| match show {
            Show::Both => Row::Pair(key, value.data),
            Show::Keys => Row::One(key),
            Show::Values => Row::One(value.data),
        };
        Box::new(entries.take(limit).map(move |entry| entry.map(row)))
    })
}

fn range_count(context: &mut Context<'_>, request: &Request<'_>) -> Answer {
    let database = context.database();
    let count = database.count(&between(database, request))?;
    Ok(Reply::Int(context.settle(count) as i64))
}

fn range_del(context: &mut Context<'_>, request: &Request<'_>) -> Answer {
    let database = context.database();
    let deleted = database.delete_range(&between(database, request))?;
    context.settle(deleted);
    Ok(Reply::OK)
}
