//! Glob patterns as Redis has them: `*`, `?`, `[abc]`, `[a-z]`, `[^a]`, and `\` to take the next byte as it is.
//!
//! The work is bounded by the product of the two lengths: when bytes do not fit, only the last star is tried again,
//! one byte further. An earlier star need not be, since whatever it could take, the last one can take as well. So
//! `a*a*a*a*b` against a run of `a` costs no exponential search.

/// Whether `text` matches `pattern`.
pub(crate) fn matches(pattern: &[u8], text: &[u8]) -> bool {
    find(pattern, text)
}

/// As [`matches()`], taking ASCII letters of either case as equal.
pub(crate) fn matches_ignoring_case(pattern: &[u8], text: &[u8]) -> bool {
    find(&pattern.to_ascii_lowercase(), &text.to_ascii_lowercase())
}

/// What every match begins with: the bytes in front of the first special one.
pub(crate) fn literal_prefix(pattern: &[u8]) -> &[u8] {
    let end = pattern.iter().position(|byte| b"*?[\\".contains(byte)).unwrap_or(pattern.len());
    &pattern[..end]
}

fn find(pattern: &[u8], text: &[u8]) -> bool {
    let (mut at, mut seen) = (0, 0);
    // Behind the last star, and the text position that was tried for it.
    let mut retry: Option<(usize, usize)> = None;
    while seen < text.len() || at < pattern.len() {
        if pattern.get(at) == Some(&b'*') {
            at += 1;
            retry = Some((at, seen));
            continue;
        }
        if seen < text.len()
            && let Some(next) = step(&pattern[at..], text[seen])
        {
            at += next;
            seen += 1;
            continue;
        }
        match retry {
            // With the text at its end, what is behind the star wants more bytes than are left, wherever it starts.
            Some((behind_star, tried)) if seen < text.len() => {
                retry = Some((behind_star, tried + 1));
                at = behind_star;
                seen = tried + 1;
            }
            _ => return false,
        }
    }
    true
}

/// How many pattern bytes stand for `byte`; `None` if they do not.
fn step(pattern: &[u8], byte: u8) -> Option<usize> {
    match *pattern {
        [] => None,
        [b'?', ..] => Some(1),
        [b'[', ref class @ ..] => {
            let (fits, len) = class_fits(class, byte);
            fits.then_some(1 + len)
        }
        [b'\\', escaped, ..] => (escaped == byte).then_some(2),
        [literal, ..] => (literal == byte).then_some(1),
    }
}

/// Whether `byte` is in the class, and how many bytes of pattern the class has. Behind `[`; a class that is not closed
/// ends with the pattern, as in Redis.
fn class_fits(class: &[u8], byte: u8) -> (bool, usize) {
    let negated = class.first() == Some(&b'^');
    let mut at = usize::from(negated);
    let mut fits = false;
    loop {
        match class[at..] {
            [] => break,
            [b']', ..] => {
                at += 1;
                break;
            }
            [b'\\', escaped, ..] => {
                fits |= escaped == byte;
                at += 2;
            }
            [from, b'-', to, ..] => {
                fits |= (from.min(to)..=from.max(to)).contains(&byte);
                at += 3;
            }
            [one, ..] => {
                fits |= one == byte;
                at += 1;
            }
        }
    }
    (fits != negated, at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matches_what_redis_matches() {
        let yes: &[(&[u8], &[u8])] = &[
            (b"", b""),
            (b"*", b""),
            (b"*", b"anything"),
            (b"h?llo", b"hello"),
            (b"h*llo", b"hllo"),
            (b"h*llo", b"heeeello"),
            (b"h[ae]llo", b"hallo"),
            (b"h[^e]llo", b"hallo"),
            (b"h[a-b]llo", b"hbllo"),
            (b"h[b-a]llo", b"hallo"),
            (b"h\\*llo", b"h*llo"),
            (b"[\\]]", b"]"),
            (b"a**b", b"ab"),
            (b"*a*b*", b"xxaxxbxx"),
            (b"[a", b"a"),
            (b"\\", b"\\"),
            (b"user:*:name", b"user:1:2:name"),
            (b"\xff*", b"\xff\x00"),
        ];
        for (pattern, text) in yes {
            assert!(matches(pattern, text), "{:?} {:?}", pattern.escape_ascii(), text.escape_ascii());
        }
        let no: &[(&[u8], &[u8])] = &[
            (b"", b"a"),
            (b"?", b""),
            (b"h?llo", b"hllo"),
            (b"h[^e]llo", b"hello"),
            (b"h[a-b]llo", b"hello"),
            (b"h\\*llo", b"hello"),
            (b"a*b", b"abc"),
            (b"[]", b"]"),
            (b"HELLO", b"hello"),
            (b"a", b"aa"),
        ];
        for (pattern, text) in no {
            assert!(!matches(pattern, text), "{:?} {:?}", pattern.escape_ascii(), text.escape_ascii());
        }
        assert!(matches_ignoring_case(b"Max*", b"maxMemory"));
    }

    #[test]
    fn a_pathological_pattern_ends_soon() {
        let text = vec![b'a'; 100_000];
        let started = std::time::Instant::now();
        assert!(!matches(&b"a*".repeat(60).iter().chain(b"b").copied().collect::<Vec<u8>>(), &text));
        assert!(!matches(&[&b"*a".repeat(200)[..], b"?b"].concat(), &text[..5_000]));
        assert!(started.elapsed() < std::time::Duration::from_secs(5));
    }

    #[test]
    fn the_literal_prefix_ends_before_the_first_special_byte() {
        assert_eq!(literal_prefix(b"user:*"), b"user:");
        assert_eq!(literal_prefix(b"user:\\*"), b"user:");
        assert_eq!(literal_prefix(b"*"), b"");
        assert_eq!(literal_prefix(b"plain"), b"plain");
    }
}
