//! CONFIG: the settings that the server runs with. They are given at its start; none is changed while it runs.

use std::sync::atomic::Ordering;

use super::Context;
use super::argument::shown;
use super::refusal::Refusal;
use super::spec::Flag::{Admin, Loading, Noscript, Stale};
use super::spec::{Answer, Run, Spec};
use crate::keyspace::glob;
use crate::protocol::{Reply, Request};

pub(super) const COMMANDS: &[Spec] = &[Spec {
    name: "CONFIG",
    arity: -2,
    summary: "The settings that the server runs with",
    syntax: "subcommand [argument ...]",
    example: "CONFIG GET max*",
    subcommands: &[
        Spec {
            name: "GET",
            arity: -3,
            summary: "Settings whose names match a glob",
            syntax: "parameter [parameter ...]",
            example: "CONFIG GET save",
            ..part(get)
        },
        Spec {
            name: "SET",
            arity: -4,
            summary: "Refused: settings are given when the server starts",
            syntax: "parameter value [parameter value ...]",
            example: "CONFIG SET maxclients 100",
            ..part(set)
        },
        Spec {
            name: "RESETSTAT",
            arity: 2,
            summary: "Lets the counters that INFO shows begin at 0",
            example: "CONFIG RESETSTAT",
            ..part(resetstat)
        },
        Spec {
            name: "REWRITE",
            arity: 2,
            summary: "Refused: the config file is the operator's",
            example: "CONFIG REWRITE",
            ..part(rewrite)
        },
    ],
    ..Spec::new(super::no_subcommand)
}];

const fn part(run: Run) -> Spec {
    Spec { flags: &[Admin, Noscript, Loading, Stale], ..Spec::new(run) }
}

fn get(context: &mut Context<'_>, request: &Request<'_>) -> Answer {
    let matches = |name: &str| request.args(2).any(|pattern| glob::matches_ignoring_case(pattern, name.as_bytes()));
    let found = context.environment.config.iter().filter(|(name, _)| matches(name));
    Ok(Reply::Map(found.map(|(name, value)| (Reply::Text(name.clone()), Reply::Text(value.clone()))).collect()))
}

fn set(context: &mut Context<'_>, request: &Request<'_>) -> Answer {
    let name = request.arg(2);
    let known = context.environment.config.iter().any(|(known, _)| known.as_bytes().eq_ignore_ascii_case(name));
    let name = shown(name);
    Err(Refusal::from(if known {
        format!("ERR CONFIG SET failed - '{name}' can only be set when the server starts")
    } else {
        format!("ERR Unknown option or number of arguments for CONFIG SET - '{name}'")
    }))
}

fn resetstat(context: &mut Context<'_>, _: &Request<'_>) -> Answer {
    let environment = context.environment;
    for counter in [&environment.total_commands, &environment.total_connections, &environment.rejected_connections] {
        counter.store(0, Ordering::Relaxed);
    }
    Ok(Reply::OK)
}

fn rewrite(_: &mut Context<'_>, _: &Request<'_>) -> Answer {
    Err(Refusal::new("ERR CONFIG REWRITE is not supported: edit the config file and restart the server"))
}
