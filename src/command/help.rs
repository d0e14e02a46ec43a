//! HELP: the table, for people.

use super::argument::shown;
use super::refusal::Refusal;
use super::spec::Flag::{Fast, Loading, Stale};
use super::spec::{Answer, Group, Spec};
use super::{Context, table};
use crate::protocol::{Reply, Request};

pub(super) const COMMANDS: &[Spec] = &[Spec {
    name: "HELP",
    arity: -1,
    flags: &[Loading, Stale, Fast],
    group: Group::Connection,
    summary: "All commands, or one of them in detail",
    syntax: "[command [subcommand]]",
    example: "HELP SET",
    ..Spec::new(help)
}];

fn help(_: &mut Context<'_>, request: &Request<'_>) -> Answer {
    match request.len() {
        1 => Ok(Reply::Lines(overview())),
        2 => one(request.arg(1)),
        3 => {
            let container = find(request.arg(1))?;
            let spec = container.subcommand(request.arg(2)).ok_or_else(|| unknown(request.arg(2)))?;
            Ok(Reply::Lines(detail(spec, Some(container))))
        }
        _ => Err(Refusal::arity("help")),
    }
}

fn one(name: &[u8]) -> Answer {
    Ok(Reply::Lines(detail(find(name)?, None)))
}

fn find(name: &[u8]) -> Result<&'static Spec, Refusal> {
    table::find(name).ok_or_else(|| unknown(name))
}

fn unknown(name: &[u8]) -> Refusal {
    format!("ERR no help for '{}': HELP lists all commands", shown(name)).into()
}

/// Longer usages push their summary to the right, which is better than pushing all others.
const COLUMN: usize = 30;

fn overview() -> String {
    let mut text = String::from("HELP command tells more. In any case of letters:\r\n");
    for group in Group::ALL {
        text += &format!("\r\n{}\r\n", group.title());
        for spec in table::all().filter(|spec| spec.group == group) {
            text += &format!("  {:COLUMN$} {}\r\n", short_usage(spec), spec.summary);
        }
    }
    text
}

/// A usage that fits the column: its options are for the detail.
fn short_usage(spec: &Spec) -> String {
    let full = usage(spec, None);
    match full.find(" [") {
        Some(at) if full.len() > COLUMN => format!("{} ...", &full[..at]),
        _ => full,
    }
}

pub(super) fn usage(spec: &Spec, container: Option<&Spec>) -> String {
    let container = container.map_or(String::new(), |container| format!("{} ", container.name));
    format!("{container}{} {}", spec.name, spec.syntax).trim_end().to_owned()
}

fn detail(spec: &Spec, container: Option<&Spec>) -> String {
    let mut text = format!("{}\r\n  {}\r\n", usage(spec, container), spec.summary);
    for sub in spec.subcommands {
        text += &format!("  {:COLUMN$} {}\r\n", usage(sub, Some(spec)), sub.summary);
    }
    text + &format!("  example: {}\r\n", spec.example)
}

/// What `CONTAINER HELP` answers: lines in an array, as in Redis.
pub(super) fn subcommands(spec: &Spec) -> Reply {
    let line = |text: String| Reply::Status(text.into());
    let mut lines = vec![line(format!("{} <subcommand> [<arg> [value] [opt] ...]. Subcommands are:", spec.name))];
    for sub in spec.subcommands {
        lines.push(line(format!("{} {}", sub.name, sub.syntax).trim_end().to_owned()));
        lines.push(line(format!("    {}", sub.summary)));
    }
    lines.push(line("HELP".to_owned()));
    lines.push(line("    This text".to_owned()));
    Reply::Array(lines)
}
