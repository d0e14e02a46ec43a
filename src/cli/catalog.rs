//! The server's own command table, as COMMAND DOCS tells it: for completion, hints, and help where there is no HELP.
//!
//! Nothing of it is built in, so the client knows whatever the server it talks to has.

use crate::protocol::reply_reader::Value;

/// One command or subcommand.
#[derive(Debug, PartialEq)]
pub(crate) struct Entry {
    /// In upper case; a subcommand as `CLIENT LIST`.
    pub(crate) name: String,
    summary: String,
    /// Its arguments in order, each as one would write it: `key`, `[EX seconds]`, `key [key ...]`.
    arguments: Vec<String>,
}

/// All commands, sorted by name.
#[derive(Debug, Default)]
pub(crate) struct Catalog {
    entries: Vec<Entry>,
}

impl Catalog {
    /// From the answer to COMMAND DOCS. What is not as expected is left out: hints are a comfort.
    pub(crate) fn from_docs(docs: &Value) -> Catalog {
        let mut entries = Vec::new();
        for (name, doc) in fields(docs) {
            collect(name, doc, &mut entries);
        }
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Catalog { entries }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether there is a command of this name, in upper case.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.find(&[name]).is_some()
    }

    /// The names that complete `typed`, word by word: `CL` is completed to CLIENT, `CLIENT L` to CLIENT LIST. What is
    /// typed in lower case is completed in lower case.
    pub(crate) fn completions(&self, typed: &str) -> Vec<String> {
        let upper = typed.to_ascii_uppercase();
        let words = upper.split(' ').count();
        let lower_case = !typed.contains(|letter: char| letter.is_ascii_uppercase());
        let fits = |entry: &&Entry| entry.name.starts_with(&upper) && entry.name.split(' ').count() == words;
        let case = |entry: &Entry| if lower_case { entry.name.to_ascii_lowercase() } else { entry.name.clone() };
        self.entries.iter().filter(fits).map(case).collect()
    }

    /// The arguments that `line` still lacks.
    pub(crate) fn missing_arguments(&self, line: &str) -> Option<String> {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let (entry, of_name) = self.find(&words)?;
        let missing = entry.arguments.get(words.len() - of_name..)?;
        if missing.is_empty() { None } else { Some(missing.join(" ")) }
    }

    /// A command in two lines, for servers without HELP.
    pub(crate) fn help(&self, words: &[&str]) -> Option<String> {
        let (entry, _) = self.find(words)?;
        let usage = [std::slice::from_ref(&entry.name), &entry.arguments].concat().join(" ");
        Some(format!("{usage}\r\n  {}\r\n", entry.summary))
    }

    /// The entry that `words` begin with, and how many of them are its name.
    fn find(&self, words: &[&str]) -> Option<(&Entry, usize)> {
        (1..=words.len().min(2)).rev().find_map(|len| {
            let name = words[..len].join(" ").to_ascii_uppercase();
            let at = self.entries.binary_search_by(|entry| entry.name.cmp(&name)).ok()?;
            Some((&self.entries[at], len))
        })
    }
}

fn collect(name: &str, doc: &Value, entries: &mut Vec<Entry>) {
    let arguments = field(doc, "arguments").map(items).unwrap_or_default();
    entries.push(Entry {
        // Redis writes `client|list`.
        name: name.replace('|', " ").to_ascii_uppercase(),
        summary: field(doc, "summary").and_then(text).unwrap_or_default().to_string(),
        arguments: arguments.iter().map(argument).collect(),
    });
    for (name, doc) in field(doc, "subcommands").map(fields).unwrap_or_default() {
        collect(name, doc, entries);
    }
}

/// An argument as one would write it.
fn argument(doc: &Value) -> String {
    let name = field(doc, "display_text").or(field(doc, "name")).and_then(text).unwrap_or("arg");
    let kind = field(doc, "type").and_then(text).unwrap_or_default();
    let token = field(doc, "token").and_then(text);
    let parts = || field(doc, "arguments").map(items).unwrap_or_default().iter().map(argument).collect::<Vec<_>>();
    let flags = field(doc, "flags").map(items).unwrap_or_default();
    let has = |flag: &str| flags.iter().any(|item| text(item) == Some(flag));

    let value = match kind {
        "pure-token" => String::new(),
        "oneof" => parts().join("|"),
        "block" => parts().join(" "),
        _ => name.to_string(),
    };
    let mut written = match (token, value.as_str()) {
        (Some(token), "") => token.to_string(),
        // The empty token of some optional keys of Redis.
        (Some("\"\"") | None, _) => value,
        (Some(token), _) => format!("{token} {value}"),
    };
    if has("multiple") {
        written = format!("{written} [{written} ...]");
    }
    match (has("optional"), kind) {
        (true, _) => format!("[{written}]"),
        (false, "oneof") => format!("<{written}>"),
        _ => written,
    }
}

fn fields(map: &Value) -> Vec<(&str, &Value)> {
    match map {
        Value::Map(pairs) => pairs.iter().filter_map(|(key, value)| Some((text(key)?, value))).collect(),
        // RESP2.
        Value::Array(items) => items.chunks_exact(2).filter_map(|pair| Some((text(&pair[0])?, &pair[1]))).collect(),
        _ => Vec::new(),
    }
}

fn field<'v>(map: &'v Value, name: &str) -> Option<&'v Value> {
    fields(map).into_iter().find(|(key, _)| *key == name).map(|(_, value)| value)
}

fn items(list: &Value) -> &[Value] {
    match list {
        Value::Array(items) | Value::Set(items) => items,
        _ => &[],
    }
}

fn text(value: &Value) -> Option<&str> {
    match value {
        Value::Bulk(bytes) | Value::Simple(bytes) => std::str::from_utf8(bytes).ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(text: &str) -> Value {
        Value::Bulk(text.as_bytes().to_vec())
    }

    fn map(pairs: &[(&str, Value)]) -> Value {
        Value::Map(pairs.iter().map(|(key, value)| (word(key), value.clone())).collect())
    }

    fn arg(name: &str, kind: &str, token: Option<&str>, flags: &[&str], parts: &[Value]) -> Value {
        let mut pairs = vec![("name", word(name)), ("type", word(kind))];
        pairs.extend(token.map(|token| ("token", word(token))));
        pairs.push(("flags", Value::Set(flags.iter().map(|flag| word(flag)).collect())));
        if !parts.is_empty() {
            pairs.push(("arguments", Value::Array(parts.to_vec())));
        }
        map(&pairs)
    }

    fn catalog() -> Catalog {
        let token = |token: &str| arg("t", "pure-token", Some(token), &[], &[]);
        let expiry = [arg("seconds", "integer", Some("EX"), &[], &[]), token("KEEPTTL")];
        let set = [
            arg("key", "key", None, &[], &[]),
            arg("value", "string", None, &[], &[]),
            arg("condition", "oneof", None, &["optional"], &[token("NX"), token("XX")]),
            arg("expiration", "oneof", None, &["optional"], &expiry),
        ];
        let del = [arg("key", "key", None, &["multiple"], &[])];
        let list = map(&[("summary", word("Lists connections"))]);
        let docs = map(&[
            ("set", map(&[("summary", word("Sets a key")), ("arguments", Value::Array(set.to_vec()))])),
            ("del", map(&[("arguments", Value::Array(del.to_vec()))])),
            ("client", map(&[("subcommands", map(&[("client|list", list)]))])),
            ("select", map(&[])),
        ]);
        Catalog::from_docs(&docs)
    }

    #[test]
    fn names_complete_word_by_word_in_the_case_that_is_typed() {
        let catalog = catalog();
        assert_eq!(catalog.completions("se"), ["select", "set"]);
        assert_eq!(catalog.completions("CL"), ["CLIENT"]);
        assert_eq!(catalog.completions("CLIENT "), ["CLIENT LIST"]);
        assert_eq!(catalog.completions("client l"), ["client list"]);
        assert!(catalog.completions("set k").is_empty());
    }

    #[test]
    fn hints_are_the_arguments_still_missing() {
        let catalog = catalog();
        assert_eq!(catalog.missing_arguments("set").unwrap(), "key value [NX|XX] [EX seconds|KEEPTTL]");
        assert_eq!(catalog.missing_arguments("SET user:1 ").unwrap(), "value [NX|XX] [EX seconds|KEEPTTL]");
        assert_eq!(catalog.missing_arguments("del").unwrap(), "key [key ...]");
        assert_eq!(catalog.missing_arguments("client list"), None);
        assert_eq!(catalog.missing_arguments("set k v NX EX 5"), None);
        assert_eq!(catalog.missing_arguments("nosuch"), None);
        assert_eq!(catalog.missing_arguments(""), None);
    }

    #[test]
    fn help_is_usage_and_summary() {
        let catalog = catalog();
        assert_eq!(catalog.help(&["set"]).unwrap(), "SET key value [NX|XX] [EX seconds|KEEPTTL]\r\n  Sets a key\r\n");
        assert_eq!(catalog.help(&["client", "list"]).unwrap(), "CLIENT LIST\r\n  Lists connections\r\n");
        assert_eq!(catalog.help(&["nosuch"]), None);
    }

    #[test]
    fn a_server_without_docs_gives_an_empty_catalog() {
        assert!(Catalog::from_docs(&Value::Error(b"ERR unknown subcommand".to_vec())).is_empty());
    }
}
