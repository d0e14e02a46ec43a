//! Shows what is in a table file: `cargo run --example dump_table -- chronos-data/000008.sst`

use std::path::PathBuf;
use std::process::ExitCode;

use chronos::engine::dump_table;
use chronos::fs::OsFs;

fn main() -> ExitCode {
    let Some(path) = std::env::args_os().nth(1).map(PathBuf::from) else {
        eprintln!("usage: dump_table FILE.sst");
        return ExitCode::from(2);
    };
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).map_or(".".into(), PathBuf::from);
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let shown = OsFs::open(directory)
        .map_err(|error| error.to_string())
        .and_then(|fs| dump_table(&fs, &name).map_err(|error| error.to_string()));
    match shown {
        Ok(text) => {
            println!("{text}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
