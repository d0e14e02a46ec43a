//! Decimal addition for INCRBYFLOAT.
//!
//! Redis adds in `long double` and prints 17 decimals, so `0.1 + 0.2` is `0.3` there. A 64-bit float is not enough
//! for that, so numbers that fit are added exactly, as integers of 10^-17; the sum of what a client wrote is then what
//! it would write itself. Others (more than 20 digits before the point, more than 17 behind it) are added as `f64` and
//! printed as the shortest digits that read back the same. The difference from Redis: it may show a rounding error in
//! the last digits where Chronos shows none, and carries 64 instead of 53 bits where Chronos has to round.

const DECIMALS: usize = 17;
/// Digits in front of the point that leave an `i128` room for a sum: 20 + 17 digits, of 38.
const MAX_WHOLE_DIGITS: usize = 20;

/// `a + b` as text; `None` if either is no finite number, or the sum is not.
pub(super) fn add(a: &[u8], b: &[u8]) -> Option<Result<String, Infinite>> {
    let (a_float, b_float) = (float(a)?, float(b)?);
    Some(match (exact(a), exact(b)) {
        (Some(a), Some(b)) => Ok(show(a + b)),
        _ => match a_float + b_float {
            sum if sum.is_finite() => Ok(format!("{}", if sum == 0.0 { 0.0 } else { sum })),
            _ => Err(Infinite),
        },
    })
}

/// The sum is beyond all numbers.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Infinite;

fn float(word: &[u8]) -> Option<f64> {
    let text = std::str::from_utf8(word).ok()?;
    // Digits for a number beyond all floats are no float; the word for infinity is one.
    let digits = text.bytes().any(|byte| byte.is_ascii_digit());
    text.parse::<f64>().ok().filter(|value| !(value.is_nan() || value.is_infinite() && digits))
}

/// `word` in units of 10^-17, if it is exactly so many.
fn exact(word: &[u8]) -> Option<i128> {
    let (negative, unsigned) = match word {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        rest => (false, rest),
    };
    let (mantissa, exponent) = match unsigned.iter().position(|byte| byte.eq_ignore_ascii_case(&b'e')) {
        Some(at) => (&unsigned[..at], std::str::from_utf8(&unsigned[at + 1..]).ok()?.parse::<i32>().ok()?),
        None => (unsigned, 0),
    };
    let point = mantissa.iter().position(|&byte| byte == b'.').unwrap_or(mantissa.len());
    let mut digits: Vec<u8> = mantissa.iter().copied().filter(|&byte| byte != b'.').collect();
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    // The value is 0.digits times 10^whole.
    let mut whole = i64::try_from(point).ok()? + i64::from(exponent);
    let zeros = digits.iter().take_while(|&&digit| digit == b'0').count();
    digits.drain(..zeros);
    whole -= zeros as i64;
    while digits.last() == Some(&b'0') {
        digits.pop();
    }
    if digits.is_empty() {
        return Some(0);
    }
    let units = usize::try_from(whole + DECIMALS as i64).ok()?;
    if whole > MAX_WHOLE_DIGITS as i64 || digits.len() > units {
        return None;
    }
    digits.resize(units, b'0');
    let value = digits.iter().fold(0i128, |value, &digit| value * 10 + i128::from(digit - b'0'));
    Some(if negative { -value } else { value })
}

fn show(units: i128) -> String {
    let scale = 10u128.pow(DECIMALS as u32);
    let (whole, part) = (units.unsigned_abs() / scale, units.unsigned_abs() % scale);
    let sign = if units < 0 { "-" } else { "" };
    let text = format!("{sign}{whole}.{part:0DECIMALS$}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_what_one_would_write() {
        let sums = [
            ("10.50", "0.1", "10.6"),
            ("5.0e3", "2.0e2", "5200"),
            ("0.1", "0.2", "0.3"),
            ("-1.5", "+1.5", "0"),
            ("3", "-5", "-2"),
            ("1e-17", "0", "0.00000000000000001"),
            ("1000000000000000", "0.1", "1000000000000000.1"),
            (".5", "5.", "5.5"),
            ("1e30", "1", "1000000000000000000000000000000"),
            ("0e400", "1", "1"),
            ("9999999999999999999", "1", "10000000000000000000"),
        ];
        for (a, b, sum) in sums {
            assert_eq!(add(a.as_bytes(), b.as_bytes()), Some(Ok(sum.to_owned())), "{a} + {b}");
        }
        for word in ["", "abc", "nan", "1x", " 1", "1 ", "--1", "1e", ".", "1_000", "1e999", "-1e999"] {
            assert_eq!(add(word.as_bytes(), b"1"), None, "{word:?}");
        }
        assert_eq!(add(b"-Infinity", b"1"), Some(Err(Infinite)));
        assert_eq!(add(b"1.7e308", b"1.7e308"), Some(Err(Infinite)));
    }
}
