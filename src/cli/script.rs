//! Lines of stdin: each is sent, and each is answered by one reply on stdout, in order.

use std::io;

use memchr::memchr;

use super::asked::{Asked, Verb};
use super::connection::{Connection, Requests};
use super::conversation::{Conversation, Outcome};
use super::failure::Failure;
use super::options::{Format, Server};
use super::pipeline::{self, Input};
use super::printer::{Printer, complain};

/// How many failed lines are named on stderr: a screenful of numbers helps no one.
const NAMED: usize = 10;

/// Runs the lines of stdin; `false` if any failed.
pub(crate) fn run(server: &Server, format: Format) -> Result<bool, Failure> {
    let connection = Connection::open(server, Requests::Lines)?;
    let writer = connection.handle()?;
    let mut talk = Conversation::new(connection, server, Printer::new(io::stdout(), format));
    let mut cutter = Cutter::default();
    let batches = pipeline::spawn(io::stdin(), writer, move |input, out| cutter.cut(input, out));

    let mut tally = Tally::default();
    let ended = answer_all(&mut talk, batches.iter(), &mut tally);
    if let Some(report) = tally.report() {
        complain(&report);
    }
    ended?;
    Ok(tally.failed == 0)
}

fn answer_all(
    talk: &mut Conversation,
    batches: impl Iterator<Item = io::Result<Vec<Line>>>,
    tally: &mut Tally,
) -> Result<(), Failure> {
    for batch in batches {
        for line in batch.map_err(Failure::Input)? {
            let outcome = talk.answer(&line.asked).map_err(|cause| match cause {
                Failure::OutputClosed | Failure::Output(_) => cause,
                cause => Failure::Unanswered { line: line.number, cause: Box::new(cause) },
            })?;
            tally.count(line.number, outcome);
            // From here on what MONITOR sees cannot be told from the replies to later lines.
            if outcome == Outcome::Listening && line.asked.verb == Verb::Monitor {
                talk.listen()?;
            }
        }
        // The next lines may be long in coming.
        if !talk.connection.has_received() {
            talk.printer.flush()?;
        }
    }
    talk.listen()
}

/// A line that will be answered.
#[derive(Debug, PartialEq)]
struct Line {
    number: u64,
    asked: Asked,
}

/// Cuts chunks of stdin into lines.
#[derive(Default)]
struct Cutter {
    number: u64,
    /// The beginning of a line whose end has not come.
    begun: Vec<u8>,
}

impl Cutter {
    fn cut(&mut self, input: Input<'_>, out: &mut Vec<u8>) -> Vec<Line> {
        let mut lines = Vec::new();
        match input {
            Input::Bytes(mut bytes) => {
                while let Some(end) = memchr(b'\n', bytes) {
                    let line = &bytes[..end];
                    if self.begun.is_empty() {
                        self.line(line, out, &mut lines);
                    } else {
                        let mut whole = std::mem::take(&mut self.begun);
                        whole.extend_from_slice(line);
                        self.line(&whole, out, &mut lines);
                    }
                    bytes = &bytes[end + 1..];
                }
                self.begun.extend_from_slice(bytes);
            }
            // A file whose last line has no line end is whole; the server cannot know that, we do.
            Input::End => {
                let last = std::mem::take(&mut self.begun);
                if !last.is_empty() {
                    self.line(&last, out, &mut lines);
                }
            }
        }
        lines
    }

    fn line(&mut self, line: &[u8], out: &mut Vec<u8>, lines: &mut Vec<Line>) {
        self.number += 1;
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let Some(asked) = Asked::of_line(line) else { return };
        push_request(line, &asked, out);
        lines.push(Line { number: self.number, asked });
    }
}

/// Appends what is sent for a line.
pub(crate) fn push_request(line: &[u8], asked: &Asked, out: &mut Vec<u8>) {
    if asked.verb == Verb::Mute {
        return;
    }
    push_line(line, out);
    // RESET also takes RESP3 back, in which replies say more of what they are.
    if asked.verb == Verb::Reset {
        push_line(b"HELLO 3", out);
    }
}

/// Appends a line as it is sent: behind a blank. A server looks at a request's first byte to tell RESP arrays, telnet
/// commands, TLS and HTTP from text; what is typed or piped here is text, whatever it begins with.
fn push_line(line: &[u8], out: &mut Vec<u8>) {
    out.push(b' ');
    out.extend_from_slice(line);
    out.extend_from_slice(b"\r\n");
}

/// Which lines failed.
#[derive(Default)]
struct Tally {
    answered: u64,
    failed: u64,
    first: Vec<u64>,
}

impl Tally {
    fn count(&mut self, line: u64, outcome: Outcome) {
        self.answered += 1;
        if outcome == Outcome::Failed {
            self.failed += 1;
            if self.first.len() < NAMED {
                self.first.push(line);
            }
        }
    }

    fn report(&self) -> Option<String> {
        if self.failed == 0 {
            return None;
        }
        let numbers: Vec<String> = self.first.iter().map(u64::to_string).collect();
        let more = self.failed - self.first.len() as u64;
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        let lines = if self.failed == 1 { "line" } else { "lines" };
        let (failed, answered) = (self.failed, self.answered);
        Some(format!("chronos-cli: {failed} of {answered} failed: {lines} {}{more}", numbers.join(", ")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The lines sent and their numbers, with the input cut into pieces of `size`.
    fn cut(input: &[u8], size: usize) -> (String, Vec<u64>) {
        let mut cutter = Cutter::default();
        let (mut out, mut numbers) = (Vec::new(), Vec::new());
        for piece in input.chunks(size).map(Input::Bytes).chain([Input::End]) {
            numbers.extend(cutter.cut(piece, &mut out).iter().map(|line| line.number));
        }
        (String::from_utf8(out).unwrap(), numbers)
    }

    #[test]
    fn lines_are_the_same_however_stdin_is_cut() {
        let input = b"SET a 1\r\n\n  \nGET a\n*1\nGET b";
        for size in 1..=input.len() {
            let (sent, numbers) = cut(input, size);
            assert_eq!(sent, " SET a 1\r\n GET a\r\n *1\r\n GET b\r\n");
            assert_eq!(numbers, [1, 4, 5, 6], "pieces of {size}");
        }
    }

    #[test]
    fn a_request_to_keep_silent_is_not_sent() {
        assert_eq!(cut(b"CLIENT REPLY OFF\nPING\n", 99), (" PING\r\n".into(), vec![1, 2]));
    }

    #[test]
    fn behind_a_reset_resp3_is_asked_for_again() {
        assert_eq!(cut(b"reset\nPING\n", 99), (" reset\r\n HELLO 3\r\n PING\r\n".into(), vec![1, 2]));
    }

    #[test]
    fn the_report_names_the_first_failures_and_counts_the_rest() {
        let mut tally = Tally::default();
        assert_eq!(tally.report(), None);
        tally.count(1, Outcome::Done);
        tally.count(7, Outcome::Failed);
        assert_eq!(tally.report().unwrap(), "chronos-cli: 1 of 2 failed: line 7");
        (8..20).for_each(|line| tally.count(line, Outcome::Failed));
        assert_eq!(
            tally.report().unwrap(),
            "chronos-cli: 13 of 14 failed: lines 7, 8, 9, 10, 11, 12, 13, 14, 15, 16 and 3 more"
        );
    }
}
