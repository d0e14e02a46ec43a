//! Counts the requests in a stream of RESP arrays and lines, so that a bulk load knows how many replies are owed, and
//! notices a file that is cut short or damaged, by place, without parsing what the server will parse anyway.
//!
//! ```text
//! stream := (array | line)*
//! array  := '*' count CRLF ('$' length CRLF byte{length} CRLF){count}     answered unless count < 1
//! line   := byte* LF                                                     answered unless blank
//! ```

use memchr::memchr;

/// The digits of a count or length, and its sign.
const MAX_HEADER: usize = 20;

/// Where in a request the stream is.
#[derive(Debug)]
enum State {
    Boundary,
    /// In a line. A blank line has blanks, and at most one CR at its end.
    Line {
        blank: bool,
        cr: bool,
    },
    /// Behind the `*`, up to the line end.
    Count,
    /// Before the `$` of the first of so many bulks.
    Bulk {
        left: u64,
    },
    /// Behind the `$`, up to the line end.
    Length {
        left: u64,
    },
    /// In the bytes of a bulk, or its CRLF.
    Body {
        left: u64,
        bytes: u64,
    },
}

/// Where and why the bytes are no requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Damage {
    pub(crate) at: u64,
    pub(crate) what: &'static str,
}

/// The state of one stream.
#[derive(Debug)]
pub(crate) struct RequestCounter {
    state: State,
    header: Vec<u8>,
    /// Bytes seen.
    at: u64,
    /// Where the request begins that the stream is in.
    began: u64,
}

impl RequestCounter {
    pub(crate) fn new() -> RequestCounter {
        RequestCounter { state: State::Boundary, header: Vec::new(), at: 0, began: 0 }
    }

    /// How many requests end in `bytes`, the next of the stream; or, behind so many, where it is damaged. Nothing
    /// behind the damage counts.
    pub(crate) fn count(&mut self, bytes: &[u8]) -> (u64, Option<Damage>) {
        let mut requests = 0;
        let mut rest = bytes;
        while let Some(&byte) = rest.first() {
            let used = match self.state {
                State::Boundary => {
                    self.began = self.at;
                    self.state = if byte == b'*' { State::Count } else { State::Line { blank: true, cr: false } };
                    usize::from(byte == b'*')
                }
                State::Line { blank: false, .. } => match memchr(b'\n', rest) {
                    Some(end) => {
                        requests += 1;
                        self.state = State::Boundary;
                        end + 1
                    }
                    None => rest.len(),
                },
                State::Line { cr, .. } => {
                    self.state = match byte {
                        b'\n' => State::Boundary,
                        b'\r' if !cr => State::Line { blank: true, cr: true },
                        b' ' | b'\t' if !cr => State::Line { blank: true, cr },
                        _ => State::Line { blank: false, cr },
                    };
                    1
                }
                State::Bulk { .. } if byte != b'$' => {
                    return (requests, Some(Damage { at: self.at, what: "a bulk string should begin here, with `$`" }));
                }
                State::Bulk { left } => {
                    self.state = State::Length { left };
                    1
                }
                State::Count | State::Length { .. } => {
                    let what = match self.header(byte) {
                        Ok(None) => None,
                        Ok(Some(number)) => match (&self.state, u64::try_from(number)) {
                            (State::Length { left }, Ok(len)) => {
                                self.state = State::Body { left: *left, bytes: len.saturating_add(2) };
                                None
                            }
                            (State::Length { .. }, Err(_)) => Some("a negative length"),
                            (_, Ok(0) | Err(_)) => {
                                self.state = State::Boundary;
                                None
                            }
                            (_, Ok(count)) => {
                                self.state = State::Bulk { left: count };
                                None
                            }
                        },
                        Err(what) => Some(what),
                    };
                    if let Some(what) = what {
                        return (requests, Some(Damage { at: self.at, what }));
                    }
                    1
                }
                State::Body { left, bytes } => {
                    let used = usize::try_from(bytes).unwrap_or(usize::MAX).min(rest.len());
                    self.state = match (bytes - used as u64, left) {
                        (0, 1) => {
                            requests += 1;
                            State::Boundary
                        }
                        (0, _) => State::Bulk { left: left - 1 },
                        (bytes, _) => State::Body { left, bytes },
                    };
                    used
                }
            };
            self.at += used as u64;
            rest = &rest[used..];
        }
        (requests, None)
    }

    /// At the end of the stream: `Ok(true)` if it ends in a line that lacks its line end, `Ok(false)` if it ends
    /// between requests.
    pub(crate) fn end(&self) -> Result<bool, Damage> {
        match self.state {
            State::Boundary | State::Line { blank: true, .. } => Ok(false),
            State::Line { .. } => Ok(true),
            _ => Err(Damage { at: self.began, what: "the request that begins here is cut short" }),
        }
    }

    /// One byte of a number; the number, at its line end.
    fn header(&mut self, byte: u8) -> Result<Option<i64>, &'static str> {
        if byte != b'\n' {
            self.header.push(byte);
            return if self.header.len() > MAX_HEADER + 1 { Err("no count or length is so long") } else { Ok(None) };
        }
        let digits = self.header.strip_suffix(b"\r").ok_or("a count or length should end with CR LF")?;
        let number = std::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok());
        self.header.clear();
        number.map(Some).ok_or("a count or length should be a number")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Requests, damage, and what the end says, with the stream cut into pieces of `size`.
    fn count(bytes: &[u8], size: usize) -> (u64, Option<Damage>, Result<bool, Damage>) {
        let mut counter = RequestCounter::new();
        let mut requests = 0;
        for piece in bytes.chunks(size) {
            let (more, damage) = counter.count(piece);
            requests += more;
            if damage.is_some() {
                return (requests, damage, Ok(false));
            }
        }
        (requests, None, counter.end())
    }

    #[test]
    fn arrays_and_lines_are_counted_however_they_are_cut() {
        let stream =
            b"*2\r\n$3\r\nGET\r\n$5\r\n*1\r\n\n\r\nSET a *3\n\n \t\r\n*0\r\n*-1\r\nPING\r\n \r \n*1\r\n$4\r\nPING\r\n";
        for size in 1..=stream.len() {
            assert_eq!(count(stream, size), (5, None, Ok(false)), "pieces of {size}");
        }
    }

    #[test]
    fn the_end_tells_a_line_without_its_end_from_a_cut_array() {
        assert_eq!(count(b"PING\nPING", 4), (1, None, Ok(true)));
        assert_eq!(count(b"PING\n  ", 4), (1, None, Ok(false)));
        let whole = b"PING\n*2\r\n$3\r\nGET\r\n$1\r\na\r\n";
        for cut in b"PING\n*".len()..whole.len() {
            let (requests, _, end) = count(&whole[..cut], 7);
            assert_eq!((requests, end.unwrap_err().at), (1, 5), "{cut} bytes");
        }
    }

    #[test]
    fn damage_is_named_by_its_place() {
        for (stream, at) in [
            (&b"PING\n*1\r\nPING\r\n"[..], 9),
            (b"*x\r\n", 3),
            (b"*1\n", 2),
            (b"*1\r\n$-1\r\n", 8),
            (b"*1\r\n$111111111111111111111111\r\n", 26),
        ] {
            for size in 1..=stream.len() {
                let (_, damage, _) = count(stream, size);
                assert_eq!(damage.unwrap().at, at, "{} in pieces of {size}", stream.escape_ascii());
            }
        }
    }
}
