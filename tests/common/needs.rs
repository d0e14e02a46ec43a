//! What not every machine has: root, a tool, a kind of file system. A test that cannot do its work says so on stderr and
//! passes; past the test harness, which keeps back what passing tests print.

#![allow(dead_code, reason = "each test binary uses its own part")]

use std::io::Write;
use std::path::Path;

/// Says that the test of this thread does nothing, and why.
pub fn skip(why: &str) {
    let thread = std::thread::current();
    let test = thread.name().unwrap_or("a test");
    let _ = writeln!(std::io::stderr(), "SKIPPED: {test}: {why}");
}

/// Whether this is root and the programs are installed; says so if not.
pub fn has_root_and(programs: &[&str]) -> bool {
    if !rustix::process::geteuid().is_root() {
        skip("it needs root");
        return false;
    }
    has(programs)
}

/// Whether the programs are installed; says so if not.
pub fn has(programs: &[&str]) -> bool {
    let paths: Vec<_> = std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())
        // Where an ordinary user's path does not lead.
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .collect();
    let missing = programs.iter().find(|program| !paths.iter().any(|path| Path::new(path).join(program).exists()));
    if let Some(missing) = missing {
        skip(&format!("{missing} is not installed"));
    }
    missing.is_none()
}
