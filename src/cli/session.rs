//! What the client follows of its connection's state: the selected database, and the queue of an open transaction.

use crate::codec::Slice;
use crate::protocol::reply_reader::Value;
use crate::protocol::{Reply, Row};

use super::asked::{Asked, Shape, Verb};

/// The state that earlier answers leave behind for later ones.
#[derive(Debug, Default)]
pub(crate) struct Session {
    db: u32,
    /// What MULTI has queued, so that EXEC's list is understood as its commands would be.
    queued: Option<Vec<Asked>>,
}

impl Session {
    pub(crate) fn new(db: u32) -> Session {
        Session { db, queued: None }
    }

    /// The selected database.
    pub(crate) fn db(&self) -> u32 {
        self.db
    }

    /// Whether MULTI is open.
    pub(crate) fn in_transaction(&self) -> bool {
        self.queued.is_some()
    }

    /// Takes note of an answer, and turns it into the reply that the server meant.
    pub(crate) fn understand(&mut self, asked: &Asked, value: Value) -> Reply {
        if let Some(queued) = &mut self.queued
            && matches!(&value, Value::Simple(text) if text == b"QUEUED")
        {
            queued.push(*asked);
            return reply(value, Shape::Plain);
        }
        let ok = !matches!(value, Value::Error(_));
        match asked.verb {
            Verb::Multi if ok => self.queued = Some(Vec::new()),
            Verb::Discard if ok => self.queued = None,
            // An EXEC ends the transaction even when it is refused.
            Verb::Exec => {
                let queued = self.queued.take().unwrap_or_default();
                if let Value::Array(items) = value {
                    let queued = queued.iter().chain(std::iter::repeat(&Asked::PLAIN));
                    return Reply::Array(
                        items.into_iter().zip(queued).map(|(item, asked)| self.understand(asked, item)).collect(),
                    );
                }
            }
            Verb::Select(Some(db)) if ok => self.db = db,
            Verb::Reset if ok => *self = Session::default(),
            _ => {}
        }
        reply(value, asked.shape)
    }
}

/// A frame as the reply it was made from.
pub(crate) fn reply(value: Value, shape: Shape) -> Reply {
    let all = |items: Vec<Value>| items.into_iter().map(|item| reply(item, Shape::Plain)).collect();
    match (value, shape) {
        (Value::Int(count), Shape::Deleted { named }) => Reply::Deleted { count: count.unsigned_abs(), named },
        (Value::Array(items), Shape::Pairs) if are_pairs(&items) => Reply::Rows(pairs(items)),
        (Value::Simple(text), _) => Reply::Status(lossy(&text).into()),
        (Value::Error(text), _) => Reply::error(lossy(&text)),
        (Value::Int(n), _) => Reply::Int(n),
        (Value::Double(n), _) => Reply::Double(n),
        (Value::Bool(yes), _) => Reply::Int(yes.into()),
        (Value::Bulk(bytes), _) => Reply::Bulk(Slice::from(bytes)),
        (Value::BigNumber(digits), _) => Reply::Text(lossy(&digits)),
        (Value::Verbatim(_, bytes), _) => Reply::Lines(lossy(&bytes)),
        (Value::Nil, _) => Reply::Nil,
        (Value::Array(items) | Value::Push(items), _) => Reply::Array(all(items)),
        (Value::Set(items), _) => Reply::Set(all(items)),
        (Value::Map(pairs), _) => Reply::Map(
            pairs.into_iter().map(|(key, item)| (reply(key, Shape::Plain), reply(item, Shape::Plain))).collect(),
        ),
    }
}

fn are_pairs(items: &[Value]) -> bool {
    items.len().is_multiple_of(2) && items.iter().all(|item| matches!(item, Value::Bulk(_)))
}

fn pairs(items: Vec<Value>) -> Vec<Row> {
    let mut bytes = items.into_iter().filter_map(|item| match item {
        Value::Bulk(bytes) => Some(Slice::from(bytes)),
        _ => None,
    });
    std::iter::from_fn(|| Some(Row::Pair(bytes.next()?, bytes.next()?))).collect()
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(line: &str) -> Asked {
        Asked::of_line(line.as_bytes()).unwrap()
    }

    fn simple(text: &str) -> Value {
        Value::Simple(text.as_bytes().to_vec())
    }

    fn bulk(text: &str) -> Value {
        Value::Bulk(text.as_bytes().to_vec())
    }

    #[test]
    fn what_resp_leaves_open_is_told_by_the_request() {
        let mut session = Session::new(0);
        let one = session.understand(&asked("DEL a"), Value::Int(1));
        assert_eq!(one, Reply::Deleted { count: 1, named: 1 });
        let range = session.understand(&asked("RANGE a b"), Value::Array(vec![bulk("k"), bulk("v")]));
        assert_eq!(range, Reply::Rows(vec![Row::Pair(Slice::copy_from(b"k"), Slice::copy_from(b"v"))]));
        let refused = session.understand(&asked("RANGE a b"), Value::Error(b"ERR no".to_vec()));
        assert_eq!(refused, Reply::error("ERR no"));
    }

    #[test]
    fn a_transaction_is_answered_as_its_commands_would_be() {
        let mut session = Session::new(0);
        session.understand(&asked("MULTI"), simple("OK"));
        assert!(session.in_transaction());
        session.understand(&asked("DEL a"), simple("QUEUED"));
        session.understand(&asked("NOSUCH"), Value::Error(b"ERR unknown command".to_vec()));
        session.understand(&asked("INCR a"), simple("QUEUED"));
        let done = session.understand(&asked("EXEC"), Value::Array(vec![Value::Int(1), Value::Int(1)]));
        assert_eq!(done, Reply::Array(vec![Reply::Deleted { count: 1, named: 1 }, Reply::Int(1)]));
        assert!(!session.in_transaction());
    }

    #[test]
    fn a_refused_exec_ends_the_transaction_and_a_refused_select_changes_nothing() {
        let mut session = Session::new(0);
        session.understand(&asked("MULTI"), simple("OK"));
        session.understand(&asked("EXEC"), Value::Error(b"EXECABORT".to_vec()));
        assert!(!session.in_transaction());
        session.understand(&asked("SELECT 3"), simple("OK"));
        session.understand(&asked("SELECT 99"), Value::Error(b"ERR DB index is out of range".to_vec()));
        assert_eq!(session.db(), 3);
        session.understand(&asked("RESET"), simple("RESET"));
        assert_eq!(session.db(), 0);
    }

    #[test]
    fn a_select_inside_a_transaction_counts_once_it_is_executed() {
        let mut session = Session::new(0);
        session.understand(&asked("MULTI"), simple("OK"));
        session.understand(&asked("SELECT 3"), simple("QUEUED"));
        assert_eq!(session.db(), 0);
        session.understand(&asked("EXEC"), Value::Array(vec![simple("OK")]));
        assert_eq!(session.db(), 3);
    }
}
