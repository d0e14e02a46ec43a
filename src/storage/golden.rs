//! Golden files: bytes that must stay what they are, as hex dumps in `tests/golden/`. With `UPDATE_GOLDEN=1` they
//! are written anew; read the difference before you commit it.

use std::path::PathBuf;

/// What the file in `tests/golden/` says, after it was written if that was asked for.
pub(crate) fn golden(name: &str, text: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
    }
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Offset, sixteen bytes, and what of them is text.
pub(crate) fn hex(bytes: &[u8]) -> String {
    let line = |(n, chunk): (usize, &[u8])| {
        let digits: Vec<String> = chunk.iter().map(|byte| format!("{byte:02x}")).collect();
        let shown: String =
            chunk.iter().map(|&byte| if byte.is_ascii_graphic() { char::from(byte) } else { '.' }).collect();
        format!("{:06x}  {:<47}  {shown}\n", n * 16, digits.join(" "))
    };
    bytes.chunks(16).enumerate().map(line).collect()
}

/// The bytes of a dump.
pub(crate) fn unhex(text: &str) -> Vec<u8> {
    let digits = |line: &str| line[8..55].split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    text.lines().flat_map(digits).map(|byte| u8::from_str_radix(&byte, 16).unwrap()).collect()
}
