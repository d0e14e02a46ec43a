//! Chronos beside RocksDB, fjall and redb: the same work, the same bytes, the same settings, in turns.
//!
//! ```text
//! cd benches/peers && cargo run --release -- --keys 1000000 --rounds 3
//! ```
//!
//! Each run of an engine is a process of its own. Engines take turns within a row, and rows are repeated in rounds, so
//! that whatever else the machine does meets all of them; medians are printed. What the settings are, and what an engine
//! does not have, is written in `engines/`; `docs/benchmarks.md` has the results.

mod child;
mod engines;
mod report;
mod rows;
mod work;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use clap::Parser;
use engines::{Result, Settings};
use report::{Measured, Runs};
use rows::{Memory, ROWS, Row};
use work::{KEY, VALUE};

/// Less than this no engine is opened with.
const LEAST_MEMORY: usize = 8 << 20;

/// Compares Chronos with other embedded engines.
#[derive(Clone, Debug, Parser)]
struct Args {
    /// How many keys of 16 bytes with values of 100.
    #[arg(long, default_value_t = 1_000_000)]
    keys: u32,
    /// Rows whose name contains one of these; all by default.
    #[arg(long, value_delimiter = ',')]
    rows: Vec<String>,
    /// Engines, of chronos, rocksdb, fjall and redb; all by default.
    #[arg(long, value_delimiter = ',')]
    engines: Vec<String>,
    /// How often each row is repeated.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Where databases are made, in a directory of their own that is deleted in the end.
    #[arg(long, default_value = "/tmp")]
    dir: PathBuf,
    /// MiB for cache and memtables; rows of reads from the cache have at least twice the data, rows with 10x a tenth of it.
    #[arg(long, default_value_t = 256)]
    memory: usize,
    /// Seconds after which a timed phase ends, whatever is left.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Threads, instead of what the row says.
    #[arg(long)]
    threads: Option<usize>,
    /// For the process of one run: its row, or `prepare`.
    #[arg(long, hide = true, requires = "engine")]
    row: Option<String>,
    #[arg(long, hide = true)]
    engine: Option<String>,
}

impl Args {
    fn memory(&self, memory: Memory) -> usize {
        let data = self.keys as usize * (KEY + VALUE);
        let given = self.memory << 20;
        let bytes = match memory {
            Memory::Given => given,
            // Half of it is cache.
            Memory::Plenty => given.max(4 * data),
            Memory::Tenth => data / 10,
        };
        bytes.max(LEAST_MEMORY)
    }

    fn row(&self, name: &str) -> Option<Row> {
        let row = Row::named(name)?;
        Some(Row { threads: self.threads.unwrap_or(row.threads), ..row })
    }

    /// Runs `row` (or `prepare`) in a process of its own.
    fn spawn(&self, engine: &str, row: &str, directory: &Path) -> Result<String> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["--engine", engine, "--row", row]).arg("--dir").arg(directory);
        command.args(["--keys", &self.keys.to_string(), "--memory", &self.memory.to_string()]);
        command.args(["--seconds", &self.seconds.to_string()]);
        if let Some(threads) = self.threads {
            command.args(["--threads", &threads.to_string()]);
        }
        let output = command.stderr(Stdio::inherit()).output()?;
        if output.status.success() {
            Ok(String::from_utf8(output.stdout)?)
        } else {
            Err(format!("{engine} has failed in {row}: {}", output.status).into())
        }
    }
}

fn main() -> Result<()> {
    let args = Args::parse();
    match (&args.row, &args.engine) {
        (Some(row), Some(engine)) if row == "prepare" => {
            child::prepare(engine, &args.dir, args.keys, args.memory(Memory::Given))
        }
        (Some(row), Some(engine)) => {
            let row = args.row(row).ok_or_else(|| format!("no row {row}"))?;
            let settings = Settings { memory: args.memory(row.memory), synced: row.synced };
            let cap = Duration::from_secs(args.seconds);
            let measured = child::run(engine, row, &args.dir, args.keys, settings, cap)?;
            println!("{}", measured.line());
            Ok(())
        }
        _ => {
            let home = args.dir.join(format!("peers-{}", std::process::id()));
            let result = compare(&args, &home);
            fs::remove_dir_all(&home)?;
            result
        }
    }
}

fn compare(args: &Args, home: &Path) -> Result<()> {
    fs::create_dir_all(home)?;
    let chosen = |list: &[String], name: &str| list.is_empty() || list.iter().any(|part| name.contains(part.as_str()));
    let engines: Vec<&'static str> =
        engines::NAMES.iter().copied().filter(|name| chosen(&args.engines, name)).collect();
    let rows: Vec<Row> =
        ROWS.iter().filter(|row| chosen(&args.rows, row.name)).filter_map(|r| args.row(r.name)).collect();
    if rows.iter().any(Row::on_full) {
        for engine in &engines {
            args.spawn(engine, "prepare", &home.join(engine))?;
        }
    }
    println!("row engine round {}", Measured::COLUMNS);
    let mut results = Vec::new();
    for row in rows {
        let mut runs = Runs::new();
        for round in 0..args.rounds {
            // Another one begins each time.
            for turn in 0..engines.len() {
                let engine = engines[(round + turn) % engines.len()];
                let measured = turn_of(args, engine, row, home)?;
                println!("{} {engine} {round} {}", row.name, measured.line());
                runs.entry(engine).or_default().push(measured);
            }
        }
        results.push((row, runs));
    }
    println!("\n{}", report::tables(&results, &engines));
    Ok(())
}

/// Reads use the prepared database, writes a copy of it.
fn turn_of(args: &Args, engine: &str, row: Row, home: &Path) -> Result<Measured> {
    let (prepared, work) = (home.join(engine), home.join("work"));
    if row.on_full() && !row.writes() {
        return Measured::parse(&args.spawn(engine, row.name, &prepared)?);
    }
    if row.on_full() {
        copy(&prepared, &work)?;
    }
    let result = args.spawn(engine, row.name, &work).and_then(|line| Measured::parse(&line));
    fs::remove_dir_all(&work)?;
    result
}

/// Copies a directory; what was copied is on the disk before anything is timed.
fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), &target)?;
            fs::File::open(&target)?.sync_all()?;
        }
    }
    Ok(())
}
