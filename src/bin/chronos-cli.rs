//! `chronos-cli`: the client. All of it lives in the library, where tests reach it.

use std::process::ExitCode;

fn main() -> ExitCode {
    chronos::cli::main()
}
