//! The rules of the house that a program can check: arrows between floors point down, nothing panics or prints by itself,
//! every file tells what it is and fits into one sitting, and every seeded defect has its test.

#![allow(clippy::unwrap_used, reason = "a test may")]

#[path = "defects/table.rs"]
mod table;

use std::fs;
use std::path::{Path, PathBuf};

use table::CAUGHT_BY;

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
        let path = &*self.path;
        path.contains("/tests/") || path.ends_with("tests.rs") || TEST_HELPERS.contains(&path) || is_fuzz_target(path)
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
const TEST_HELPERS: [&str; 4] =
    ["src/storage/testing.rs", "src/storage/golden.rs", "src/storage/cache_schedules.rs", "src/server/schedules.rs"];

/// Seen by tests and fuzzers only.
fn is_fuzz_target(path: &str) -> bool {
    path.starts_with("src/fuzz/") || path.ends_with("/fuzz.rs")
}

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
    for source in
        ["src", "tests", "benches", "examples", "fuzz/src", "fuzz/targets"].iter().flat_map(|under| sources(under))
    {
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
    for source in
        ["src", "tests", "benches", "examples", "fuzz/src", "fuzz/targets"].iter().flat_map(|under| sources(under))
    {
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

/// Lines of a manifest that must not get lost, with the section of each.
const HELD: [(&str, &str); 3] = [
    ("[lints.rust]", "unsafe_code = \"forbid\""),
    // A wrong sum must not become a wrong offset.
    ("[profile.release]", "overflow-checks = true"),
    ("[package]", "license = \"MIT\""),
];

fn section<'a>(manifest: &'a str, name: &str) -> &'a str {
    let behind = manifest.split_once(&format!("{name}\n")).map_or("", |(_, behind)| behind);
    behind.split("\n[").next().unwrap_or_default()
}

#[test]
fn nothing_unsafe_is_built_and_sums_are_checked() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let manifest = fs::read_to_string(root.join("Cargo.toml")).unwrap();
    for (name, line) in HELD {
        assert!(section(&manifest, name).lines().any(|found| found == line), "{name} lacks {line}");
    }
    let named: Vec<_> = ["src", "tests", "benches", "examples", "fuzz/src", "fuzz/targets"]
        .iter()
        .flat_map(|under| sources(under))
        .filter(|source| source.path != "tests/tidy.rs" && source.text.contains("unsafe_code"))
        .map(|source| source.path)
        .collect();
    assert!(named.is_empty(), "a lint that is forbidden is not to be set anew: {named:?}");
    assert!(section(&fs::read_to_string(root.join("fuzz/Cargo.toml")).unwrap(), "[lints.rust]").contains(HELD[0].1));
}

#[test]
fn a_fuzz_target_has_its_program_and_its_corpus() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let table = fs::read_to_string(root.join("src/fuzz/mod.rs")).unwrap();
    let named = table.split("Target { name: \"").skip(1).map(|rest| rest.split('"').next().unwrap());
    let mut names: Vec<&str> = named.collect();
    names.sort_unstable();
    let manifest = fs::read_to_string(root.join("fuzz/Cargo.toml")).unwrap();
    let mut programs: Vec<&str> =
        manifest.split("[[bin]]\nname = \"").skip(1).map(|rest| rest.split('"').next().unwrap()).collect();
    programs.sort_unstable();
    assert_eq!(names, programs);
    assert!(names.len() > 5, "the test is blind");
    for name in names {
        let program = fs::read_to_string(root.join(format!("fuzz/targets/{name}.rs"))).unwrap();
        assert!(program.contains(&format!("run(\"{name}\", input)")), "{name}");
        assert!(root.join("fuzz/corpus").join(name).is_dir(), "{name} has no corpus");
    }
}

/// The seeded defects: what is wrong with each, and its name.
fn seeded_defects() -> Vec<(String, String)> {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/codec/defect.rs")).unwrap();
    let list = text.split_once("\ndefects! {\n").unwrap().1.split_once("\n}\n").unwrap().0;
    let lines: Vec<&str> = list.lines().map(str::trim).collect();
    let one = |lines: &[&str]| {
        (lines[0].strip_prefix("/// ").unwrap().to_owned(), lines[1].strip_suffix(',').unwrap().to_owned())
    };
    lines.chunks(2).map(one).collect()
}

#[test]
fn every_seeded_defect_is_in_the_engine_once_has_its_test_and_is_documented() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let defects = seeded_defects();
    let names: Vec<&str> = defects.iter().map(|(_, name)| &**name).collect();
    assert!(names.len() >= 30, "{names:?}");
    let tested: Vec<&str> = CAUGHT_BY.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, tested, "tests/defects/table.rs has them in the order of src/codec/defect.rs");
    let mut complaints = Vec::new();
    let sources = sources("src");
    for name in names {
        let call = format!("seeded(Defect::{name})");
        let uses: usize = sources.iter().map(|source| source.text.matches(&call).count()).sum();
        if uses != 1 {
            complaints.push(format!("{call} is in src {uses} times"));
        }
    }
    // What the document has to have, to be copied into it.
    let mut table = "| defect | what is wrong | caught by |\n|---|---|---|\n".to_owned();
    for ((what, name), (_, tests)) in defects.iter().zip(CAUGHT_BY) {
        let mut by: Vec<&str> = tests.iter().map(|test| test.split_once("::").unwrap().0).collect();
        by.dedup();
        table += &format!("| `{name}` | {what} | {} |\n", by.join(", "));
    }
    if !fs::read_to_string(root.join("docs/durability.md")).unwrap().contains(&table) {
        complaints.push(format!("docs/durability.md does not have\n{table}"));
    }
    fail_with(complaints);
}

/// What is built for use has no seeded defect.
#[test]
fn no_other_feature_turns_on_seeded_defects() {
    let manifest = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml")).unwrap();
    let features = manifest.split_once("\n[features]\n").unwrap().1.split_once("\n[").unwrap().0;
    let lines: Vec<&str> = features.lines().filter(|line| line.contains("seeded-defects")).collect();
    assert_eq!(lines, ["seeded-defects = []"]);
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
