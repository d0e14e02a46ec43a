//! The connection itself: is it alive, how is it answered, which database does it use.

use super::argument::{integer, is, shown};
use super::client::set_name;
use super::refusal::Refusal;
use super::spec::Flag::{Fast, Loading, NoAuth, Noscript, Stale};
use super::spec::{Answer, Group, Spec};
use super::{Context, Ending, REDIS_VERSION};
use crate::codec::Slice;
use crate::protocol::{Dialect, Reply, Request};

pub(super) const COMMANDS: &[Spec] = &[
    Spec {
        name: "PING",
        arity: -1,
        flags: &[Fast, Loading, Stale],
        group: Group::Connection,
        summary: "PONG, or the message",
        syntax: "[message]",
        example: "PING",
        ..Spec::new(ping)
    },
    Spec {
        name: "ECHO",
        arity: 2,
        flags: &[Fast, Loading, Stale],
        group: Group::Connection,
        summary: "The message",
        syntax: "message",
        example: "ECHO hello world",
        tail: Some(1),
        ..Spec::new(echo)
    },
    Spec {
        name: "HELLO",
        arity: -1,
        flags: &[Noscript, Loading, Stale, Fast, NoAuth],
        group: Group::Connection,
        summary: "What server this is; with a version, switches to RESP2 or RESP3",
        syntax: "[protover [AUTH username password] [SETNAME clientname]]",
        example: "HELLO 3",
        ..Spec::new(hello)
    },
    Spec {
        name: "AUTH",
        arity: -2,
        flags: &[Noscript, Loading, Stale, Fast, NoAuth],
        group: Group::Connection,
        summary: "Tells the password, where one is set",
        syntax: "[username] password",
        example: "AUTH secret",
        ..Spec::new(auth)
    },
    Spec {
        name: "SELECT",
        arity: 2,
        flags: &[Fast, Loading, Stale],
        group: Group::Connection,
        summary: "Uses another database, by number",
        syntax: "index",
        example: "SELECT 1",
        ..Spec::new(select)
    },
    Spec {
        name: "RESET",
        arity: 1,
        flags: &[Noscript, Loading, Stale, Fast, NoAuth],
        group: Group::Connection,
        summary: "Takes back what the connection has chosen: database, name, RESP3",
        example: "RESET",
        ..Spec::new(reset)
    },
    Spec {
        name: "QUIT",
        arity: -1,
        flags: &[Noscript, Loading, Stale, Fast, NoAuth],
        group: Group::Connection,
        summary: "Closes the connection when everything is answered",
        example: "QUIT",
        ..Spec::new(quit)
    },
    no_cluster("READONLY", "Redis Cluster only, refused"),
    no_cluster("READWRITE", "Redis Cluster only, refused"),
];

const fn no_cluster(name: &'static str, summary: &'static str) -> Spec {
    Spec {
        name,
        arity: 1,
        flags: &[Fast, Loading, Stale],
        group: Group::Connection,
        summary,
        example: name,
        ..Spec::new(super::server::cluster)
    }
}

fn ping(_: &mut Context<'_>, request: &Request<'_>) -> Answer {
    match request.len() {
        1 => Ok(Reply::Status("PONG".into())),
        2 => Ok(Reply::Bulk(Slice::copy_from(request.arg(1)))),
        _ => Err(Refusal::arity("ping")),
    }
}

fn echo(_: &mut Context<'_>, request: &Request<'_>) -> Answer {
    Ok(Reply::Bulk(Slice::copy_from(request.arg(1))))
}

fn hello(context: &mut Context<'_>, request: &Request<'_>) -> Answer {
    let mut dialect = None;
    let mut name = None;
    if request.len() > 1 {
        let version = integer(request.arg(1))
            .map_err(|_| Refusal::new("ERR Protocol version is not an integer or out of range"))?;
        dialect = Some(match version {
            2 => Dialect::Resp2,
            3 => Dialect::Resp3,
            _ => return Err(Refusal::new("NOPROTO unsupported protocol version")),
        });
    }
    let mut at = 2;
    while at < request.len() {
        let behind = request.len() - at - 1;
        if is(request.arg(at), "AUTH") && behind >= 2 {
            check_user(request.arg(at + 1))?;
            at += 3;
        } else if is(request.arg(at), "SETNAME") && behind >= 1 {
            name = Some(request.arg(at + 1));
            at += 2;
        } else {
            return Err(format!("ERR Syntax error in HELLO option '{}'", shown(request.arg(at))).into());
        }
    }
    if let Some(name) = name {
        set_name(context, name)?;
    }
    if let Some(dialect) = dialect {
        context.session.dialect = dialect;
    }
    let text = |text: &str| Reply::Text(text.to_owned());
    Ok(Reply::Map(vec![
        (text("server"), text("chronos")),
        (text("version"), text(REDIS_VERSION)),
        (text("proto"), Reply::Int(if context.session.dialect == Dialect::Resp3 { 3 } else { 2 })),
        (text("id"), Reply::Int(context.session.id as i64)),
        (text("mode"), text("standalone")),
        (text("role"), text("master")),
        (text("modules"), Reply::Array(Vec::new())),
    ]))
}

/// Without a password set, the one user there is may enter with any, as in Redis.
fn check_user(user: &[u8]) -> Result<(), Refusal> {
    if user != b"default" {
        return Err(Refusal::new("WRONGPASS invalid username-password pair or user is disabled."));
    }
    Ok(())
}

fn auth(_: &mut Context<'_>, request: &Request<'_>) -> Answer {
    match request.len() {
        2 => Err(Refusal::new(
            "ERR AUTH <password> called without any password configured for the default user. \
             Are you sure your configuration is correct?",
        )),
        3 => check_user(request.arg(1)).map(|()| Reply::OK),
        _ => Err(Refusal::SYNTAX),
    }
}

fn select(context: &mut Context<'_>, request: &Request<'_>) -> Answer {
    let index = integer(request.arg(1))?;
    i32::try_from(index)
        .map_err(|_| Refusal::new("ERR value is out of range, value must between -2147483648 and 2147483647"))?;
    let index = u8::try_from(index).ok().filter(|&index| index < context.environment.databases);
    context.session.database = index.ok_or(Refusal::new("ERR DB index is out of range"))?;
    Ok(Reply::OK)
}

fn reset(context: &mut Context<'_>, _: &Request<'_>) -> Answer {
    let session = &mut *context.session;
    session.database = 0;
    session.name.clear();
    if session.dialect == Dialect::Resp3 {
        session.dialect = Dialect::Resp2;
    }
    Ok(Reply::Status("RESET".into()))
}

fn quit(context: &mut Context<'_>, _: &Request<'_>) -> Answer {
    context.session.ending = Some(Ending::Answered);
    Ok(Reply::OK)
}
