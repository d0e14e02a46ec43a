//! Numbers to decimal text, without going through the formatting machinery for the integers that are in every reply.

use std::io::Write;

const PAIRS: [[u8; 2]; 100] = {
    let mut pairs = [[b'0'; 2]; 100];
    let mut at = 0;
    while at < 100 {
        pairs[at] = [b'0' + (at / 10) as u8, b'0' + (at % 10) as u8];
        at += 1;
    }
    pairs
};

/// The digits of `u64::MAX`.
const LONGEST: usize = 20;

pub(crate) fn push_u64(mut value: u64, out: &mut Vec<u8>) {
    if value < 10 {
        out.push(b'0' + value as u8);
        return;
    }
    let mut digits = [0; LONGEST];
    let mut at = LONGEST;
    while value >= 10 {
        at -= 2;
        digits[at..at + 2].copy_from_slice(&PAIRS[(value % 100) as usize]);
        value /= 100;
    }
    if value > 0 {
        at -= 1;
        digits[at] = b'0' + value as u8;
    }
    out.extend_from_slice(&digits[at..]);
}

pub(crate) fn push_i64(value: i64, out: &mut Vec<u8>) {
    if value < 0 {
        out.push(b'-');
    }
    push_u64(value.unsigned_abs(), out);
}

/// The shortest text that reads back as `value`, laid out as Redis does (fpconv's rules): plain as long as that is
/// short, `1e+21` and `5e-324` beyond; `inf`, `-inf`, `nan`.
pub(crate) fn push_double(value: f64, out: &mut Vec<u8>) {
    if value.is_nan() {
        return out.extend_from_slice(b"nan");
    }
    if value.is_sign_negative() {
        out.push(b'-');
    }
    if value.is_infinite() {
        return out.extend_from_slice(b"inf");
    }
    // "d.ddde-7": the shortest digits come from the standard library, only their layout from here.
    let mut text = [0; 32];
    let mut rest = &mut text[..];
    let written = write!(rest, "{:e}", value.abs()).map(|()| 32 - rest.len()).unwrap_or(0);
    let (mantissa, exponent) = split_at_e(&text[..written]);
    let mut digits = [0; 20];
    let mut count = 0;
    for &digit in mantissa.iter().filter(|&&byte| byte != b'.') {
        digits[count] = digit;
        count += 1;
    }
    lay_out(&digits[..count], exponent, out);
}

fn split_at_e(text: &[u8]) -> (&[u8], i32) {
    let at = text.iter().position(|&byte| byte == b'e').unwrap_or(text.len());
    let exponent =
        text.get(at + 1..).and_then(|tail| std::str::from_utf8(tail).ok()).and_then(|tail| tail.parse().ok());
    (&text[..at], exponent.unwrap_or(0))
}

/// Writes `d.ddd * 10^exponent`.
fn lay_out(digits: &[u8], exponent: i32, out: &mut Vec<u8>) {
    let count = digits.len() as i32;
    // The power of ten of the last digit.
    let scale = exponent - (count - 1);
    if scale >= 0 && exponent < count + 7 {
        out.extend_from_slice(digits);
        out.resize(out.len() + scale as usize, b'0');
    } else if scale < 0 && (scale > -7 || exponent.abs() < 4) {
        if exponent < 0 {
            out.extend_from_slice(b"0.");
            out.resize(out.len() + (-exponent - 1) as usize, b'0');
            out.extend_from_slice(digits);
        } else {
            let (whole, fraction) = digits.split_at(exponent as usize + 1);
            out.extend_from_slice(whole);
            out.push(b'.');
            out.extend_from_slice(fraction);
        }
    } else {
        out.push(digits[0]);
        if count > 1 {
            out.push(b'.');
            out.extend_from_slice(&digits[1..]);
        }
        out.extend_from_slice(if exponent < 0 { b"e-" } else { b"e+" });
        push_u64(u64::from(exponent.unsigned_abs()), out);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn double(value: f64) -> String {
        let mut out = Vec::new();
        push_double(value, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn doubles_look_as_they_do_in_redis() {
        for (value, text) in [
            (0.0, "0"),
            (-0.0, "-0"),
            (3.5, "3.5"),
            (-100.0, "-100"),
            (0.1, "0.1"),
            (0.000001, "0.000001"),
            (1e-7, "1e-7"),
            (1.5e-7, "1.5e-7"),
            (1234567.125, "1234567.125"),
            (1e7, "10000000"),
            (1e8, "1e+8"),
            (1.7976931348623157e308, "1.7976931348623157e+308"),
            (5e-324, "5e-324"),
            (0.30000000000000004, "0.30000000000000004"),
            (f64::INFINITY, "inf"),
            (f64::NEG_INFINITY, "-inf"),
            (f64::NAN, "nan"),
        ] {
            assert_eq!(double(value), text);
        }
    }

    proptest! {
        #[test]
        fn integers_are_written_as_the_standard_library_does(value: i64, shift in 0u32..64) {
            for value in [value, value >> shift, i64::MIN, i64::MAX, 0, 9, 10, 99, 100] {
                let mut out = Vec::new();
                push_i64(value, &mut out);
                prop_assert_eq!(String::from_utf8(out).unwrap(), value.to_string());
            }
        }

        #[test]
        fn doubles_read_back(value: f64) {
            prop_assert_eq!(double(value).parse::<f64>().unwrap().to_bits(), value.to_bits());
        }
    }
}
