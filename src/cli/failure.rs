//! Why the client stops: each says what it tried, what happened and, where there is one, the next step.

use std::io;

/// What ends a run, or, at the prompt, a connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error("cannot connect to {server}: {why} (is chronos-server running?)")]
    Connect { server: String, why: String },

    #[error("{server} refused: {text}")]
    Refused { server: String, text: String },

    #[error("{server} closed the connection")]
    Closed { server: String },

    #[error("connection to {server} lost: {why}")]
    Lost { server: String, why: String },

    #[error("{server}: {why}")]
    Garbled { server: String, why: String },

    #[error("line {line} was not answered: {cause}")]
    Unanswered { line: u64, cause: Box<Failure> },

    #[error("stdin is damaged at byte {at}: {what}")]
    Damaged { at: u64, what: &'static str },

    #[error("cannot read stdin: {}", reason(.0))]
    Input(#[source] io::Error),

    #[error("cannot write the output: {}", reason(.0))]
    Output(#[source] io::Error),

    /// Whoever read our output has seen enough (`chronos-cli ... | head -1`). Nothing to say, and no one to say it to.
    #[error("the output was closed")]
    OutputClosed,
}

impl Failure {
    /// A failed write to stdout.
    pub(crate) fn output(error: io::Error) -> Failure {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Failure::OutputClosed,
            _ => Failure::Output(error),
        }
    }
}

/// An I/O error in words: without the number that the standard library puts behind them.
pub(crate) fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    match text.find(" (os error ") {
        Some(end) => text[..end].to_string(),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_words_without_numbers() {
        let refused = io::Error::from(rustix::io::Errno::CONNREFUSED);
        assert_eq!(reason(&refused), "Connection refused");
        assert_eq!(reason(&io::Error::other("odd")), "odd");
    }

    #[test]
    fn a_closed_reader_is_told_from_a_full_disk() {
        assert!(matches!(Failure::output(io::ErrorKind::BrokenPipe.into()), Failure::OutputClosed));
        assert!(matches!(Failure::output(io::ErrorKind::StorageFull.into()), Failure::Output(_)));
    }
}
