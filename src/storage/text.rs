//! Keys and values as text, for people: what is not printable ASCII is escaped.

use super::blob::Pointer;
use super::{Fragment, Kind};

/// Longer ones are cut.
const SHOWN_BYTES: usize = 40;

/// A key or a value; cut if it is long.
pub(crate) fn shown(bytes: &[u8]) -> String {
    let cut = &bytes[..bytes.len().min(SHOWN_BYTES)];
    let more = if cut.len() < bytes.len() { "..." } else { "" };
    format!("{}{more}", cut.escape_ascii())
}

/// Which keys lie behind `after` and not behind `upto`.
pub(crate) fn shown_range(after: Option<&[u8]>, upto: Option<&[u8]>) -> String {
    match (after, upto) {
        (None, None) => "any keys".to_owned(),
        (Some(after), None) => format!("keys behind \"{}\"", shown(after)),
        (None, Some(upto)) => format!("keys up to \"{}\"", shown(upto)),
        (Some(after), Some(upto)) => format!("keys behind \"{}\" up to \"{}\"", shown(after), shown(upto)),
    }
}

/// What a version says of its key.
pub(crate) fn shown_kind(kind: Kind, value: &[u8]) -> String {
    match kind {
        Kind::Put { expires_at: None } => format!(" = \"{}\"", shown(value)),
        Kind::Put { expires_at: Some(at) } => format!(" = \"{}\" until {at}", shown(value)),
        Kind::PutFar { expires_at } => {
            let place =
                Pointer::decode(value).map_or("an unreadable pointer".to_owned(), |pointer| pointer.to_string());
            let until = expires_at.map_or(String::new(), |at| format!(" until {at}"));
            format!(" = {place}{until}")
        }
        Kind::Tombstone => " deleted".to_owned(),
    }
}

/// Which keys a range tombstone deletes.
pub(crate) fn shown_deleted(start: &[u8], end: Option<&[u8]>) -> String {
    match end {
        Some(end) => format!("\"{}\" to before \"{}\"", shown(start), shown(end)),
        None => format!("\"{}\" and all behind", shown(start)),
    }
}

/// Which keys range tombstones delete, and at which positions.
pub(crate) fn shown_fragment(fragment: &Fragment) -> String {
    let seqs: Vec<String> = fragment.seqs.iter().map(ToString::to_string).collect();
    format!("{} at {}", shown_deleted(&fragment.start, fragment.end.as_deref()), seqs.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_long_is_cut_and_shown_to_be() {
        assert_eq!(shown(b"a\"\xff\n"), "a\\\"\\xff\\n");
        let (whole, longer) = ("k".repeat(SHOWN_BYTES), "k".repeat(SHOWN_BYTES + 1));
        assert_eq!(shown(whole.as_bytes()), whole);
        assert_eq!(shown(longer.as_bytes()), format!("{whole}..."));
    }
}
