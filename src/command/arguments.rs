//! The arguments of COMMAND DOCS, from which clients make their hints: a row's syntax in Redis's shape.

use super::spec::{Keys, Spec};
use super::syntax::{self, Item};
use crate::protocol::Reply;

/// What a client is told about one argument.
#[derive(Default)]
struct Argument {
    name: String,
    kind: &'static str,
    /// The word in front of it.
    token: Option<&'static str>,
    optional: bool,
    multiple: bool,
    parts: Vec<Argument>,
}

pub(super) fn describe(spec: &Spec) -> Vec<Reply> {
    let has_keys = spec.keys != Keys::NONE;
    sequence(&syntax::parse(spec.syntax), has_keys).into_iter().map(Argument::reply).collect()
}

fn sequence(items: &[Item], has_keys: bool) -> Vec<Argument> {
    let mut arguments = Vec::new();
    let mut rest = items;
    while let Some(first) = rest.first() {
        let (mut argument, used) = match first {
            Item::Token(token) => after_token(token, &rest[1..], has_keys),
            Item::Name(_) => match repeated_block(rest) {
                Some(len) => (Argument { multiple: true, ..together(&rest[..len], has_keys) }, len + 1),
                None => (together(&rest[..1], has_keys), 1),
            },
            Item::Choice { .. } => (choice(first, has_keys), 1),
        };
        if argument.name.is_empty() {
            argument.name = "data".to_owned();
        }
        arguments.push(argument);
        rest = &rest[used..];
    }
    arguments
}

/// A token takes the names, or the choice, that stand behind it. Tells also how many items that were, itself included.
fn after_token(token: &'static str, rest: &[Item], has_keys: bool) -> (Argument, usize) {
    let names = rest.iter().take_while(|item| matches!(item, Item::Name(_))).count();
    match rest.first() {
        Some(item @ Item::Choice { optional: false, .. }) => {
            (Argument { token: Some(token), name: token.to_lowercase(), ..choice(item, has_keys) }, 2)
        }
        _ if names > 0 => (Argument { token: Some(token), ..together(&rest[..names], has_keys) }, 1 + names),
        _ => {
            (Argument { name: token.to_lowercase(), kind: "pure-token", token: Some(token), ..Argument::default() }, 1)
        }
    }
}

/// How many items stand in front of a bracket that repeats them: 1 in `key [key ...]`, 2 in
/// `key value [key value ...]`.
fn repeated_block(items: &[Item]) -> Option<usize> {
    let bracket = items.iter().position(|item| matches!(item, Item::Choice { .. }))?;
    match &items[bracket] {
        Item::Choice { alternatives, repeated: true, .. } => (alternatives[0] == items[..bracket]).then_some(bracket),
        _ => None,
    }
}

/// Several names as one argument.
fn together(names: &[Item], has_keys: bool) -> Argument {
    let one = |item: &Item| match item {
        Item::Name(name) => Argument { name: (*name).to_owned(), kind: kind(name, has_keys), ..Argument::default() },
        _ => Argument::default(),
    };
    match names {
        [name] => one(name),
        _ => Argument {
            kind: "block",
            name: "data".to_owned(),
            parts: names.iter().map(one).collect(),
            ..Argument::default()
        },
    }
}

fn choice(item: &Item, has_keys: bool) -> Argument {
    let Item::Choice { alternatives, optional, repeated } = item else { return Argument::default() };
    let mut parts: Vec<Argument> = alternatives.iter().map(|items| alternative(items, has_keys)).collect();
    let argument = match parts.len() {
        1 => parts.remove(0),
        _ => Argument { name: "option".to_owned(), kind: "oneof", parts, ..Argument::default() },
    };
    Argument { optional: *optional, multiple: *repeated, ..argument }
}

fn alternative(items: &[Item], has_keys: bool) -> Argument {
    let mut parts = sequence(items, has_keys);
    match parts.len() {
        1 => parts.remove(0),
        _ => Argument { name: "data".to_owned(), kind: "block", parts, ..Argument::default() },
    }
}

fn kind(name: &str, has_keys: bool) -> &'static str {
    match name {
        "key" if has_keys => "key",
        "pattern" => "pattern",
        "unix-seconds" | "unix-milliseconds" => "unix-time",
        "seconds" | "milliseconds" | "count" | "offset" | "index" | "cursor" | "decrement" | "timeout" => "integer",
        _ => "string",
    }
}

impl Argument {
    fn reply(self) -> Reply {
        let text = |text: &str| Reply::Text(text.to_owned());
        let mut fields = vec![(text("name"), text(&self.name)), (text("type"), text(self.kind))];
        match self.kind {
            "oneof" | "block" => {}
            "key" => {
                fields.push((text("display_text"), text(&self.name)));
                fields.push((text("key_spec_index"), Reply::Int(0)));
            }
            _ => fields.push((text("display_text"), text(&self.name))),
        }
        if let Some(token) = self.token {
            fields.push((text("token"), text(token)));
        }
        let flags = [(self.optional, "optional"), (self.multiple, "multiple")];
        let flags: Vec<Reply> =
            flags.into_iter().filter(|flag| flag.0).map(|flag| Reply::Status(flag.1.into())).collect();
        if !flags.is_empty() {
            fields.push((text("flags"), Reply::Array(flags)));
        }
        if !self.parts.is_empty() {
            fields.push((text("arguments"), Reply::Array(self.parts.into_iter().map(Argument::reply).collect())));
        }
        Reply::Map(fields)
    }
}
