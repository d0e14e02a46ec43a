//! `CURRENT`, which names the manifest in force. It is replaced as a whole: see
//! [`super::manifest::ManifestWriter::create`].
//!
//! ```text
//! CURRENT := manifest: file name | " " | crc: 8 hex digits, lower case | "\n"     // CRC-32 of the file name
//! ```

use super::names::{FileName, FileNumber};
use super::{Error, Result};
use crate::codec::crc;
use crate::fs::Fs;

/// The content of a `CURRENT` that names `manifest`.
pub(super) fn current_naming(manifest: &str) -> String {
    format!("{manifest} {:08x}\n", crc::crc32(&[manifest.as_bytes()]))
}

/// The number of the manifest in force, or `None` if there is no database here yet.
pub(crate) fn current(fs: &dyn Fs) -> Result<Option<FileNumber>> {
    let name = FileName::Current.to_string();
    let bytes = match super::read_whole(fs, &name) {
        Ok(bytes) => bytes,
        Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    match parse_current(&bytes) {
        Some(number) => Ok(Some(number)),
        None => Err(Error::Corrupt { file: name, what: "it does not name a manifest".to_owned(), offset: 0 }),
    }
}

/// The manifest that the bytes of a `CURRENT` name.
pub(crate) fn parse_current(bytes: &[u8]) -> Option<FileNumber> {
    let line = std::str::from_utf8(bytes).ok()?.strip_suffix('\n')?;
    let (manifest, sum) = line.split_once(' ')?;
    let FileName::Manifest(number) = FileName::parse(manifest)? else { return None };
    (sum == format!("{:08x}", crc::crc32(&[manifest.as_bytes()]))).then_some(number)
}
