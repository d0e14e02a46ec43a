//! CLIENT: what the server knows of this connection.

use super::Context;
use super::argument::{is, shown};
use super::refusal::Refusal;
use super::spec::Flag::{Loading, Noscript, Stale};
use super::spec::{Answer, Group, Run, Spec};
use crate::protocol::{Dialect, Reply, Request};

pub(super) const COMMANDS: &[Spec] = &[Spec {
    name: "CLIENT",
    arity: -2,
    group: Group::Connection,
    summary: "What the server knows of this connection",
    syntax: "subcommand [argument ...]",
    example: "CLIENT ID",
    subcommands: &[
        Spec { name: "ID", arity: 2, summary: "Its number", example: "CLIENT ID", ..part(id) },
        Spec { name: "INFO", arity: 2, summary: "All about it, in one line", example: "CLIENT INFO", ..part(info) },
        Spec { name: "GETNAME", arity: 2, summary: "Its name", example: "CLIENT GETNAME", ..part(getname) },
        Spec {
            name: "SETNAME",
            arity: 3,
            summary: "Gives it a name",
            syntax: "name",
            example: "CLIENT SETNAME importer",
            ..part(setname)
        },
        Spec {
            name: "SETINFO",
            arity: 4,
            summary: "Tells which client library it is",
            syntax: "<LIB-NAME name | LIB-VER version>",
            example: "CLIENT SETINFO LIB-NAME redis-py",
            ..part(setinfo)
        },
        Spec {
            name: "NO-EVICT",
            arity: 3,
            summary: "Accepted: no connection is ever evicted for its memory",
            syntax: "<ON | OFF>",
            example: "CLIENT NO-EVICT ON",
            ..part(on_or_off)
        },
        Spec {
            name: "NO-TOUCH",
            arity: 3,
            summary: "Accepted: reading a key never changes it",
            syntax: "<ON | OFF>",
            example: "CLIENT NO-TOUCH ON",
            ..part(on_or_off)
        },
    ],
    ..Spec::new(super::no_subcommand)
}];

const fn part(run: Run) -> Spec {
    Spec { flags: &[Noscript, Loading, Stale], group: Group::Connection, ..Spec::new(run) }
}

fn id(context: &mut Context<'_>, _: &Request<'_>) -> Answer {
    Ok(Reply::Int(context.session.id as i64))
}

fn info(context: &mut Context<'_>, _: &Request<'_>) -> Answer {
    let session = &context.session;
    let resp = if session.dialect == Dialect::Resp3 { 3 } else { 2 };
    let (id, peer, database) = (session.id, &session.peer, session.database);
    let (name, library) = (shown(&session.name), shown(&session.library_name));
    let version = shown(&session.library_version);
    Ok(Reply::Text(format!(
        "id={id} addr={peer} name={name} flags=N db={database} cmd=client|info user=default resp={resp} \
         lib-name={library} lib-ver={version}\n"
    )))
}

fn getname(context: &mut Context<'_>, _: &Request<'_>) -> Answer {
    let name = &context.session.name;
    Ok(if name.is_empty() { Reply::Nil } else { Reply::Bulk(crate::codec::Slice::copy_from(name)) })
}

fn setname(context: &mut Context<'_>, request: &Request<'_>) -> Answer {
    set_name(context, request.arg(2)).map(|()| Reply::OK)
}

/// Names stand in one line of `name=value` fields, so they have neither blanks nor line breaks.
pub(super) fn set_name(context: &mut Context<'_>, name: &[u8]) -> Result<(), Refusal> {
    if !name.iter().all(|byte| (b'!'..=b'~').contains(byte)) {
        return Err(Refusal::new("ERR Client names cannot contain spaces, newlines or special characters."));
    }
    context.session.name = name.to_vec();
    Ok(())
}

fn setinfo(context: &mut Context<'_>, request: &Request<'_>) -> Answer {
    let (option, value) = (request.arg(2), request.arg(3));
    let session = &mut *context.session;
    let (field, name) = match () {
        () if is(option, "LIB-NAME") => (&mut session.library_name, "lib-name"),
        () if is(option, "LIB-VER") => (&mut session.library_version, "lib-ver"),
        () => return Err(format!("ERR Unrecognized option '{}'", shown(option)).into()),
    };
    if !value.iter().all(|byte| (b'!'..=b'~').contains(byte)) {
        return Err(format!("ERR {name} cannot contain spaces, newlines or special characters.").into());
    }
    *field = value.to_vec();
    Ok(Reply::OK)
}

fn on_or_off(_: &mut Context<'_>, request: &Request<'_>) -> Answer {
    let word = request.arg(2);
    if is(word, "ON") || is(word, "OFF") { Ok(Reply::OK) } else { Err(Refusal::SYNTAX) }
}
