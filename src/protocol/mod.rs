//! Bytes to requests, replies to bytes. Knows no command.

pub(crate) mod reply;
pub(crate) mod request;

pub(crate) use reply::{Dialect, Reply};
pub(crate) use request::Request;
