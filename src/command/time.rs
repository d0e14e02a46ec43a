//! Times as people write them: milliseconds since 1970, RFC 3339, or so long ago.

use super::argument::canonical_integer;
use super::refusal::Refusal;

const UNITS: &[(&str, u64)] =
    &[("ms", 1), ("s", 1000), ("m", 60_000), ("min", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

const DAY_MS: i64 = 86_400_000;

const NO_TIME: Refusal = Refusal::new(
    "ERR a time is milliseconds since 1970, RFC 3339 such as 2026-11-21T09:30:00Z, or relative such as -10m",
);

/// Milliseconds since 1970; `present` is asked for what a relative time counts from.
pub(super) fn parse<E: Into<Refusal>>(word: &[u8], present: impl FnOnce() -> Result<u64, E>) -> Result<u64, Refusal> {
    let text = std::str::from_utf8(word).map_err(|_| NO_TIME)?;
    if let Some(ago) = text.strip_prefix('-') {
        let ago = duration(ago).ok_or(NO_TIME)?;
        return Ok(present().map_err(Into::into)?.saturating_sub(ago));
    }
    let milliseconds = canonical_integer(word).and_then(|ms| u64::try_from(ms).ok());
    milliseconds.or_else(|| rfc3339(text)).ok_or(NO_TIME)
}

/// `10m`, `1h30m`.
fn duration(text: &str) -> Option<u64> {
    let mut rest = text;
    let mut total = 0u64;
    while !rest.is_empty() || text.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let (number, behind) = rest.split_at(digits);
        let end = behind.find(|c: char| c.is_ascii_digit()).unwrap_or(behind.len());
        let (unit, next) = behind.split_at(end);
        let factor = UNITS.iter().find(|(name, _)| unit.eq_ignore_ascii_case(name))?.1;
        total = total.checked_add(number.parse::<u64>().ok()?.checked_mul(factor)?)?;
        rest = next;
    }
    Some(total)
}

/// `2026-11-21T09:30:00.5+01:00`: a blank may stand for the T, and letters be small. What is finer than a millisecond is
/// cut off.
fn rfc3339(text: &str) -> Option<u64> {
    let number = |from: usize, to: usize| {
        let digits = text.get(from..to).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))?;
        digits.parse::<i64>().ok()
    };
    let is = |at: usize, any: &str| text.as_bytes().get(at).is_some_and(|byte| any.as_bytes().contains(byte));
    if !(is(4, "-") && is(7, "-") && is(10, "Tt ") && is(13, ":") && is(16, ":")) {
        return None;
    }
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    let mut at = 19;
    let mut ms = 0;
    if is(at, ".") {
        let digits = text[at + 1..].bytes().take_while(u8::is_ascii_digit).count();
        let shown = digits.min(3);
        ms = number(at + 1, at + 1 + shown).filter(|_| digits > 0)? * 10i64.pow(3 - shown as u32);
        at += 1 + digits;
    }
    let ahead = match text.get(at..)? {
        "Z" | "z" => 0,
        offset if offset.len() == 6 && is(at, "+-") && is(at + 3, ":") => {
            let (hours, minutes) = (number(at + 1, at + 3)?, number(at + 4, at + 6)?);
            if hours > 23 || minutes > 59 {
                return None;
            }
            let minutes = hours * 60 + minutes;
            if is(at, "-") { -minutes } else { minutes }
        }
        _ => return None,
    };
    let month_days = if month == 2 && is_leap(year) { 29 } else { *MONTH_DAYS.get(usize::try_from(month).ok()?)? };
    // The 60th second is a leap second.
    if day == 0 || day > month_days || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let minutes = (days_before(year, month) + day - 1) * 24 * 60 + hour * 60 + minute - ahead;
    u64::try_from((minutes * 60 + second) * 1000 + ms).ok()
}

/// By the number of the month; there is none with number 0.
const MONTH_DAYS: [i64; 13] = [0, 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

/// Days from the beginning of 1970 to that of the month, by the calendar that is in use now.
fn days_before(year: i64, month: i64) -> i64 {
    let leap_days = |year: i64| year / 4 - year / 100 + year / 400;
    let years = (year - 1970) * 365 + leap_days(year - 1) - leap_days(1969);
    let months: i64 = MONTH_DAYS[..month as usize].iter().sum();
    years + months + i64::from(month > 2 && is_leap(year))
}

/// As RFC 3339 has it, in UTC.
pub(super) fn show(ms: u64) -> String {
    // Nobody reads times that are further away; the year keeps its four digits.
    let ms = i64::try_from(ms).unwrap_or(i64::MAX).min(days_before(10_000, 1) * DAY_MS - 1);
    let (mut days, rest) = (ms / DAY_MS, ms % DAY_MS);
    let (mut year, mut month) = (1970 + days / 366, 1);
    while days_before(year + 1, 1) <= days {
        year += 1;
    }
    while month < 12 && days_before(year, month + 1) <= days {
        month += 1;
    }
    days -= days_before(year, month);
    let (seconds, ms) = (rest / 1000, rest % 1000);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z", days + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Option<u64> {
        parse(text.as_bytes(), || Ok::<_, Refusal>(10_000_000)).ok()
    }

    #[test]
    fn times_are_read_in_three_ways() {
        for (text, ms) in [
            ("0", 0),
            ("1763717400000", 1_763_717_400_000),
            ("1970-01-01T00:00:00Z", 0),
            ("2001-09-09T01:46:40Z", 1_000_000_000_000),
            ("2001-09-09 03:46:40.5+02:00", 1_000_000_000_500),
            ("2001-09-08t21:16:40.123456-04:30", 1_000_000_000_123),
            ("2024-02-29T23:59:60Z", 1_709_251_200_000),
            ("2100-03-01T00:00:00Z", 4_107_542_400_000),
            ("-10m", 9_400_000),
            ("-1h30m5s7ms", 4_594_993),
            ("-0s", 10_000_000),
            ("-9999d", 0),
        ] {
            assert_eq!(at(text), Some(ms), "{text}");
        }
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in [
            "",
            "-",
            "-m",
            "-10",
            "10m",
            "-1.5h",
            "-99999999999999999999d",
            "+1",
            "01",
            "now",
            "2001-09-09",
            "2001-09-09T01:46:40",
            "2001-13-09T01:46:40Z",
            "2001-00-09T01:46:40Z",
            "2001-02-29T01:46:40Z",
            "2001-09-00T01:46:40Z",
            "2001-09-31T01:46:40Z",
            "2001-09-09T24:46:40Z",
            "2001-09-09T01:60:40Z",
            "2001-09-09T01:46:61Z",
            "2001-09-09T01:46:40.Z",
            "2001-09-09T01:46:40+2:00",
            "2001-09-09T01:46:40+25:00",
            "1969-12-31T23:59:59Z",
            "2001-09-09T01:46:40Zulu",
            "2001-09-09T01:4\u{e4}:40Z",
            "-1\u{e4}",
        ] {
            assert_eq!(at(text), None, "{text}");
        }
    }

    #[test]
    fn times_are_shown_as_they_are_read() {
        for day in (0..60_000u64).step_by(13) {
            let ms = day * DAY_MS as u64 + day * 1_439;
            assert_eq!(at(&show(ms)), Some(ms), "{}", show(ms));
        }
        assert_eq!(show(1_709_251_199_999), "2024-02-29T23:59:59.999Z");
        assert_eq!(show(u64::MAX), "9999-12-31T23:59:59.999Z");
    }
}
