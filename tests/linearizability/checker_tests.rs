//! The checker is checked: histories drawn by hand that are right or wrong.
//!
//! In a drawing a call begins at `|` and ends at `|` with the reply behind it, at `x` if the server was killed then with
//! the outcome unknown, or at `>` if it may take effect at any later time. Calls with the same name before the colon are
//! of one connection.

use super::checker::{Verdict, check, shrink};
use super::history::{ANY_TIME, Call, End, History, Moment};
use super::reference::explained;
use super::register::{Condition, Operation, Reply, Value};

fn bytes(text: &str) -> Value {
    text.as_bytes().into()
}

fn operation(words: &str) -> Operation {
    let set = |value: &str, condition, get| Operation::Set { value: bytes(value), condition, get };
    match words.split_whitespace().collect::<Vec<_>>()[..] {
        ["GET"] => Operation::Get,
        ["RANGE"] => Operation::Scan,
        ["SET", value] => set(value, Condition::Always, false),
        ["SET", value, "GET"] => set(value, Condition::Always, true),
        ["SET", value, "NX"] => set(value, Condition::IfAbsent, false),
        ["SET", value, "XX"] => set(value, Condition::IfPresent, false),
        ["SET", value, "NX", "GET"] => set(value, Condition::IfAbsent, true),
        ["SET", value, "XX", "GET"] => set(value, Condition::IfPresent, true),
        ["INCR"] => Operation::Incr(1),
        ["APPEND", piece] => Operation::Append(bytes(piece)),
        ["DEL"] => Operation::Del,
        ["GETDEL"] => Operation::GetDel,
        ["RANGE.DEL"] => Operation::DelRange,
        _ => panic!("no operation: {words}"),
    }
}

/// A reply as it stands in a drawing: what a number is depends on what was asked.
fn reply(operation: &Operation, text: &str) -> Reply {
    match (operation, text) {
        (_, "OK") => Reply::Ok,
        (_, "(nil)") => Reply::Nil,
        (_, "(refused)") => Reply::Refused,
        (Operation::Incr(_) | Operation::Append(_) | Operation::Del, number) => Reply::Number(number.parse().unwrap()),
        (_, value) => Reply::Value(bytes(value)),
    }
}

fn drawn(drawing: &str) -> History {
    let call = |(number, line): (usize, &str)| {
        assert!(line.starts_with(' '), "the first line stands under the quote, as the others do");
        let begun = line.find('|').expect("a call begins at |");
        let ended = begun + 1 + line[begun + 1..].find(['|', 'x', '>']).expect("a call ends at |, x or >");
        let (name, words) = line[..begun].split_once(':').unwrap_or((" ", &line[..begun]));
        let operation = operation(words);
        // Of what ends and begins in the same column the end is first.
        let at = 2 * ended as Moment;
        let end = match &line[ended..=ended] {
            "|" => End::Answered { at, reply: reply(&operation, line[ended + 1..].trim()) },
            "x" => End::Unknown { until: at },
            _ => End::Unknown { until: ANY_TIME },
        };
        let session = if name == " " { 1_000 + number as u64 } else { name.trim().as_bytes()[0].into() };
        Call { session, begun: 2 * begun as Moment + 1, operation, end }
    };
    History::new(None, drawing.lines().filter(|line| line.contains('|')).enumerate().map(call).collect())
}

#[track_caller]
fn right(drawing: &str) {
    assert_eq!(check(&drawn(drawing)), Verdict::Linearizable, "{drawing}");
    assert!(explained(&drawn(drawing)), "by the reference: {drawing}");
}

#[track_caller]
fn wrong(drawing: &str) {
    assert!(matches!(check(&drawn(drawing)), Verdict::Wrong { .. }), "{drawing}");
    assert!(!explained(&drawn(drawing)), "by the reference: {drawing}");
}

#[test]
fn calls_one_after_the_other() {
    right(
        "
         GET         |-| (nil)
         SET 1          |-| OK
         INCR               |-| 2
         SET 5 NX               |-| (nil)
         SET 5 NX GET               |-| 2
         SET 7 XX GET                   |-| 2
         APPEND x                           |-| 2
         INCR                                   |-| (refused)
         GETDEL                                     |-| 7x
         DEL                                            |-| 0
         SET 8 XX                                           |-| (nil)
         RANGE                                                  |-| (nil)
         SET 9 NX GET                                               |-| (nil)
         SET 3 GET                                                      |-| 9
         RANGE.DEL                                                          |-| OK
         GET                                                                    |-| (nil)",
    );
}

#[test]
fn calls_at_the_same_time_may_have_any_order() {
    right(
        "
         SET 1    |------| OK
         SET 2      |------| OK
         GET                  |-| 1",
    );
    // The read that ended first saw the write that began last.
    right(
        "
         SET 1  |----------------| OK
         SET 2     |----------------| OK
         GET          |---| 2
         GET                |---| 1",
    );
    right(
        "
         INCR   |-------------| 3
         INCR     |----| 1
         INCR       |----| 2",
    );
    right(
        "
         SET 1 NX  |-----| (nil)
         SET 2 NX  |-----| OK
         GETDEL      |-----| 2
         GET          |------| (nil)",
    );
}

#[test]
fn what_nobody_was_told_of_may_be_late_or_never() {
    right(
        "
         SET 1  |-| OK
         SET 2      |--x
         GET             |-| 1
         GET                 |-| 1",
    );
    right(
        "
         SET 1  |-| OK
         SET 2      |--x
         GET             |-| 2
         GET                 |-| 2",
    );
    // Not known to have happened, and then it has.
    right(
        "
         SET 1  |-| OK
         SET 2      |---->
         GET            |-| 1
         GET                |-| 2",
    );
    right(
        "
         INCR   |-| 1
         INCR       |---->
         INCR       |---->
         INCR          |-| 2
         GET                |-| 2
         INCR                   |-| 4",
    );
    // A connection's commands: the second has happened, so the first has.
    right(
        "
         a: SET 1   |---x
         a: APPEND 2 |--x
         GET             |-| 12",
    );
}

#[test]
fn a_stale_read_is_wrong() {
    wrong(
        "
         SET 1  |-| OK
         SET 2      |-| OK
         GET            |-| 1",
    );
    wrong(
        "
         SET 1  |-| OK
         SET 2      |-----------| OK
         GET          |-| 2
         RANGE             |-| 1",
    );
}

#[test]
fn a_lost_update_is_wrong() {
    wrong(
        "
         INCR  |-----| 1
         INCR    |------| 1",
    );
    wrong(
        "
         SET 1 NX  |------| OK
         SET 2 NX    |------| OK",
    );
    wrong(
        "
         SET 1          |-| OK
         APPEND 2           |----| 2
         APPEND 3            |----| 2",
    );
    wrong(
        "
         SET 1   |-| OK
         GETDEL      |----| 1
         GETDEL       |----| 1",
    );
}

#[test]
fn an_acknowledged_write_that_a_kill_undoes_is_wrong() {
    wrong(
        "
         SET 1  |-| OK
         SET 2      |-| OK
         SET 3         |--x
         GET                |-| 1",
    );
    wrong(
        "
         SET 1  |-| OK
         DEL        |-| 1
         GET             |-| 1",
    );
    // It was never acknowledged, but shown.
    wrong(
        "
         SET 1  |-| OK
         SET 2      |-----x
         GET          |-| 2
         GET                |-| 1",
    );
}

#[test]
fn what_is_done_twice_is_wrong() {
    wrong(
        "
         INCR   |-| 1
         INCR       |--x
         GET             |-| 3",
    );
    wrong(
        "
         INCR   |-| 1
         INCR       |-| 3",
    );
    wrong(
        "
         APPEND a   |-x
         GET             |-| aa",
    );
}

#[test]
fn a_condition_that_failed_and_was_written_all_the_same_is_wrong() {
    wrong(
        "
         SET 1     |-| OK
         SET 2 NX      |-| (nil)
         GET               |-| 2",
    );
    wrong(
        "
         SET 2 XX  |-| (nil)
         GET           |-| 2",
    );
    wrong(
        "
         SET 1        |-| OK
         SET 2 NX GET     |-| 1
         GET                  |-| 2",
    );
    wrong(
        "
         SET a   |-| OK
         INCR        |-| (refused)
         GET             |-| 1",
    );
}

#[test]
fn a_value_that_nobody_wrote_is_wrong() {
    wrong(" GET    |-| 7");
    wrong(
        "
         SET 1  |----| OK
         GET      |----| 7",
    );
    // It was written, but only later.
    wrong(
        "
         GET    |-| 7
         SET 7      |-| OK",
    );
}

#[test]
fn what_comes_and_goes_and_comes_again_is_wrong() {
    wrong(
        "
         SET 1  |-| OK
         SET 2      |------------------->
         GET           |-| 2
         GET               |-| 1",
    );
    wrong(
        "
         SET 1  |-| OK
         SET 2      |------------------->
         GET           |-| 1
         GET               |-| 2
         GET                   |-| 1
         GET                       |-| 2",
    );
    // Dead since the kill, back after another one.
    wrong(
        "
         SET 1  |-| OK
         SET 2      |---x
         GET             |-| 1
         GET                 |-| 2",
    );
}

#[test]
fn a_connection_that_changes_the_order_of_its_commands_is_wrong() {
    wrong(
        "
         a: SET 1  |-----| OK
         a: SET 2    |------| OK
         GET                  |-| 1",
    );
    // The same by two connections is not.
    right(
        "
         a: SET 1  |-----| OK
         b: SET 2    |------| OK
         GET                  |-| 1",
    );
    // The second without the first.
    wrong(
        "
         a: SET 1     |---x
         a: APPEND 2   |--x
         GET               |-| 2",
    );
}

#[test]
fn what_is_wrong_is_cut_to_what_shows_it() {
    let history = drawn(
        "
         GET           |-| (nil)
         SET 1             |-| OK
         GET                   |-| 1
         SET 8 XX GET              |---| 1
         SET 9 NX                   |----| (nil)
         GET                              |-| 1
         SET 10                               |-| OK
         GET                                      |-| 10",
    );
    let Verdict::Wrong { order, state } = check(&history) else { panic!("it is wrong") };
    assert_eq!((order.len(), state), (5, Some(bytes("8"))), "up to the read");
    let names: Vec<String> = shrink(&history).calls().iter().map(|call| call.operation.to_string()).collect();
    assert_eq!(names, ["SET 1", "SET 8 XX GET", "GET"]);
}
