//! What one connection may ask of the decoder.

/// What one request may cost. The defaults are Redis's where Redis has the limit.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Bytes in a line of the text dialect, line end not counted: a value typed or piped by a person or a script.
    pub(crate) max_line: usize,
    /// Bytes in an inline request of a RESP connection.
    pub(crate) max_inline: usize,
    /// Words in a RESP request.
    pub(crate) max_args: usize,
    /// Bytes in one bulk string.
    pub(crate) max_bulk: usize,
    /// Bytes in a whole RESP request, since many large bulks add up; Redis's `client-query-buffer-limit`.
    pub(crate) max_request: usize,
    /// How a connection that opens with a line is answered.
    pub(crate) inline_replies: InlineReplies,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            max_line: 1 << 20,
            max_inline: 64 << 10,
            max_args: 1 << 20,
            max_bulk: 512 << 20,
            max_request: 1 << 30,
            inline_replies: InlineReplies::Text,
        }
    }
}

/// The option `--inline-replies`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum InlineReplies {
    /// As the text dialect has it.
    Text,
    /// Every line is read and answered as Redis does.
    Resp,
}
