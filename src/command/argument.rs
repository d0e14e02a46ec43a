//! Reading arguments as strictly as Redis does: no blanks, no leading zeros or plus signs, nothing behind.

use super::refusal::Refusal;

/// A decimal integer in its one canonical form.
pub(crate) fn integer(word: &[u8]) -> Result<i64, Refusal> {
    canonical_integer(word).ok_or(Refusal::NOT_AN_INTEGER)
}

/// As [`integer`], `None` where it is none: `""`, `"+1"`, `"01"`, `"-0"`, `" 1"`, `"1.0"`, too large.
pub(crate) fn canonical_integer(word: &[u8]) -> Option<i64> {
    let (negative, digits) = match word {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    match digits {
        [b'0'] if !negative => return Some(0),
        // 19 digits hold every i64.
        [b'1'..=b'9', ..] if digits.len() <= 19 => {}
        _ => return None,
    }
    let mut value = 0u64;
    for &byte in digits {
        if !byte.is_ascii_digit() {
            return None;
        }
        // 19 nines fit into a u64.
        value = value * 10 + u64::from(byte - b'0');
    }
    if negative { 0i64.checked_sub_unsigned(value) } else { i64::try_from(value).ok() }
}

/// Whether `word` is this option, in any case. `option` is in upper case.
pub(crate) fn is(word: &[u8], option: &str) -> bool {
    word.eq_ignore_ascii_case(option.as_bytes())
}

/// For error texts.
pub(crate) fn shown(word: &[u8]) -> String {
    String::from_utf8_lossy(word).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_have_one_form_only() {
        for value in [0, 1, -1, 10, i64::MAX, i64::MIN, 999_999_999_999_999_999] {
            assert_eq!(canonical_integer(value.to_string().as_bytes()), Some(value));
        }
        let none = ["", "-", "+1", "01", "-0", "-01", " 1", "1 ", "1.0", "1e3", "0x1", "a", "9223372036854775808"];
        for word in none.into_iter().chain(["-9223372036854775809", "99999999999999999999", "18446744073709551617"]) {
            assert_eq!(canonical_integer(word.as_bytes()), None, "{word}");
        }
    }
}
