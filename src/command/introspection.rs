//! COMMAND: the table, for programs.

use super::argument::is;
use super::refusal::Refusal;
use super::spec::Flag::{Loading, Stale};
use super::spec::{Answer, Flag, Group, Keys, Run, Spec};
use super::{Context, arguments, table};
use crate::codec::Slice;
use crate::keyspace::glob;
use crate::protocol::{Reply, Request};

pub(super) const COMMANDS: &[Spec] = &[Spec {
    name: "COMMAND",
    arity: -1,
    flags: &[Loading, Stale],
    summary: "All commands, as programs read them",
    syntax: "[subcommand [argument ...]]",
    example: "COMMAND COUNT",
    subcommands: &[
        Spec { name: "COUNT", arity: 2, summary: "How many there are", example: "COMMAND COUNT", ..part(count) },
        Spec {
            name: "LIST",
            arity: -2,
            summary: "Their names",
            syntax: "[FILTERBY <MODULE name | ACLCAT category | PATTERN pattern>]",
            example: "COMMAND LIST FILTERBY PATTERN get*",
            ..part(list)
        },
        Spec {
            name: "INFO",
            arity: -2,
            summary: "Arity, flags and key positions",
            syntax: "[command ...]",
            example: "COMMAND INFO get set",
            ..part(info)
        },
        Spec {
            name: "DOCS",
            arity: -2,
            summary: "Summaries and arguments",
            syntax: "[command ...]",
            example: "COMMAND DOCS set",
            ..part(docs)
        },
        Spec {
            name: "GETKEYS",
            arity: -4,
            summary: "The keys in a request",
            syntax: "command argument [argument ...]",
            example: "COMMAND GETKEYS MSET a 1 b 2",
            ..part(getkeys)
        },
    ],
    ..Spec::new(|_, _| Ok(Reply::Array(table::all().map(|spec| describe(spec, None)).collect())))
}];

const fn part(run: Run) -> Spec {
    Spec { flags: &[Loading, Stale], ..Spec::new(run) }
}

fn text(text: impl Into<String>) -> Reply {
    Reply::Text(text.into())
}

fn status(text: impl Into<String>) -> Reply {
    Reply::Status(text.into().into())
}

/// The name as programs know it: in lower case, behind its container's.
fn full_name(spec: &Spec, container: Option<&Spec>) -> String {
    let name = match container {
        Some(container) => format!("{}|{}", container.name, spec.name),
        None => spec.name.to_owned(),
    };
    name.to_lowercase()
}

fn count(_: &mut Context<'_>, _: &Request<'_>) -> Answer {
    Ok(Reply::Int(table::all().count() as i64))
}

fn list(_: &mut Context<'_>, request: &Request<'_>) -> Answer {
    let keep: Box<dyn Fn(&Spec) -> bool> = match request.len() {
        2 => Box::new(|_| true),
        5 if is(request.arg(2), "FILTERBY") => {
            let word = request.arg(4);
            match () {
                () if is(request.arg(3), "PATTERN") => {
                    Box::new(move |spec| glob::matches_ignoring_case(word, spec.name.as_bytes()))
                }
                () if is(request.arg(3), "ACLCAT") => {
                    Box::new(move |spec| categories(spec).iter().any(|category| is(word, &category[1..])))
                }
                () if is(request.arg(3), "MODULE") => Box::new(|_| false),
                () => return Err(Refusal::SYNTAX),
            }
        }
        _ => return Err(Refusal::SYNTAX),
    };
    Ok(Reply::Array(table::all().filter(|spec| keep(spec)).map(|spec| text(full_name(spec, None))).collect()))
}

/// The command, or `container|subcommand`, that a client names.
fn find(name: &[u8]) -> Option<(&'static Spec, Option<&'static Spec>)> {
    let mut words = name.splitn(2, |&byte| byte == b'|');
    let command = table::find(words.next()?)?;
    match words.next() {
        Some(name) => Some((command.subcommand(name)?, Some(command))),
        None => Some((command, None)),
    }
}

fn info(_: &mut Context<'_>, request: &Request<'_>) -> Answer {
    Ok(Reply::Array(match request.len() {
        2 => table::all().map(|spec| describe(spec, None)).collect(),
        _ => request
            .args(2)
            .map(|name| find(name).map_or(Reply::Nil, |(spec, container)| describe(spec, container)))
            .collect(),
    }))
}

/// Redis's access categories. Nothing here asks for them; clients' tools do.
fn categories(spec: &Spec) -> Vec<&'static str> {
    let mut categories = Vec::new();
    let keyspace = spec.keys != Keys::NONE || spec.group == Group::Generic || spec.group == Group::Range;
    for (holds, category) in [
        (spec.has(Flag::Write), "@write"),
        (spec.has(Flag::Readonly), "@read"),
        (spec.group == Group::String, "@string"),
        (keyspace && spec.group != Group::String, "@keyspace"),
        (spec.group == Group::Connection, "@connection"),
        (spec.has(Flag::Admin), "@admin"),
        (spec.has(Flag::Admin), "@dangerous"),
    ] {
        if holds {
            categories.push(category);
        }
    }
    categories.push(if spec.has(Flag::Fast) { "@fast" } else { "@slow" });
    categories
}

fn describe(spec: &Spec, container: Option<&Spec>) -> Reply {
    let int = |value: i32| Reply::Int(value.into());
    Reply::Array(vec![
        text(full_name(spec, container)),
        int(spec.arity),
        Reply::Set(spec.flags.iter().map(|flag| status(flag.name())).collect()),
        int(spec.keys.first),
        int(spec.keys.last),
        int(spec.keys.step),
        Reply::Set(categories(spec).into_iter().map(status).collect()),
        Reply::Array(Vec::new()),
        Reply::Array(key_specification(spec).into_iter().collect()),
        Reply::Array(spec.subcommands.iter().map(|sub| describe(sub, Some(spec))).collect()),
    ])
}

/// Where the keys are, in the form that newer clients ask for.
fn key_specification(spec: &Spec) -> Option<Reply> {
    let map =
        |fields: Vec<(&str, Reply)>| Reply::Map(fields.into_iter().map(|(name, value)| (text(name), value)).collect());
    let search = |kind: &str, fields| map(vec![("type", text(kind)), ("spec", map(fields))]);
    let Keys { first, last, step } = spec.keys;
    // Behind the first key, where the last one is: as Redis counts here.
    let last = if last < 0 { last } else { last - first };
    (spec.keys != Keys::NONE).then(|| {
        map(vec![
            ("flags", Reply::Set(vec![status(if spec.has(Flag::Write) { "RW" } else { "RO" })])),
            ("begin_search", search("index", vec![("index", Reply::Int(first.into()))])),
            (
                "find_keys",
                search(
                    "range",
                    vec![
                        ("lastkey", Reply::Int(last.into())),
                        ("keystep", Reply::Int(step.into())),
                        ("limit", Reply::Int(0)),
                    ],
                ),
            ),
        ])
    })
}

fn docs(_: &mut Context<'_>, request: &Request<'_>) -> Answer {
    let entry = |spec, container| (text(full_name(spec, container)), document(spec));
    Ok(Reply::Map(match request.len() {
        2 => table::all().map(|spec| entry(spec, None)).collect(),
        _ => request.args(2).filter_map(find).map(|(spec, container)| entry(spec, container)).collect(),
    }))
}

fn document(spec: &Spec) -> Reply {
    let mut fields = vec![
        (text("summary"), text(spec.summary)),
        (text("since"), text(spec.since)),
        (text("group"), text(spec.group.name())),
    ];
    if spec.subcommands.is_empty() {
        let arguments = arguments::describe(spec);
        if !arguments.is_empty() {
            fields.push((text("arguments"), Reply::Array(arguments)));
        }
    } else {
        let subs = spec.subcommands.iter();
        let subs = subs.map(|sub| (text(full_name(sub, Some(spec))), document(sub))).collect();
        fields.push((text("subcommands"), Reply::Map(subs)));
    }
    Reply::Map(fields)
}

fn getkeys(_: &mut Context<'_>, request: &Request<'_>) -> Answer {
    let spec = table::find(request.arg(2)).ok_or(Refusal::new("ERR Invalid command specified"))?;
    let words = request.len() - 2;
    let (spec, fits) = match spec.subcommand(request.arg(3)) {
        Some(sub) => (sub, sub.accepts(words)),
        None => (spec, spec.accepts(words)),
    };
    if spec.keys == Keys::NONE {
        return Err(Refusal::new("ERR The command has no key arguments"));
    }
    if !fits {
        return Err(Refusal::new("ERR Invalid number of arguments specified for command"));
    }
    let keys = spec.keys.positions(words).map(|at| Reply::Bulk(Slice::copy_from(request.arg(2 + at))));
    Ok(Reply::Array(keys.collect()))
}
