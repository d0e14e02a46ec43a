//! A request: a command's name and arguments, borrowed from the connection's read buffer.

/// One argument's place: in the read buffer, or, where a quoted word had escapes, in the decoder's scratch buffer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span {
    pub(crate) start: usize,
    pub(crate) end: usize,
    pub(crate) in_scratch: bool,
}

/// One request. `arg(0)` is the command's name as it was sent, in any case; a request has at least that one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request<'a> {
    pub(crate) buffer: &'a [u8],
    pub(crate) scratch: &'a [u8],
    pub(crate) spans: &'a [Span],
}

impl<'a> Request<'a> {
    /// How many words, the command's name included.
    pub(crate) fn len(&self) -> usize {
        self.spans.len()
    }

    /// Word `at`; panics beyond `len()` (dispatch has checked the arity).
    pub(crate) fn arg(&self, at: usize) -> &'a [u8] {
        let span = self.spans[at];
        let from = if span.in_scratch { self.scratch } else { self.buffer };
        &from[span.start..span.end]
    }

    /// Words from `from` on.
    pub(crate) fn args(&self, from: usize) -> impl ExactSizeIterator<Item = &'a [u8]> + use<'a> {
        let request = *self;
        (from.min(self.len())..self.len()).map(move |at| request.arg(at))
    }
}
