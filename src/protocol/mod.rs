//! Bytes to requests, replies to bytes. Knows no command.

pub(crate) mod decoder;
pub(crate) mod encoder;
mod foreign;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod limits;
mod number;
pub(crate) mod quote;
pub(crate) mod reply;
pub(crate) mod reply_reader;
pub(crate) mod request;
mod rows;

pub(crate) use decoder::{Decoder, Step};
pub(crate) use encoder::encode;
pub(crate) use limits::{InlineReplies, Limits};
pub(crate) use reply::{Dialect, Reply};
pub(crate) use request::Request;
pub(crate) use rows::{MakeRows, Row, RowStream};

#[cfg(test)]
mod tests;
