//! Sizes and durations as people write them: `256MiB`, `1s`.

use std::time::Duration;

const SIZES: &[(&str, u64)] = &[
    ("", 1),
    ("b", 1),
    ("k", 1 << 10),
    ("kb", 1000),
    ("kib", 1 << 10),
    ("m", 1 << 20),
    ("mb", 1000 * 1000),
    ("mib", 1 << 20),
    ("g", 1 << 30),
    ("gb", 1000 * 1000 * 1000),
    ("gib", 1 << 30),
    ("t", 1 << 40),
    ("tb", 1000 * 1000 * 1000 * 1000),
    ("tib", 1 << 40),
];

const DURATIONS: &[(&str, u64)] =
    &[("ms", 1), ("s", 1000), ("m", 60_000), ("min", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

/// Parses a size in bytes: a number and a unit (`KiB` and `K` are 1024, `KB` is 1000), in any case.
pub(crate) fn parse_size(text: &str) -> Result<usize, String> {
    let bytes = parse(text, SIZES).ok_or("a size is a number and a unit, such as 256MiB, 1GB or 4096")?;
    usize::try_from(bytes).map_err(|_| "too large".to_owned())
}

/// Parses a duration: a number and one of ms, s, m, h, d.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let ms = parse(text, DURATIONS).ok_or("a duration is a number and a unit, such as 100ms, 1s, 5m, 24h or 7d")?;
    Ok(Duration::from_millis(ms))
}

fn parse(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit = unit.trim_start().to_ascii_lowercase();
    let factor = units.iter().find(|(name, _)| *name == unit)?.1;
    number.parse::<u64>().ok()?.checked_mul(factor)
}

/// A duration as [`parse_duration`] reads it.
pub(crate) fn show_duration(duration: Duration) -> String {
    let ms = duration.as_millis() as u64;
    let fits = DURATIONS.iter().filter(|(name, factor)| *name != "min" && ms.is_multiple_of(*factor));
    let (unit, factor) = fits.max_by_key(|(_, factor)| *factor).unwrap_or(&("ms", 1));
    format!("{}{unit}", ms / factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_durations_are_read_as_people_write_them() {
        for (text, bytes) in
            [("4096", 4096), ("256MiB", 256 << 20), ("1 gb", 1_000_000_000), ("64k", 64 << 10), ("0", 0)]
        {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for text in ["", "MiB", "1.5GiB", "-1", "1 parsec", "99999999999999999999", "18446744073709551615k"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
        for (text, ms) in [("100ms", 100), ("1s", 1000), ("5m", 300_000), ("24h", 86_400_000), ("7d", 604_800_000)] {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(ms)), "{text}");
            assert_eq!(parse_duration(&show_duration(Duration::from_millis(ms))), Ok(Duration::from_millis(ms)));
        }
        assert!(parse_duration("5").is_err(), "a bare number could be anything");
        assert_eq!(show_duration(Duration::from_secs(90)), "90s");
    }
}
