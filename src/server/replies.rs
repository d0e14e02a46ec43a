//! Encoded replies, and which of them depend on what is not durable yet.

use std::mem;

use super::limits::{FLUSH_BYTES, KEEP_BYTES};
use crate::engine::SeqNo;
use crate::protocol::{Dialect, Reply, encode};

/// A reply that must not be sent before a position in history is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    /// Where the reply is in the bytes.
    pub(crate) start: usize,
    pub(crate) end: usize,
    pub(crate) seq: SeqNo,
    /// How an error would be written in its place.
    pub(crate) dialect: Dialect,
}

/// Replies in order, encoded, and their marks in the same order. A mark is *open* until its position is settled.
#[derive(Debug, Default)]
pub(crate) struct Replies {
    pub(crate) bytes: Vec<u8>,
    marks: Vec<Mark>,
    /// `marks[..closed]` are settled.
    closed: usize,
}

impl Replies {
    pub(crate) fn new() -> Replies {
        Replies::default()
    }

    /// Encodes a reply at the end; `depends` is what it has to wait for, if anything.
    pub(crate) fn push(&mut self, reply: &Reply, dialect: Dialect, depends: Option<SeqNo>) {
        let start = self.bytes.len();
        encode(reply, dialect, &mut self.bytes);
        if let Some(seq) = depends {
            self.marks.push(Mark { start, end: self.bytes.len(), seq, dialect });
        }
    }

    /// The highest position that a reply depends on.
    pub(crate) fn depends(&self) -> Option<SeqNo> {
        self.marks[self.closed..].iter().map(|mark| mark.seq).max()
    }

    pub(crate) fn has_open_marks(&self) -> bool {
        self.closed < self.marks.len()
    }

    /// Closes marks up to the first that depends on more than `upto`: how many bytes are now free to go. Everything up
    /// to `upto` has been decided; a reply that depends on what was decided against it is replaced by an error.
    pub(crate) fn settle(
        &mut self,
        upto: SeqNo,
        has_failed: impl Fn(SeqNo) -> bool,
        why: impl FnOnce() -> String,
    ) -> usize {
        let open = &self.marks[self.closed..];
        let decided = open.iter().take_while(|mark| mark.seq <= upto).count();
        if open[..decided].iter().any(|mark| has_failed(mark.seq)) {
            self.replace(decided, has_failed, &why());
        }
        self.closed += decided;
        self.marks.get(self.closed).map_or(self.bytes.len(), |mark| mark.start)
    }

    /// Writes an error in the place of each failed reply among the first `decided` open ones.
    #[cold]
    fn replace(&mut self, decided: usize, has_failed: impl Fn(SeqNo) -> bool, why: &str) {
        let open = self.marks.split_off(self.closed);
        let offset = open[0].start;
        let tail = self.bytes.split_off(offset);
        let error = Reply::error(format!("MISCONF {why}"));
        let mut taken = 0;
        for (at, mark) in open.iter().enumerate() {
            // What stands between two marks depends on nothing.
            self.bytes.extend_from_slice(&tail[taken..mark.start - offset]);
            let start = self.bytes.len();
            if at < decided && has_failed(mark.seq) {
                encode(&error, mark.dialect, &mut self.bytes);
            } else {
                self.bytes.extend_from_slice(&tail[mark.start - offset..mark.end - offset]);
            }
            self.marks.push(Mark { start, end: self.bytes.len(), ..*mark });
            taken = mark.end - offset;
        }
        self.bytes.extend_from_slice(&tail[taken..]);
    }

    /// Moves all of `other` behind these.
    pub(crate) fn append(&mut self, other: &mut Replies) {
        self.marks.drain(..mem::take(&mut self.closed));
        let by = self.bytes.len();
        self.marks.extend(other.marks[other.closed..].iter().map(|mark| mark.moved(0, by)));
        self.bytes.extend_from_slice(&other.bytes);
        other.clear();
    }

    /// Drops the first `sent` bytes, which lie before every open mark.
    pub(crate) fn forget(&mut self, sent: usize) {
        self.marks.drain(..mem::take(&mut self.closed));
        self.bytes.drain(..sent);
        for mark in &mut self.marks {
            *mark = mark.moved(sent, 0);
        }
    }

    /// Empties it and keeps its memory, but for what an unusually large batch left.
    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.bytes.shrink_to(2 * FLUSH_BYTES);
        self.marks.clear();
        self.marks.shrink_to(FLUSH_BYTES / mem::size_of::<Mark>());
        self.closed = 0;
    }

    /// Gives back the memory of an empty one that will not be needed soon.
    pub(crate) fn release(&mut self) {
        if self.bytes.is_empty() && self.bytes.capacity() + self.marks.capacity() > KEEP_BYTES {
            *self = Replies::new();
        }
    }
}

impl Mark {
    /// The same reply after the byte at `from` has moved to `to`.
    fn moved(&self, from: usize, to: usize) -> Mark {
        Mark { start: self.start - from + to, end: self.end - from + to, ..*self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push(replies: &mut Replies, text: &'static str, depends: u64) {
        replies.push(&Reply::Status(text.into()), Dialect::Text, (depends > 0).then_some(SeqNo(depends)));
    }

    fn text(replies: &Replies, upto: usize) -> String {
        String::from_utf8_lossy(&replies.bytes[..upto]).replace(['\r', '\n'], " ").replace("  ", " ")
    }

    /// Settles with everything durable.
    fn settle(replies: &mut Replies, upto: u64) -> usize {
        replies.settle(SeqNo(upto), |_| false, String::new)
    }

    #[test]
    fn replies_wait_in_order_behind_what_is_not_durable() {
        let mut replies = Replies::new();
        push(&mut replies, "a", 0);
        push(&mut replies, "b", 3);
        push(&mut replies, "c", 0);
        push(&mut replies, "d", 2);
        assert_eq!(replies.depends(), Some(SeqNo(3)));
        let free = settle(&mut replies, 2);
        assert_eq!(text(&replies, free), "a ");
        let free = settle(&mut replies, 3);
        assert_eq!(text(&replies, free), "a b c d ");
        assert!(!replies.has_open_marks());
    }

    #[test]
    fn a_failure_replaces_exactly_the_replies_it_took_back() {
        let mut replies = Replies::new();
        for (name, seq) in [("a", 1), ("b", 2), ("c", 0), ("d", 2), ("e", 3), ("f", 2), ("g", 0), ("h", 9)] {
            push(&mut replies, name, seq);
        }
        let failed = |replies: &mut Replies, upto| {
            let free = replies.settle(SeqNo(upto), |seq| seq == SeqNo(2), || "not written".to_owned());
            text(replies, free)
        };
        let error = "(error) MISCONF not written ";
        assert_eq!(failed(&mut replies, 1), "a ");
        assert_eq!(failed(&mut replies, 2), format!("a {error}c {error}"));
        assert_eq!(failed(&mut replies, 9), format!("a {error}c {error}e {error}g h "));
    }

    #[test]
    fn batches_can_be_joined_and_cut_anywhere() {
        let mut replies = Replies::new();
        push(&mut replies, "a", 1);
        push(&mut replies, "b", 2);
        let mut more = Replies::new();
        push(&mut more, "c", 0);
        push(&mut more, "d", 3);
        let sent = settle(&mut replies, 1);
        replies.append(&mut more);
        assert!(more.bytes.is_empty());
        replies.forget(sent);
        let free = settle(&mut replies, 2);
        assert_eq!(text(&replies, free), "b c ");
        let free = replies.settle(SeqNo(3), |_| true, || "not written".to_owned());
        assert_eq!(text(&replies, free), "b c (error) MISCONF not written ");
    }
}
