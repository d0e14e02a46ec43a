//! What a client may ask: one table row and one function per command. Knows no RESP and no socket.
//!
//! [`spec`] says what a row is, [`table`] has them all, and the families have rows and functions side by side:
//! [`strings`], [`set`], [`counters`], [`keys`], [`expiry`], [`ranges`], [`past`], [`connection`], [`client`], [`server`],
//! [`info`], [`config`], [`introspection`] (COMMAND), [`help`].

mod argument;
mod arguments;
mod checkpoint;
mod client;
mod config;
mod connection;
mod context;
mod counters;
mod decimal;
#[cfg(test)]
mod docs;
mod expiry;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod help;
mod info;
mod introspection;
mod keys;
mod list;
mod past;
mod ranges;
mod refusal;
mod server;
mod set;
mod spec;
mod strings;
mod syntax;
mod table;
#[cfg(test)]
mod tests;
mod time;

pub(crate) use context::{Context, Ending, Environment, Session};

use argument::{is, shown};
use refusal::Refusal;
use spec::{Answer, Spec};

use crate::codec::Few;
use crate::engine::Outcome;
use crate::protocol::{Reply, Request};

/// The Redis whose commands and replies these are: what clients ask for before they use what is newer.
const REDIS_VERSION: &str = "7.2.0";

/// Runs one request: looks it up, checks arity, and calls its function.
pub(crate) fn dispatch(context: &mut Context<'_>, request: &Request<'_>) -> Reply {
    run(context, request).unwrap_or_else(|refusal| Reply::Error(refusal.0))
}

/// The key, if the request is a GET as it should be: several in a row may be run by [`get_cached`], those that it leaves
/// out by [`get`].
pub(crate) fn key_to_get<'a>(request: &Request<'a>) -> Option<&'a [u8]> {
    (request.len() == 2 && is(request.arg(0), "GET")).then(|| request.arg(1))
}

/// Replies to several GETs, all as of one moment. `None` where a file would have to be read, which takes time, and
/// memory that should be given back before the next one is read.
pub(crate) fn get_cached(context: &Context<'_>, keys: &[&[u8]]) -> Few<Option<Outcome<Reply>>> {
    strings::get_cached(context, keys)
}

/// Runs one GET.
pub(crate) fn get(context: &mut Context<'_>, key: &[u8]) -> Reply {
    strings::get_key(context, key).unwrap_or_else(|refusal| Reply::Error(refusal.0))
}

/// For the text dialect: which argument of this command (its name is word 0) is a value that takes the rest of the
/// line, if any.
pub(crate) fn tail_argument(name: &[u8]) -> Option<usize> {
    table::find(name)?.tail
}

fn run(context: &mut Context<'_>, request: &Request<'_>) -> Answer {
    let spec = table::find(request.arg(0)).ok_or_else(|| unknown_command(request))?;
    if !spec.accepts(request.len()) {
        return Err(Refusal::arity(&spec.name.to_lowercase()));
    }
    if spec.subcommands.is_empty() || request.len() == 1 {
        return (spec.run)(context, request);
    }
    let name = request.arg(1);
    match spec.subcommand(name) {
        Some(sub) if sub.accepts(request.len()) => (sub.run)(context, request),
        Some(sub) => Err(Refusal::arity(&format!("{}|{}", spec.name, sub.name).to_lowercase())),
        None if is(name, "HELP") && request.len() == 2 => Ok(help::subcommands(spec)),
        None if is(name, "HELP") => Err(Refusal::arity(&format!("{}|help", spec.name).to_lowercase())),
        None => Err(unknown_subcommand(spec, name)),
    }
}

/// The function of a command that has subcommands and does nothing without: its arity asks for one.
fn no_subcommand(_: &mut Context<'_>, request: &Request<'_>) -> Answer {
    Err(Refusal::arity(&shown(request.arg(0)).to_lowercase()))
}

/// How much of what was sent is shown again.
const SHOWN_BYTES: usize = 128;

/// Some clients know this text, to the blank at its end.
fn unknown_command(request: &Request<'_>) -> Refusal {
    let cut = |word: &[u8], bytes: usize| shown(&word[..word.len().min(bytes)]);
    let mut arguments = String::new();
    for word in request.args(1) {
        let left = SHOWN_BYTES.saturating_sub(arguments.len());
        if left == 0 {
            break;
        }
        arguments += &format!("'{}' ", cut(word, left));
    }
    let name = cut(request.arg(0), SHOWN_BYTES);
    format!("ERR unknown command '{name}', with args beginning with: {arguments}").into()
}

fn unknown_subcommand(spec: &Spec, name: &[u8]) -> Refusal {
    let name = shown(&name[..name.len().min(SHOWN_BYTES)]);
    format!("ERR unknown subcommand '{name}'. Try {} HELP.", spec.name).into()
}
