//! The notation in which a row says what its arguments are, and what can be told from it.
//!
//! ```text
//! syntax := item*
//! item   := name            an argument, in lower case
//!         | TOKEN           a word to be typed as it is, in upper case
//!         | [ choice ]      may be left out
//!         | < choice >      must be there
//!         | ...             what stands before it in this bracket may be repeated
//! choice := item* ( | item* )*
//! ```

/// An item of a syntax.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Item {
    Name(&'static str),
    Token(&'static str),
    /// Alternatives, of which one is taken, or none if it is optional.
    Choice {
        alternatives: Vec<Vec<Item>>,
        optional: bool,
        repeated: bool,
    },
}

/// Panics on what is no syntax: all of them are in the table, which a test parses.
pub(super) fn parse(syntax: &'static str) -> Vec<Item> {
    let mut words = Vec::new();
    let mut rest = syntax;
    while let Some(first) = rest.trim_start().chars().next() {
        rest = rest.trim_start();
        let len = match first {
            '[' | ']' | '<' | '>' | '|' => 1,
            _ => rest.find([' ', '[', ']', '<', '>', '|']).unwrap_or(rest.len()),
        };
        words.push(&rest[..len]);
        rest = &rest[len..];
    }
    let mut words = words.into_iter();
    let (mut alternatives, repeated) = choice(&mut words, None);
    assert!(alternatives.len() == 1 && !repeated, "{syntax:?} has a choice outside of brackets");
    alternatives.remove(0)
}

fn choice(words: &mut impl Iterator<Item = &'static str>, close: Option<&str>) -> (Vec<Vec<Item>>, bool) {
    let mut alternatives = vec![Vec::new()];
    let mut repeated = false;
    loop {
        let word = words.next();
        if word == close {
            return (alternatives, repeated);
        }
        let item = match word {
            None => panic!("a bracket is not closed"),
            Some("...") => {
                repeated = true;
                continue;
            }
            Some("|") => {
                alternatives.push(Vec::new());
                continue;
            }
            Some(open @ ("[" | "<")) => {
                let (alternatives, repeated) = choice(words, Some(if open == "[" { "]" } else { ">" }));
                Item::Choice { alternatives, optional: open == "[", repeated }
            }
            Some(stray @ ("]" | ">")) => panic!("{stray} has no opening bracket"),
            Some(word) if word.chars().any(|letter| letter.is_ascii_lowercase()) => Item::Name(word),
            Some(word) => Item::Token(word),
        };
        if let Some(last) = alternatives.last_mut() {
            last.push(item);
        }
    }
}

#[cfg(test)]
/// How many words there are at least, and whether there may be more.
pub(super) fn words(items: &[Item]) -> (usize, bool) {
    items.iter().fold((0, false), |(least, more), item| match item {
        Item::Name(_) | Item::Token(_) => (least + 1, more),
        Item::Choice { optional: true, .. } => (least, true),
        Item::Choice { alternatives, repeated, .. } => {
            let each: Vec<(usize, bool)> = alternatives.iter().map(|items| words(items)).collect();
            let shortest = each.iter().map(|each| each.0).min().unwrap_or(0);
            let uneven = each.iter().any(|&(least, more)| more || least != shortest);
            (least + shortest, more || *repeated || uneven)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_counted_from_the_syntax() {
        let counts = [
            ("", (0, false)),
            ("key", (1, false)),
            ("key [key ...]", (1, true)),
            ("key value [NX | XX] [EX seconds | KEEPTTL]", (2, true)),
            ("<ON | OFF>", (1, false)),
            ("<LIB-NAME name | LIB-VER version>", (2, false)),
            ("[username] password", (1, true)),
        ];
        for (syntax, expected) in counts {
            assert_eq!(words(&parse(syntax)), expected, "{syntax}");
        }
    }
}
