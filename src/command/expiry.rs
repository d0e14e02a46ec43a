//! Time to live. What is stored is always the absolute millisecond.

use super::Context;
use super::argument::{integer, is, shown};
use super::refusal::Refusal;
use super::spec::Flag::{Fast, Readonly, Write};
use super::spec::{Answer, Group, Keys, Spec};
use crate::protocol::{Reply, Request};

pub(super) const COMMANDS: &[Spec] = &[
    Spec {
        name: "EXPIRE",
        arity: -3,
        summary: "Lets a key expire in so many seconds; 1 if it will",
        syntax: "key seconds [NX | XX | GT | LT]",
        example: "EXPIRE session:9 60",
        ..setter(|context, request| expire(context, request, 1000, true))
    },
    Spec {
        name: "PEXPIRE",
        arity: -3,
        summary: "Lets a key expire in so many milliseconds; 1 if it will",
        syntax: "key milliseconds [NX | XX | GT | LT]",
        example: "PEXPIRE session:9 60000",
        ..setter(|context, request| expire(context, request, 1, true))
    },
    Spec {
        name: "EXPIREAT",
        arity: -3,
        summary: "Lets a key expire at a time, in seconds since 1970; 1 if it will",
        syntax: "key unix-seconds [NX | XX | GT | LT]",
        example: "EXPIREAT session:9 1900000000",
        ..setter(|context, request| expire(context, request, 1000, false))
    },
    Spec {
        name: "PEXPIREAT",
        arity: -3,
        summary: "Lets a key expire at a time, in milliseconds since 1970; 1 if it will",
        syntax: "key unix-milliseconds [NX | XX | GT | LT]",
        example: "PEXPIREAT session:9 1900000000000",
        ..setter(|context, request| expire(context, request, 1, false))
    },
    Spec {
        name: "TTL",
        summary: "Seconds that a key has left; -1 if it does not expire, -2 if there is none",
        example: "TTL session:9",
        ..getter(|context, request| remaining(context, request, |at, now| seconds(at.saturating_sub(now))))
    },
    Spec {
        name: "PTTL",
        summary: "Milliseconds that a key has left; -1 if it does not expire, -2 if there is none",
        example: "PTTL session:9",
        ..getter(|context, request| remaining(context, request, |at, now| at.saturating_sub(now)))
    },
    Spec {
        name: "EXPIRETIME",
        summary: "When a key expires, in seconds since 1970; -1 if it does not, -2 if there is none",
        example: "EXPIRETIME session:9",
        ..getter(|context, request| remaining(context, request, |at, _| seconds(at)))
    },
    Spec {
        name: "PEXPIRETIME",
        summary: "When a key expires, in milliseconds since 1970; -1 if it does not, -2 if there is none",
        example: "PEXPIRETIME session:9",
        ..getter(|context, request| remaining(context, request, |at, _| at))
    },
    Spec {
        name: "PERSIST",
        arity: 2,
        summary: "Lets a key live for ever; 1 if it would have expired",
        syntax: "key",
        example: "PERSIST session:9",
        ..setter(persist)
    },
];

const fn setter(run: super::spec::Run) -> Spec {
    Spec { flags: &[Write, Fast], keys: Keys::ONE, group: Group::Generic, ..Spec::new(run) }
}

const fn getter(run: super::spec::Run) -> Spec {
    Spec { arity: 2, flags: &[Readonly, Fast], keys: Keys::ONE, group: Group::Generic, syntax: "key", ..Spec::new(run) }
}

/// What must hold for an expiry to be changed.
#[derive(Default)]
struct Conditions {
    nx: bool,
    xx: bool,
    gt: bool,
    lt: bool,
}

impl Conditions {
    fn parse(request: &Request<'_>) -> Result<Conditions, Refusal> {
        let mut conditions = Conditions::default();
        for word in request.args(3) {
            match () {
                () if is(word, "NX") => conditions.nx = true,
                () if is(word, "XX") => conditions.xx = true,
                () if is(word, "GT") => conditions.gt = true,
                () if is(word, "LT") => conditions.lt = true,
                () => return Err(format!("ERR Unsupported option {}", shown(word)).into()),
            }
        }
        let Conditions { nx, xx, gt, lt } = conditions;
        if nx && (xx || gt || lt) {
            return Err(Refusal::new("ERR NX and XX, GT or LT options at the same time are not compatible"));
        }
        if gt && lt {
            return Err(Refusal::new("ERR GT and LT options at the same time are not compatible"));
        }
        Ok(conditions)
    }

    /// A key that does not expire counts as one that expires after all others.
    fn hold(&self, current: Option<u64>, new: i64) -> bool {
        let current = current.map(|at| at as i64);
        !(self.nx && current.is_some()
            || self.xx && current.is_none()
            || self.gt && current.is_none_or(|at| new <= at)
            || self.lt && current.is_some_and(|at| new >= at))
    }
}

fn expire(context: &mut Context<'_>, request: &Request<'_>, unit_ms: i64, from_now: bool) -> Answer {
    let conditions = Conditions::parse(request)?;
    let now = context.keyspace.db.now();
    let base = if from_now { now } else { 0 };
    let at = integer(request.arg(2))?.checked_mul(unit_ms).and_then(|ms| ms.checked_add_unsigned(base));
    let at = at.ok_or_else(|| Refusal::expire_time(request.arg(0)))?;
    let changed = context.database().update(request.arg(1), |edit| {
        let Some(current) = edit.current() else { return false };
        if !conditions.hold(current.expires_at, at) {
            return false;
        }
        match u64::try_from(at) {
            Ok(at) if at > now => edit.expire_at(Some(at)),
            _ => edit.delete(),
        }
        true
    })?;
    Ok(Reply::Int(context.settle(changed).into()))
}

fn persist(context: &mut Context<'_>, request: &Request<'_>) -> Answer {
    let changed = context.database().update(request.arg(1), |edit| {
        let expired = edit.expires_at().is_some();
        if expired {
            edit.expire_at(None);
        }
        expired
    })?;
    Ok(Reply::Int(context.settle(changed).into()))
}

fn remaining(context: &mut Context<'_>, request: &Request<'_>, show: fn(u64, u64) -> u64) -> Answer {
    let now = context.keyspace.db.now();
    let value = context.database().get(request.arg(1))?;
    Ok(Reply::Int(match context.settle(value).map(|value| value.expires_at) {
        None => -2,
        Some(None) => -1,
        Some(Some(at)) => i64::try_from(show(at, now)).unwrap_or(i64::MAX),
    }))
}

/// To the nearest, as Redis rounds.
fn seconds(ms: u64) -> u64 {
    ms.saturating_add(500) / 1000
}
