//! Saves what can be read of a damaged database: every good block of its tables and every good record of its log, into a
//! new database. What is lost is listed with its place and its keys. The damaged files stay as they are.
//!
//! Every change has a sequence number, so it does not matter in which level a table was, or whether a record of the log is
//! in a table as well: of each key the newest version that can be read counts. Where the damage took that, an older one
//! comes back if there is one; such keys are among those that are listed.
//!
//! Which files count is the manifest's word if all of it can be read and fits what is there. Otherwise every table and
//! segment counts that no edit which can be read has dropped. A table that an edit of the lost part had dropped, and that a
//! crash kept from being deleted, cannot be told from one that was in use.

mod find;
mod rebuild;

use std::fmt;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Directory, Result, verify};
use crate::engine::checkpoint::begin;
use crate::engine::{self, Error};
use crate::fs::{Fs, exchange};
use crate::storage::text::shown;

/// Something that could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loss {
    /// The file.
    pub file: String,
    /// Where in it the bytes are, or were.
    pub offset: u64,
    /// How many.
    pub length: u64,
    /// The keys that may be lost lie from the first to the second; `None` is the end of all keys.
    pub keys: (Option<Vec<u8>>, Option<Vec<u8>>),
    /// Why.
    pub what: String,
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} bytes at {}: {}: ", self.file, self.length, self.offset, self.what)?;
        match &self.keys {
            (None, None) => write!(f, "any keys"),
            (Some(from), None) => write!(f, "keys from \"{}\" on", shown(from)),
            (None, Some(to)) => write!(f, "keys up to \"{}\"", shown(to)),
            (Some(from), Some(to)) => write!(f, "keys \"{}\" .. \"{}\"", shown(from), shown(to)),
        }
    }
}

/// Where the repaired database goes.
#[derive(Clone, Debug)]
pub enum Target {
    /// To a new directory.
    New(PathBuf),
    /// To the damaged one's own name. That is kept beside, with `.damaged` behind its name.
    InPlace,
}

/// Repairs the database at `path`, which nobody may have open, and writes what it finds. What is lost.
///
/// # Errors
///
/// [`Error::Locked`] if it is in use, [`Error::InvalidArgument`] if anything is at the target, [`Error::Io`] if the disk
/// refuses.
pub fn repair(path: &Path, target: &Target, out: &mut dyn Write) -> Result<Vec<Loss>> {
    let held = Directory::hold(path)?;
    let beside = |end: &str| {
        let name = path.file_name().ok_or_else(|| Error::InvalidArgument(format!("{} has no name", path.display())))?;
        let mut name = name.to_owned();
        name.push(end);
        Ok::<_, Error>(path.with_file_name(name))
    };
    match target {
        Target::New(to) => repair_to(&held.fs, to, out),
        Target::InPlace => {
            let (repaired, damaged) = (beside(".repaired")?, beside(".damaged")?);
            let refused = |source| Error::Io { file: path.display().to_string(), what: "take its place", source };
            // Before the work: a name that is taken is told at once.
            exchange::check_free(&damaged).map_err(refused)?;
            let losses = repair_to(&held.fs, &repaired, out)?;
            exchange::replace(path, &repaired, &damaged).map_err(refused)?;
            writeln!(out, "{} is the repaired one now; {} is what was there", path.display(), damaged.display())?;
            Ok(losses)
        }
    }
}

/// As [`repair`], for a directory of the caller's that nobody else uses, into a new one at `to`.
///
/// # Errors
///
/// As [`repair`].
pub fn repair_to(fs: &Arc<dyn Fs>, to: &Path, out: &mut dyn Write) -> Result<Vec<Loss>> {
    let mut findings = find::find(fs, out)?;
    let copy = begin(&**fs, to)?;
    let saved = rebuild::rebuild(fs, &findings, &copy.files())?;
    findings.losses.extend(saved.losses);
    // Nothing is given a name that is not good.
    let mut told = Vec::new();
    if verify(&Directory::on(copy.files()), &mut told)? == super::Health::Damaged {
        let what = format!("what was written is not what is there: {}", String::from_utf8_lossy(&told));
        return Err(Error::Corrupt { file: to.display().to_string(), what, offset: 0 }.into());
    }
    copy.publish().map_err(|source| engine::Error::Io { file: to.display().to_string(), what: "finish", source })?;
    for loss in &findings.losses {
        writeln!(out, "lost      {loss}")?;
    }
    let lost = findings.losses.len();
    writeln!(out, "saved     {} keys in {} tables; {lost} places could not be read", saved.keys, saved.tables)?;
    Ok(findings.losses)
}
