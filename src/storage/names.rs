//! The names of a database's files. Anything else in the directory is foreign: never opened, never deleted.
//!
//! ```text
//! CURRENT            which manifest is in force
//! CURRENT.tmp        the next CURRENT, until it is renamed
//! LOCK               held by the process that has the database open
//! 000007.manifest    version edits
//! 000012.wal         a log segment
//! 000013.sst         a table
//! 000014.blob        large values of tables
//! ```

use std::fmt;

/// The number in a file's name. One counter serves all kinds; a number is never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct FileNumber(pub(crate) u64);

impl FileNumber {
    /// No number reaches this: a thousand files a second take 146 million years. A name or a manifest that says
    /// otherwise is not ours, and nobody has to think of overflow.
    pub(crate) const LIMIT: FileNumber = FileNumber(1 << 62);
}

/// A file of the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FileName {
    Current,
    CurrentTemp,
    Manifest(FileNumber),
    Wal(FileNumber),
    Table(FileNumber),
    Blob(FileNumber),
}

impl FileName {
    /// The file that `name` names, if it is one that Chronos writes.
    pub(crate) fn parse(name: &str) -> Option<FileName> {
        match name {
            "CURRENT" => return Some(FileName::Current),
            "CURRENT.tmp" => return Some(FileName::CurrentTemp),
            _ => {}
        }
        let (digits, kind) = name.split_once('.')?;
        let number = FileNumber(digits.parse().ok()?);
        if number > FileNumber::LIMIT {
            return None;
        }
        let file = match kind {
            "manifest" => FileName::Manifest(number),
            "wal" => FileName::Wal(number),
            "sst" => FileName::Table(number),
            "blob" => FileName::Blob(number),
            _ => return None,
        };
        // `+7.wal` or `7.wal` parse as numbers but are nobody's names.
        (file.to_string() == name).then_some(file)
    }

    pub(crate) fn number(self) -> Option<FileNumber> {
        match self {
            FileName::Current | FileName::CurrentTemp => None,
            FileName::Manifest(number) | FileName::Wal(number) | FileName::Table(number) | FileName::Blob(number) => {
                Some(number)
            }
        }
    }
}

impl fmt::Display for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FileName::Current => f.write_str("CURRENT"),
            FileName::CurrentTemp => f.write_str("CURRENT.tmp"),
            FileName::Manifest(number) => write!(f, "{:06}.manifest", number.0),
            FileName::Wal(number) => write!(f, "{:06}.wal", number.0),
            FileName::Table(number) => write!(f, "{:06}.sst", number.0),
            FileName::Blob(number) => write!(f, "{:06}.blob", number.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_chronos_writes_are_its_own() {
        for name in
            ["CURRENT", "CURRENT.tmp", "000001.wal", "1234567.sst", "000003.manifest", "4611686018427387904.blob"]
        {
            assert_eq!(FileName::parse(name).unwrap().to_string(), name);
        }
        for name in [
            "LOCK",
            "1.wal",
            "+00001.wal",
            "000001.wal.bak",
            "notes.txt",
            "",
            "000001.",
            "-00001.sst",
            "18446744073709551615.sst",
            "4611686018427387905.sst",
        ] {
            assert_eq!(FileName::parse(name), None, "{name}");
        }
    }
}
