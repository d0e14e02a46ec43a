//! Patterns of KEYS and SCAN, against a matcher that is plainly right: it keeps the set of all pattern places that the
//! text so far can have led to.
//!
//! ```text
//! input := pattern_len: u8 | pattern | text
//! ```

use super::Input;
use crate::keyspace::glob::{literal_prefix, matches, matches_ignoring_case};

/// What one step of a pattern takes.
enum Token {
    /// Any bytes, or none.
    Star,
    /// One byte for which this is true.
    One(Box<[bool; 256]>),
}

pub(super) fn run(input: &[u8]) {
    let mut input = Input::new(input);
    let len = usize::from(input.u8());
    let (pattern, text) = (input.bytes(len), input.rest());
    let found = matches(pattern, text);
    assert_eq!(found, plainly(&tokens(pattern), text), "whether it matches");
    assert!(!found || text.starts_with(literal_prefix(pattern)), "a match without what every match begins with");
    let lower = (pattern.to_ascii_lowercase(), text.to_ascii_lowercase());
    assert_eq!(matches_ignoring_case(pattern, text), plainly(&tokens(&lower.0), &lower.1), "in either case");
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let pairs =
        ["* any", "h?llo hello", "h[a-e]*[^x]o hello", "a*a*a*b aaaaaaaa", r"\*[\]] *]", "[a a", r"[z-a\ -", "[^ x"];
    pairs
        .iter()
        .filter_map(|pair| pair.split_once(' '))
        .map(|(pattern, text)| [&[pattern.len() as u8], pattern.as_bytes(), text.as_bytes()].concat())
        .collect()
}

fn tokens(pattern: &[u8]) -> Vec<Token> {
    let one = |fits: &dyn Fn(u8) -> bool| Token::One(Box::new(std::array::from_fn(|byte| fits(byte as u8))));
    let mut tokens = Vec::new();
    let mut rest = pattern;
    while let [first, behind @ ..] = rest {
        rest = behind;
        tokens.push(match (first, behind) {
            (b'*', _) => Token::Star,
            (b'?', _) => one(&|_| true),
            (b'[', _) => {
                let (negated, mut class) = match behind {
                    [b'^', class @ ..] => (true, class),
                    class => (false, class),
                };
                rest = class;
                let mut within = [false; 256];
                loop {
                    class = match class {
                        [] => break,
                        [b']', class @ ..] => {
                            rest = class;
                            break;
                        }
                        [b'\\', byte, class @ ..] => {
                            within[usize::from(*byte)] = true;
                            class
                        }
                        [from, b'-', to, class @ ..] => {
                            (*from.min(to)..=*from.max(to)).for_each(|byte| within[usize::from(byte)] = true);
                            class
                        }
                        [byte, class @ ..] => {
                            within[usize::from(*byte)] = true;
                            class
                        }
                    };
                    rest = class;
                }
                one(&|byte| within[usize::from(byte)] != negated)
            }
            (b'\\', [escaped, behind @ ..]) => {
                rest = behind;
                one(&|byte| byte == *escaped)
            }
            (literal, _) => one(&|byte| byte == *literal),
        });
    }
    tokens
}

fn plainly(tokens: &[Token], text: &[u8]) -> bool {
    // Whether the first n tokens can stand for the text so far.
    let mut reached = vec![false; tokens.len() + 1];
    reached[0] = true;
    let pass_stars = |reached: &mut Vec<bool>| {
        for (n, token) in tokens.iter().enumerate() {
            reached[n + 1] |= reached[n] && matches!(token, Token::Star);
        }
    };
    pass_stars(&mut reached);
    for byte in text {
        let mut next = vec![false; tokens.len() + 1];
        for (n, token) in tokens.iter().enumerate().filter(|(n, _)| reached[*n]) {
            match token {
                Token::Star => next[n] = true,
                Token::One(fits) => next[n + 1] |= fits[usize::from(*byte)],
            }
        }
        pass_stars(&mut next);
        reached = next;
    }
    reached[tokens.len()]
}
