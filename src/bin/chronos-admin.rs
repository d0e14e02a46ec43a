//! chronos-admin: arguments, exit codes; the rest is in the library.

use std::io::{BufWriter, ErrorKind, Write, stderr, stdout};
use std::path::PathBuf;
use std::process::ExitCode;

use chronos::admin::{self, Directory, Error, Health, Target};
use clap::{Parser, Subcommand};

/// Looks after Chronos databases: check, look into, restore, repair.
#[derive(Parser)]
#[command(name = "chronos-admin", version, max_term_width = 120, after_help = EXAMPLES)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Check every checksum, the order of keys, filters, the manifest's word and the log; changes nothing
    Verify {
        /// The data directory; it may be in use
        dir: PathBuf,
    },
    /// Show a file of a database as text: a table, a log segment, a manifest or CURRENT
    Dump {
        /// NUMBER.sst, NUMBER.wal, NUMBER.manifest or CURRENT
        file: PathBuf,
        /// Of a table, every entry and not only the blocks
        #[arg(long)]
        entries: bool,
    },
    /// Show levels, files, bytes, entries, tombstones, key ranges and the log, as the manifest has them
    Stats {
        /// The data directory; it may be in use
        dir: PathBuf,
    },
    /// Make a new data directory out of a checkpoint, by copy, and check the copy
    Restore {
        /// What CHECKPOINT made, or the data directory of a server that is not running
        checkpoint: PathBuf,
        /// Where the new data directory goes: nothing, or an empty directory, may be there
        dir: PathBuf,
    },
    /// Save every block and log record that can be read into a new database, and list what is lost
    Repair {
        /// The damaged data directory; no server may be running on it
        dir: PathBuf,
        /// The new data directory
        #[arg(long, value_name = "NEWDIR", required_unless_present = "in_place", conflicts_with = "in_place")]
        to: Option<PathBuf>,
        /// Put the repaired database into DIR's place; what was there is kept as DIR.damaged
        #[arg(long)]
        in_place: bool,
    },
}

const EXAMPLES: &str = "Examples:
  chronos-admin verify chronos-data
  chronos-admin dump chronos-data/000012.wal | less
  chronos-admin dump --entries chronos-data/000008.sst
  chronos-admin stats chronos-data
  chronos-admin restore checkpoints/monday new-data
  chronos-admin repair chronos-data --to repaired-data

Exit status: 0 if all is well, 1 if something is damaged, was lost or could not be done, 2 for wrong arguments.";

fn main() -> ExitCode {
    let mut out = BufWriter::new(stdout().lock());
    let result =
        run(Arguments::parse().task, &mut out).and_then(|health| out.flush().map(|()| health).map_err(Error::Output));
    match result {
        Ok(Health::Clean) => ExitCode::SUCCESS,
        Ok(Health::Damaged) => ExitCode::FAILURE,
        // Whoever reads it has seen enough (`| head`).
        Err(Error::Output(error)) if error.kind() == ErrorKind::BrokenPipe => ExitCode::FAILURE,
        Err(error) => {
            // What was said before belongs before.
            let _ = out.flush();
            let _ = writeln!(stderr(), "chronos-admin: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(task: Task, out: &mut dyn Write) -> admin::Result<Health> {
    match task {
        Task::Verify { dir } => admin::verify(&Directory::open(dir)?, out),
        Task::Dump { file, entries } => admin::dump(&file, entries, out),
        Task::Stats { dir } => admin::stats(&Directory::open(dir)?, out),
        Task::Repair { dir, to, in_place: _ } => {
            let target = to.map_or(Target::InPlace, Target::New);
            let losses = admin::repair(&dir, &target, out)?;
            Ok(if losses.is_empty() { Health::Clean } else { Health::Damaged })
        }
        Task::Restore { checkpoint, dir } => admin::restore(&checkpoint, &dir, out),
    }
}
