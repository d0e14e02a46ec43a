//! What the client has to know about a request before it is sent: how its answer is delimited and how it is written.
//!
//! Nearly every request is answered by one frame that describes itself, so this list is short. It holds the requests
//! whose answer RESP delimits otherwise (subscriptions, MONITOR, SHUTDOWN), those that change how later answers have to
//! be read (MULTI, SELECT), and those where RESP says less than the text dialect: a deleted key is `:1` there and
//! `OK_DELETED` here, a range is a flat array there and `key value` lines here.

use crate::protocol::quote::split_words;

/// How a reply is written where RESP leaves it open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// As the frame says.
    Plain,
    /// An integer is a count of deleted keys, of so many named.
    Deleted { named: usize },
    /// A flat array is key value key value.
    Pairs,
}

/// The requests that need more than one frame read and written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verb {
    Other,
    Multi,
    Exec,
    Discard,
    Reset,
    Select(Option<u32>),
    /// Answered by one push for each channel.
    Subscribe {
        channels: usize,
    },
    /// Answered by OK and then by frames without end.
    Monitor,
    /// Answered by the end of the connection, unless it is refused.
    Shutdown,
    /// CLIENT REPLY OFF or SKIP: not answered at all.
    Mute,
}

/// One request, as far as its answer goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) verb: Verb,
    pub(crate) shape: Shape,
}

impl Asked {
    pub(crate) const PLAIN: Asked = Asked { verb: Verb::Other, shape: Shape::Plain };

    /// A request of these words, the command's name first.
    pub(crate) fn of_words(words: &[impl AsRef<[u8]>]) -> Asked {
        let Some((name, args)) = words.split_first() else { return Asked::PLAIN };
        let is =
            |at: usize, word: &str| args.get(at).is_some_and(|arg| arg.as_ref().eq_ignore_ascii_case(word.as_bytes()));
        let has = |from: usize, word: &str| (from..args.len()).any(|at| is(at, word));
        let verb = |verb| Asked { verb, shape: Shape::Plain };
        let shape = |shape| Asked { verb: Verb::Other, shape };
        // KEYS and VALUES stand behind the range's bounds; a bound may have those names.
        let pairs = |bounds| if has(bounds, "KEYS") || has(bounds, "VALUES") { Shape::Plain } else { Shape::Pairs };

        match name.as_ref().to_ascii_uppercase().as_slice() {
            b"DEL" | b"DELETE" => shape(Shape::Deleted { named: args.len() }),
            b"RANGE" => shape(pairs(2)),
            b"PREFIX" => shape(pairs(1)),
            b"RANGEAT" => shape(pairs(3)),
            b"MULTI" => verb(Verb::Multi),
            b"EXEC" => verb(Verb::Exec),
            b"DISCARD" => verb(Verb::Discard),
            b"RESET" => verb(Verb::Reset),
            b"SELECT" => {
                let db = args.first().and_then(|db| std::str::from_utf8(db.as_ref()).ok()?.parse().ok());
                verb(Verb::Select(db))
            }
            b"SUBSCRIBE" | b"PSUBSCRIBE" | b"SSUBSCRIBE" | b"UNSUBSCRIBE" | b"PUNSUBSCRIBE" | b"SUNSUBSCRIBE" => {
                verb(Verb::Subscribe { channels: args.len().max(1) })
            }
            b"MONITOR" => verb(Verb::Monitor),
            b"SHUTDOWN" => verb(Verb::Shutdown),
            b"CLIENT" if is(0, "REPLY") && (is(1, "OFF") || is(1, "SKIP")) => verb(Verb::Mute),
            _ => Asked::PLAIN,
        }
    }

    /// A line of the text dialect, without its line end; `None` if it is blank, and so not answered.
    pub(crate) fn of_line(line: &[u8]) -> Option<Asked> {
        // Of the commands that matter here, none has a last word that takes the rest of its line.
        match split_words(line, &|_| None) {
            Ok(words) if words.is_empty() => None,
            Ok(words) => Some(Asked::of_words(&words)),
            // A value with a quote in it, or a slip: the server knows, and answers with one frame either way.
            Err(_) => Some(Asked::PLAIN),
        }
    }
}

/// Whether a line holds a password, and so must not reach the history file.
pub(crate) fn holds_password(line: &str) -> bool {
    let words: Vec<String> =
        line.split_ascii_whitespace().map(|word| word.trim_matches(['"', '\'']).to_ascii_uppercase()).collect();
    let Some((name, args)) = words.split_first() else { return false };
    match name.as_str() {
        "AUTH" => true,
        "HELLO" | "MIGRATE" => args.iter().any(|arg| arg == "AUTH" || arg == "AUTH2"),
        "CONFIG" => args.iter().any(|arg| arg.contains("PASS") || arg.contains("AUTH")),
        "ACL" => args.first().is_some_and(|arg| arg == "SETUSER"),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(line: &str) -> Shape {
        Asked::of_line(line.as_bytes()).unwrap().shape
    }

    fn verb(line: &str) -> Verb {
        Asked::of_line(line.as_bytes()).unwrap().verb
    }

    #[test]
    fn deletes_know_how_many_keys_were_named() {
        assert_eq!(shape("del a"), Shape::Deleted { named: 1 });
        assert_eq!(shape("DELETE a b  c"), Shape::Deleted { named: 3 });
        assert_eq!(shape("GETDEL a"), Shape::Plain);
    }

    #[test]
    fn ranges_are_pairs_unless_only_half_was_asked_for() {
        assert_eq!(shape("RANGE a b LIMIT 2"), Shape::Pairs);
        assert_eq!(shape("range a b rev keys"), Shape::Plain);
        assert_eq!(shape("RANGE keys values"), Shape::Pairs, "bounds of that name");
        assert_eq!(shape("PREFIX values"), Shape::Pairs);
        assert_eq!(shape("PREFIX user: VALUES"), Shape::Plain);
        assert_eq!(shape("RANGEAT -10m a b"), Shape::Pairs);
        assert_eq!(shape("RANGE.COUNT a b"), Shape::Plain);
    }

    #[test]
    fn answers_that_are_not_one_frame_are_known() {
        assert_eq!(verb("subscribe a b"), Verb::Subscribe { channels: 2 });
        assert_eq!(verb("unsubscribe"), Verb::Subscribe { channels: 1 });
        assert_eq!(verb("client reply skip"), Verb::Mute);
        assert_eq!(verb("client reply on"), Verb::Other);
        assert_eq!(verb("SELECT 3"), Verb::Select(Some(3)));
        assert_eq!(verb("SELECT x"), Verb::Select(None));
        assert_eq!(Asked::of_line(b"  \t"), None);
    }

    #[test]
    fn passwords_are_noticed_in_any_spelling() {
        for secret in [
            "AUTH pw",
            "  auth user pw",
            "\"AUTH\" pw",
            "hello 3 auth default pw",
            "HELLO 3 SETNAME x AUTH u p",
            "config set requirepass pw",
            "CONFIG SET masterauth pw",
            "acl setuser joe >pw",
        ] {
            assert!(holds_password(secret), "{secret}");
        }
        for open in ["", "GET auth", "HELLO 3", "CONFIG GET save", "SET user:1 {\"auth\": 1}"] {
            assert!(!holds_password(open), "{open}");
        }
    }
}
