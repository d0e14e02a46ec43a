//! All commands, and how one is found by its name.

use std::sync::LazyLock;

use super::spec::Spec;
use super::{
    checkpoint, client, config, connection, counters, expiry, help, info, introspection, keys, past, ranges, server,
    set, strings,
};

/// The rows, family by family.
static FAMILIES: &[&[Spec]] = &[
    set::COMMANDS,
    strings::COMMANDS,
    counters::COMMANDS,
    keys::COMMANDS,
    expiry::COMMANDS,
    ranges::COMMANDS,
    past::COMMANDS,
    connection::COMMANDS,
    client::COMMANDS,
    server::COMMANDS,
    checkpoint::COMMANDS,
    info::COMMANDS,
    config::COMMANDS,
    introspection::COMMANDS,
    help::COMMANDS,
];

pub(super) fn all() -> impl Iterator<Item = &'static Spec> + Clone {
    FAMILIES.iter().flat_map(|family| family.iter())
}

/// No command's name is longer, so a longer word is none.
const MAX_NAME_BYTES: usize = 16;

/// A power of two, several times the number of commands: nearly every name is found at the first look.
const SLOTS: usize = 512;

/// An open hash table over the names. Built once; a lookup allocates nothing.
static INDEX: LazyLock<[Option<&'static Spec>; SLOTS]> = LazyLock::new(|| {
    let mut slots = [None; SLOTS];
    for spec in all() {
        assert!(spec.name.len() <= MAX_NAME_BYTES, "{} is longer than MAX_NAME_BYTES", spec.name);
        let mut at = slot(spec.name.as_bytes());
        while slots[at].is_some() {
            at = (at + 1) % SLOTS;
        }
        slots[at] = Some(spec);
    }
    slots
});

/// FNV-1a over the name in upper case.
fn slot(name: &[u8]) -> usize {
    let hash = name.iter().fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| {
        (hash ^ u64::from(byte.to_ascii_uppercase())).wrapping_mul(0x100_0000_01b3)
    });
    (hash >> 20) as usize % SLOTS
}

/// The command that is called `name`, in any case.
pub(super) fn find(name: &[u8]) -> Option<&'static Spec> {
    if name.len() > MAX_NAME_BYTES {
        return None;
    }
    let index = &*INDEX;
    let mut at = slot(name);
    while let Some(spec) = index[at] {
        if spec.name.as_bytes().eq_ignore_ascii_case(name) {
            return Some(spec);
        }
        at = (at + 1) % SLOTS;
    }
    None
}
