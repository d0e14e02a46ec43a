//! CHECKPOINT: a copy of everything, under a name and never a path.

use super::argument::shown;
use super::refusal::Refusal;
use super::spec::Flag::{Admin, Noscript};
use super::spec::{Answer, Spec};
use super::{Context, Environment};
use crate::protocol::{Reply, Request};

pub(super) const COMMANDS: &[Spec] = &[Spec {
    name: "CHECKPOINT",
    arity: 2,
    flags: &[Admin, Noscript],
    summary: "Makes a consistent copy of everything in a new directory, usable at once, while others go on",
    syntax: "name",
    example: "CHECKPOINT monday",
    ..Spec::new(checkpoint)
}];

/// Every file system takes a name of this length, also with what it ends with while it is being made.
const MAX_NAME_BYTES: usize = 100;

fn checkpoint(context: &mut Context<'_>, request: &Request<'_>) -> Answer {
    let Environment { checkpoint_dir, .. } = context.environment;
    let Some(directory) = checkpoint_dir else {
        return Err(Refusal::new("ERR no place for checkpoints: start the server with --checkpoint-dir"));
    };
    let word = request.arg(1);
    let Some(name) = plain_name(word) else {
        let what = format!(
            "ERR '{}' cannot be a checkpoint's name: 1 to {MAX_NAME_BYTES} letters, digits, '.', '-' and '_', not beginning with '.' or '-'",
            shown(word)
        );
        return Err(what.into());
    };
    context.keyspace.db.checkpoint(directory.join(name))?;
    Ok(Reply::OK)
}

/// The word, if as a file name it can neither lead out of a directory nor surprise a shell.
fn plain_name(word: &[u8]) -> Option<&str> {
    let name = std::str::from_utf8(word).ok()?;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    // Under that ending no database can be opened.
    let good = name.bytes().all(plain) && !name.starts_with(['.', '-']) && !name.ends_with(crate::engine::UNFINISHED);
    (good && (1..=MAX_NAME_BYTES).contains(&name.len())).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_leads_out_of_the_directory() {
        for good in ["monday", "2026-11-21T09.30_a", "a", &"x".repeat(MAX_NAME_BYTES)] {
            assert_eq!(plain_name(good.as_bytes()), Some(good));
        }
        let long = "x".repeat(MAX_NAME_BYTES + 1);
        let bad = [
            "",
            ".",
            "..",
            "../up",
            "a/b",
            "/etc",
            "a\\b",
            "a\0",
            "a b",
            ".hidden",
            "-rf",
            "x.unfinished",
            "\u{e4}",
            &long,
        ];
        for bad in bad {
            assert_eq!(plain_name(bad.as_bytes()), None, "{bad:?}");
        }
        assert_eq!(plain_name(b"\xff"), None);
    }
}
