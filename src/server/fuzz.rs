//! Any text as a size and as a duration: what is read has the value that wide arithmetic gives it, and what is shown is
//! read again as the same. There is no configuration file to be fuzzed: each setting is one flag or variable of its own,
//! and of those only these have a grammar that is not clap's.

#![allow(clippy::unwrap_used, reason = "a fuzz target may")]

use super::units::{parse_duration, parse_size, show_duration};

/// `input := text`.
pub(crate) fn units(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    if let Ok(bytes) = parse_size(text) {
        let factors = [1, 1000, 1 << 10, 1_000_000, 1 << 20, 1_000_000_000, 1 << 30, 1_000_000_000_000, 1u128 << 40];
        assert!(factors.iter().any(|factor| number(text) * factor == bytes as u128), "{text} as {bytes}");
        assert_eq!(parse_size(&bytes.to_string()), Ok(bytes));
    }
    if let Ok(duration) = parse_duration(text) {
        let factors = [1, 1000, 60_000, 3_600_000, 86_400_000u128];
        assert!(factors.iter().any(|factor| number(text) * factor == duration.as_millis()), "{text} as {duration:?}");
        assert_eq!(parse_duration(&show_duration(duration)), Ok(duration));
    }
}

/// The digits in front.
fn number(text: &str) -> u128 {
    let digits: String = text.trim().chars().take_while(char::is_ascii_digit).collect();
    digits.parse().unwrap()
}

pub(crate) fn unit_seeds() -> Vec<Vec<u8>> {
    let texts = ["256MiB", "1 gb", "64k", "7d", "100ms", "18446744073709551615", "5min", "0", "\u{a0}1h", "16777216t"];
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}
