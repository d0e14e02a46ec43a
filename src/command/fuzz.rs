//! Any words as times and as numbers to be added.

#![allow(clippy::unwrap_used, reason = "a fuzz target may")]

use super::decimal;
use super::refusal::Refusal;
use super::time::{parse, show};

/// `input := length: u8 | word | word`.
pub(crate) fn words(input: &[u8]) {
    let mut input = crate::fuzz::Input::new(input);
    let len = usize::from(input.u8());
    let (word, other) = (input.bytes(len), input.rest());
    const PRESENT: u64 = 1_000_000;
    if let Ok(ms) = parse::<Refusal>(word, || Ok(PRESENT)) {
        assert!(word.first() != Some(&b'-') || ms <= PRESENT, "in the future");
        let shown = show(ms);
        let again = parse::<Refusal>(shown.as_bytes(), || Ok(PRESENT)).ok();
        // The last year that has four digits.
        assert!(again == Some(ms) || ms > again.unwrap() && shown.starts_with("9999-12-31T23:59:59.999"), "{shown}");
    }
    if let Some(Ok(sum)) = decimal::add(word, other) {
        let reversed = decimal::add(other, word);
        assert_eq!(reversed, Some(Ok(sum.clone())), "the other way round");
        // A longer one is rounded, as its module says.
        let whole = sum.trim_start_matches('-').bytes().take_while(u8::is_ascii_digit).count();
        if whole <= 20 {
            assert_eq!(decimal::add(sum.as_bytes(), b"0"), Some(Ok(sum)), "what is shown is read again");
        }
    }
}

pub(crate) fn word_seeds() -> Vec<Vec<u8>> {
    let pairs = [
        ("2026-11-21T09:30:00Z", "0"),
        ("2024-02-29 23:59:60.123456+01:30", "1"),
        ("-1h30m", "5e-3"),
        ("1767225600000", "0.1"),
        ("0.1", "0.2"),
        ("-99999999999999999999.00000000000000001", "1e20"),
        ("1e308", "1e308"),
        ("inf", "-inf"),
    ];
    pairs.iter().map(|(a, b)| [&[a.len() as u8], a.as_bytes(), b.as_bytes()].concat()).collect()
}
