//! The rules of the house that a program can check: arrows between floors point down, nothing panics or prints by itself,
//! every file tells what it is and fits into one sitting.

#![allow(clippy::unwrap_used, reason = "a test may")]

use std::fs;
use std::path::{Path, PathBuf};

/// From the ground up. A file may use its own floor and those below it.
const FLOORS: [&str; 11] =
    ["sync", "codec", "fs", "storage", "engine", "admin", "keyspace", "command", "protocol", "cli", "server"];

/// What a floor may not use although it lies below: the floors know each other less than their order allows.
const STRANGERS: [(&str, &[&str]); 4] = [
    // The text and the numbers of the wire; nothing of what is done with them.
    ("protocol", &["fs", "storage", "engine", "admin", "keyspace", "command"]),
    // It talks to a server over a socket.
    ("cli", &["fs", "storage", "engine", "admin", "keyspace", "command"]),
    // Files are opened by the engine.
    ("keyspace", &["fs", "storage", "admin"]),
    ("command", &["fs", "storage", "admin"]),
];

/// Upward all the same: a command takes a request and gives a reply, and the protocol is where those two are defined.
const ALLOWED_UPWARD: [(&str, &str); 1] = [("command", "protocol")];

const MAX_LINES: usize = 500;

struct Source {
    /// Below the crate's directory.
    path: String,
    text: String,
}

fn sources(under: &str) -> Vec<Source> {
    fn walk(directory: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut paths = Vec::new();
    if root.join(under).is_dir() {
        walk(&root.join(under), &mut paths);
    }
    paths.sort();
    let read = |path: PathBuf| Source {
        path: path.strip_prefix(root).unwrap().to_str().unwrap().to_owned(),
        text: fs::read_to_string(&path).unwrap(),
    };
    paths.into_iter().map(read).collect()
}

impl Source {
    /// The floor, or the file's name for those that stand above all floors.
    fn floor(&self) -> &str {
        self.path.split('/').nth(1).unwrap()
    }

    fn is_test(&self) -> bool {
        self.path.contains("/tests/") || self.path.ends_with("tests.rs") || TEST_HELPERS.contains(&&*self.path)
    }

    /// Numbered lines of code that ships: without comments, strings, and items that are for tests only.
    fn code(&self) -> Vec<(usize, String)> {
        let mut lines = Vec::new();
        if self.is_test() {
            return lines;
        }
        // Inside an item for tests: how its last line begins. The code is formatted, so that is where it ends.
        let mut item_end: Option<String> = None;
        let mut attribute = false;
        for (number, line) in self.text.lines().enumerate() {
            let indent = &line[..line.len() - line.trim_start().len()];
            if let Some(end) = &item_end {
                if line.starts_with(end.as_str()) {
                    item_end = None;
                }
            } else if line.trim_start().starts_with("#[cfg(test)]") || line.trim_start().starts_with("#[test]") {
                attribute = true;
            } else if attribute {
                attribute = line.trim_start().starts_with("#[");
                if !attribute && !line.ends_with(';') {
                    item_end = Some(format!("{indent}}}"));
                }
            } else {
                lines.push((number + 1, without_strings(line)));
            }
        }
        lines
    }
}

/// What only tests use, in files of its own.
const TEST_HELPERS: [&str; 3] = ["src/storage/testing.rs", "src/storage/golden.rs", "src/server/schedules.rs"];

/// A line without its comment and without what stands in string literals.
fn without_strings(line: &str) -> String {
    let mut code = String::new();
    let mut chars = line.chars().peekable();
    let mut inside = false;
    while let Some(c) = chars.next() {
        match c {
            '\\' if inside => drop(chars.next()),
            '"' => inside = !inside,
            '/' if !inside && chars.peek() == Some(&'/') => break,
            _ if inside => {}
            _ => code.push(c),
        }
    }
    code
}

/// The modules behind `crate::`, also those of `use crate::{a::X, b}`.
fn uses(code: &[(usize, String)]) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let word = |text: &str| text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    for (number, line) in code {
        for (at, _) in line.match_indices("crate::") {
            let rest = &line[at + "crate::".len()..];
            match rest.strip_prefix('{') {
                None => found.push((*number, word(rest))),
                Some(list) => {
                    let mut depth = 0;
                    let mut name = String::new();
                    for c in list.chars() {
                        match c {
                            '{' => depth += 1,
                            '}' => depth -= 1,
                            ',' if depth == 0 => found.push((*number, word(std::mem::take(&mut name).trim()))),
                            _ if depth == 0 => name.push(c),
                            _ => {}
                        }
                    }
                    found.push((*number, word(name.trim())));
                }
            }
        }
    }
    found.retain(|(_, name)| !name.is_empty());
    found
}

fn fail_with(complaints: Vec<String>) {
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
}

#[test]
fn arrows_between_floors_point_down() {
    let place = |floor: &str| FLOORS.iter().position(|other| *other == floor);
    let mut complaints = Vec::new();
    let mut arrows = 0;
    for source in sources("src") {
        let Some(from) = place(source.floor()) else { continue };
        for (line, name) in uses(&source.code()) {
            let Some(to) = place(&name) else { continue };
            arrows += 1;
            let upward = to > from && !ALLOWED_UPWARD.contains(&(FLOORS[from], FLOORS[to]));
            let stranger =
                STRANGERS.iter().any(|(floor, strangers)| *floor == FLOORS[from] && strangers.contains(&FLOORS[to]));
            if upward || stranger {
                complaints.push(format!("{}:{line}: {} must not use {name}", source.path, FLOORS[from]));
            }
        }
    }
    assert!(arrows > 50, "only {arrows} arrows were seen: the test is blind");
    fail_with(complaints);
}

#[test]
fn nothing_panics_carelessly_or_prints_by_itself() {
    let anywhere = [".unwrap()", "panic!(", "todo!(", "unimplemented!(", "dbg!("];
    let prints = ["println!(", "eprintln!(", "print!(", "eprint!("];
    let mut complaints = Vec::new();
    for source in sources("src") {
        let may_print = matches!(source.floor(), "bin" | "cli");
        for (number, line) in source.code() {
            let mut found =
                anywhere.iter().chain(prints.iter().filter(|_| !may_print)).filter(|word| says(&line, word));
            let found = found
                .find(|word| !MAY_PANIC.iter().any(|(path, _)| **word == "panic!(" && source.path.starts_with(path)));
            if let Some(word) = found {
                complaints.push(format!("{}:{number}: {word}", source.path));
            }
        }
    }
    fail_with(complaints);
}

/// Where a panic is the answer, and why.
const MAY_PANIC: [(&str, &str); 2] = [
    ("src/fs/sim/", "the simulated disk is for tests: one that asks for the impossible proves nothing"),
    ("src/command/syntax.rs", "it reads the rows of the command table, and a test reads them all"),
];

/// Whether the line has `word`, not as the end of a longer one.
fn says(line: &str, word: &str) -> bool {
    let before = |at: usize| line[..at].chars().next_back();
    line.match_indices(word)
        .any(|(at, _)| !before(at).is_some_and(|c| c.is_alphanumeric() || c == '_') || word.starts_with('.'))
}

#[test]
fn nothing_is_left_for_later() {
    let mut complaints = Vec::new();
    for source in ["src", "tests", "benches", "examples"].iter().flat_map(|under| sources(under)) {
        // This file names what it looks for.
        for (number, line) in source.text.lines().enumerate().filter(|_| source.path != "tests/tidy.rs") {
            for word in ["todo!", "unimplemented!", "dbg!", "TODO", "FIXME", "XXX"] {
                if line.contains(word) {
                    complaints.push(format!("{}:{}: {word}", source.path, number + 1));
                }
            }
        }
    }
    fail_with(complaints);
}

#[test]
fn every_file_says_what_it_is_and_can_be_read_in_one_sitting() {
    let mut complaints = Vec::new();
    for source in ["src", "tests", "benches", "examples"].iter().flat_map(|under| sources(under)) {
        if !source.text.starts_with("//!") {
            complaints.push(format!("{}: does not open with //!", source.path));
        }
        let lines = source.text.lines().count();
        if lines > MAX_LINES {
            complaints.push(format!("{}: {lines} lines, at most {MAX_LINES}", source.path));
        }
    }
    fail_with(complaints);
}

#[test]
fn the_test_sees_what_it_looks_for() {
    let code =
        |text: &str| text.lines().enumerate().map(|(n, line)| (n + 1, without_strings(line))).collect::<Vec<_>>();
    let found = uses(&code(
        "use crate::fs::{File, Fs};\nuse crate::{codec, engine::{self, Db}};\nlet x = crate::cli::run(\"crate::server\"); // crate::storage",
    ));
    let names: Vec<&str> = found.iter().map(|(_, name)| &**name).collect();
    assert_eq!(names, ["fs", "codec", "engine", "cli"]);
    assert!(says("    x.unwrap();", ".unwrap()") && says("panic!(", "panic!(") && !says("debug_panic!(", "panic!("));
    assert!(!says(&without_strings("let x = \"panic!(\"; // panic!("), "panic!("));
}
