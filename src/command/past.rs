//! The past: what keys held at a time, and keys that become again what they were. Needs `--history`.

use super::argument::{integer, is};
use super::ranges::{between, walk};
use super::refusal::Refusal;
use super::spec::Flag::{Readonly, Write};
use super::spec::{Answer, Group, Keys, Spec};
use super::strings::bulk_or_nil;
use super::{Context, time};
use crate::protocol::{Reply, Request};

pub(super) const COMMANDS: &[Spec] = &[
    Spec {
        name: "GETAT",
        arity: 3,
        flags: &[Readonly],
        keys: Keys::ONE,
        group: Group::Past,
        summary: "The value that a key had at a time: milliseconds since 1970, RFC 3339, or so long ago (-10m, -1h30m)",
        syntax: "key time",
        example: "GETAT user:101 -10m",
        ..Spec::new(get_at)
    },
    Spec {
        name: "RANGEAT",
        arity: -4,
        flags: &[Readonly],
        group: Group::Past,
        summary: "As RANGE, as it was at a time",
        syntax: "time start end [REV] [LIMIT count] [KEYS | VALUES]",
        example: "RANGEAT -10m user: user:~ LIMIT 2",
        ..Spec::new(range_at)
    },
    Spec {
        name: "HISTORY",
        arity: -2,
        flags: &[Readonly],
        keys: Keys::ONE,
        group: Group::Past,
        summary: "What a key held, newest first: time, position in history, and the value, or nil where it was deleted. \
                  The last entry has no time if it is what the key held when the history window begins",
        syntax: "key [LIMIT count]",
        example: "HISTORY user:101 LIMIT 10",
        ..Spec::new(history)
    },
    Spec {
        name: "RESTOREAT",
        arity: -3,
        flags: &[Write],
        group: Group::Past,
        summary: "Makes keys what they were at a time, all at once: changed and deleted ones come back, new ones go. \
                  PREFIX and RANGE mean the selected database, ALL means every database. How many keys were written",
        syntax: "time <PREFIX prefix | RANGE start end | ALL>",
        example: "RESTOREAT -10m PREFIX user:",
        ..Spec::new(restore_at)
    },
];

fn at(context: &Context<'_>, word: &[u8]) -> Result<u64, Refusal> {
    let present = context.keyspace.db.present();
    // Without a history that is what is to be told, whatever the time.
    let present = present?;
    time::parse(word, || Ok::<_, Refusal>(present))
}

fn get_at(context: &mut Context<'_>, request: &Request<'_>) -> Answer {
    let when = at(context, request.arg(2))?;
    let value = context.database().get_at(request.arg(1), when)?;
    Ok(bulk_or_nil(context.settle(value)))
}

fn range_at(context: &mut Context<'_>, request: &Request<'_>) -> Answer {
    let when = at(context, request.arg(1))?;
    let database = context.database();
    let range = between(database, request, 2);
    walk(context, request, 4, |order| database.past_entries(&range, order, when))
}

fn history(context: &mut Context<'_>, request: &Request<'_>) -> Answer {
    let limit = match request.len() {
        2 => usize::MAX,
        4 if is(request.arg(2), "LIMIT") => usize::try_from(integer(request.arg(3))?)
            .map_err(|_| Refusal::new("ERR value is out of range, must be positive"))?,
        _ => return Err(Refusal::SYNTAX),
    };
    let versions = context.database().history(request.arg(1), limit)?;
    let entry = |version: crate::keyspace::PastValue| {
        let time = version.time.map_or(Reply::Nil, |time| Reply::Int(time as i64));
        Reply::Array(vec![time, Reply::Int(version.seq.0 as i64), bulk_or_nil(version.value)])
    };
    Ok(Reply::Array(versions.into_iter().map(entry).collect()))
}

fn restore_at(context: &mut Context<'_>, request: &Request<'_>) -> Answer {
    let what = request.arg(2);
    let database = context.database();
    let range = match request.len() {
        3 if is(what, "ALL") => None,
        4 if is(what, "PREFIX") => Some(database.prefixed(request.arg(3))),
        5 if is(what, "RANGE") => Some(between(database, request, 3)),
        _ => return Err(Refusal::SYNTAX),
    };
    let when = at(context, request.arg(1))?;
    let restored = match range {
        Some(range) => database.restore(&range, when)?,
        None => context.keyspace.restore_all(when)?,
    };
    Ok(Reply::Int(context.settle(restored) as i64))
}
