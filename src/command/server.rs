//! The server: its data files, its end, and what a single primary answers to questions about replicas and the like.

use super::argument::{canonical_integer, integer, is, shown};
use super::refusal::Refusal;
use super::spec::Flag::{Admin, Fast, Loading, Noscript, Readonly, Stale};
use super::spec::{Answer, Keys, Run, Spec};
use super::{Context, Ending};
use crate::protocol::{Reply, Request};

pub(super) const COMMANDS: &[Spec] = &[
    Spec {
        name: "COMPACT",
        arity: 1,
        flags: &[Admin],
        summary: "Compacts all tables; answers when done, while others go on",
        example: "COMPACT",
        ..Spec::new(compact)
    },
    Spec {
        name: "SAVE",
        arity: 1,
        flags: &[Admin, Noscript],
        summary: "Writes what is in memory to tables. Not needed for safety: what was acknowledged is on disk",
        example: "SAVE",
        ..Spec::new(save)
    },
    Spec {
        name: "BGSAVE",
        arity: -1,
        flags: &[Admin, Noscript],
        summary: "As SAVE; other connections go on in either case",
        syntax: "[SCHEDULE]",
        example: "BGSAVE",
        ..Spec::new(bgsave)
    },
    Spec {
        name: "LASTSAVE",
        arity: 1,
        flags: &[Loading, Stale, Fast],
        summary: "When the last SAVE ended, in seconds since 1970",
        example: "LASTSAVE",
        ..Spec::new(lastsave)
    },
    Spec {
        name: "SHUTDOWN",
        arity: -1,
        flags: &[Admin, Noscript, Loading, Stale],
        summary: "Stops the server in good order. All data is kept in either case. The answer is the end of the connection",
        syntax: "[NOSAVE | SAVE] [NOW] [FORCE]",
        example: "SHUTDOWN",
        ..Spec::new(shutdown)
    },
    Spec {
        name: "TIME",
        arity: 1,
        flags: &[Loading, Stale, Fast],
        summary: "The server's time: seconds since 1970, and microseconds",
        example: "TIME",
        ..Spec::new(time)
    },
    Spec {
        name: "ROLE",
        arity: 1,
        flags: &[Noscript, Loading, Stale, Fast],
        summary: "master, without replicas",
        example: "ROLE",
        ..Spec::new(role)
    },
    Spec {
        name: "WAIT",
        arity: 3,
        flags: &[Noscript],
        summary: "How many replicas have the connection's writes: 0, at once",
        syntax: "numreplicas timeout",
        example: "WAIT 0 100",
        ..Spec::new(wait)
    },
    Spec {
        name: "CLUSTER",
        arity: -2,
        flags: &[Loading, Stale],
        summary: "Refused: this is no node of a Redis Cluster",
        syntax: "subcommand [argument ...]",
        example: "CLUSTER INFO",
        ..Spec::new(cluster)
    },
    Spec {
        name: "MODULE",
        subcommands: &[Spec {
            name: "LIST",
            arity: 2,
            summary: "No modules",
            example: "MODULE LIST",
            ..part(empty_list)
        }],
        summary: "Loaded modules",
        example: "MODULE LIST",
        ..container()
    },
    Spec {
        name: "ACL",
        subcommands: &[Spec {
            name: "WHOAMI",
            arity: 2,
            summary: "The connection's user: default",
            example: "ACL WHOAMI",
            ..part(whoami)
        }],
        summary: "Users",
        example: "ACL WHOAMI",
        ..container()
    },
    Spec {
        name: "SLOWLOG",
        subcommands: &[
            Spec {
                name: "GET",
                arity: -2,
                summary: "Slow requests: none are recorded",
                syntax: "[count]",
                example: "SLOWLOG GET 10",
                ..part(slowlog_get)
            },
            Spec { name: "LEN", arity: 2, summary: "How many: 0", example: "SLOWLOG LEN", ..part(zero) },
            Spec { name: "RESET", arity: 2, summary: "Forgets them", example: "SLOWLOG RESET", ..part(ok) },
        ],
        summary: "Slow requests",
        example: "SLOWLOG GET 10",
        ..container()
    },
    Spec {
        name: "LATENCY",
        subcommands: &[
            Spec {
                name: "LATEST",
                arity: 2,
                summary: "Spikes of latency: none are recorded",
                example: "LATENCY LATEST",
                ..part(empty_list)
            },
            Spec {
                name: "RESET",
                arity: -2,
                summary: "How many were forgotten: 0",
                syntax: "[event ...]",
                example: "LATENCY RESET",
                ..part(zero)
            },
        ],
        summary: "Spikes of latency",
        example: "LATENCY LATEST",
        ..container()
    },
    Spec {
        name: "MEMORY",
        subcommands: &[Spec {
            name: "USAGE",
            arity: -3,
            flags: &[Readonly],
            keys: Keys::SECOND,
            summary: "About how many bytes a key and its value take in memory",
            syntax: "key [SAMPLES count]",
            example: "MEMORY USAGE user:101",
            ..Spec::new(memory_usage)
        }],
        summary: "Memory",
        example: "MEMORY USAGE user:101",
        ..container()
    },
    Spec {
        name: "DEBUG",
        arity: -2,
        flags: &[Admin, Noscript, Loading, Stale],
        summary: "Refused",
        syntax: "subcommand [argument ...]",
        example: "DEBUG SLEEP 0",
        ..Spec::new(debug)
    },
];

const fn container() -> Spec {
    Spec { arity: -2, syntax: "subcommand [argument ...]", ..Spec::new(super::no_subcommand) }
}

const fn part(run: Run) -> Spec {
    Spec { flags: &[Admin, Loading, Stale], ..Spec::new(run) }
}

fn compact(context: &mut Context<'_>, _: &Request<'_>) -> Answer {
    context.keyspace.db.compact()?;
    Ok(Reply::Status("OK_COMPACTED".into()))
}

fn save(context: &mut Context<'_>, _: &Request<'_>) -> Answer {
    context.keyspace.flush()?;
    Ok(Reply::OK)
}

fn bgsave(context: &mut Context<'_>, request: &Request<'_>) -> Answer {
    if request.len() > 2 || request.args(1).any(|word| !is(word, "SCHEDULE")) {
        return Err(Refusal::SYNTAX);
    }
    context.keyspace.flush()?;
    Ok(Reply::Status("Background saving started".into()))
}

fn lastsave(context: &mut Context<'_>, _: &Request<'_>) -> Answer {
    Ok(Reply::Int((context.keyspace.flushed_at() / 1000) as i64))
}

fn shutdown(context: &mut Context<'_>, request: &Request<'_>) -> Answer {
    let given = |option| request.args(1).any(|word| is(word, option));
    if given("ABORT") && request.len() == 2 {
        return Err(Refusal::new("ERR No shutdown in progress."));
    }
    let known = |word| ["NOSAVE", "SAVE", "NOW", "FORCE"].iter().any(|option| is(word, option));
    if !request.args(1).all(known) || given("SAVE") && given("NOSAVE") {
        return Err(Refusal::SYNTAX);
    }
    (context.environment.request_shutdown)();
    context.session.ending = Some(Ending::Unanswered);
    Ok(Reply::OK)
}

fn time(context: &mut Context<'_>, _: &Request<'_>) -> Answer {
    let now = context.keyspace.db.now();
    let (seconds, micros) = (now / 1000, now % 1000 * 1000);
    Ok(Reply::Array(vec![Reply::Text(seconds.to_string()), Reply::Text(micros.to_string())]))
}

fn role(_: &mut Context<'_>, _: &Request<'_>) -> Answer {
    Ok(Reply::Array(vec![Reply::Text("master".to_owned()), Reply::Int(0), Reply::Array(Vec::new())]))
}

fn wait(_: &mut Context<'_>, request: &Request<'_>) -> Answer {
    integer(request.arg(1))?;
    let timeout = integer(request.arg(2)).map_err(|_| Refusal::new("ERR timeout is not an integer or out of range"))?;
    if timeout < 0 {
        return Err(Refusal::new("ERR timeout is negative"));
    }
    Ok(Reply::Int(0))
}

pub(super) fn cluster(_: &mut Context<'_>, _: &Request<'_>) -> Answer {
    Err(Refusal::new("ERR This instance has cluster support disabled"))
}

fn empty_list(_: &mut Context<'_>, _: &Request<'_>) -> Answer {
    Ok(Reply::Array(Vec::new()))
}

fn zero(_: &mut Context<'_>, _: &Request<'_>) -> Answer {
    Ok(Reply::Int(0))
}

fn ok(_: &mut Context<'_>, _: &Request<'_>) -> Answer {
    Ok(Reply::OK)
}

fn whoami(_: &mut Context<'_>, _: &Request<'_>) -> Answer {
    Ok(Reply::Text("default".to_owned()))
}

fn slowlog_get(_: &mut Context<'_>, request: &Request<'_>) -> Answer {
    match request.len() {
        2 => {}
        3 if canonical_integer(request.arg(2)).is_some_and(|count| count >= -1) => {}
        3 => return Err(Refusal::new("ERR count should be greater than or equal to -1")),
        _ => return Err(Refusal::arity("slowlog|get")),
    }
    Ok(Reply::Array(Vec::new()))
}

fn memory_usage(context: &mut Context<'_>, request: &Request<'_>) -> Answer {
    /// A memtable entry besides its bytes: hash slot, two reference-counted allocations, sequence number, expiry.
    const ENTRY_BYTES: usize = 96;
    match request.len() {
        3 => {}
        5 if is(request.arg(3), "SAMPLES") => {
            if integer(request.arg(4))? < 0 {
                return Err(Refusal::SYNTAX);
            }
        }
        _ => return Err(Refusal::SYNTAX),
    }
    let key = request.arg(2);
    let value = context.database().get(key)?;
    let bytes = context.settle(value).map(|value| key.len() + value.data.len() + ENTRY_BYTES);
    Ok(bytes.map_or(Reply::Nil, |bytes| Reply::Int(bytes as i64)))
}

fn debug(_: &mut Context<'_>, request: &Request<'_>) -> Answer {
    Err(format!("ERR DEBUG command not allowed: this server has no DEBUG {}", shown(request.arg(1))).into())
}
