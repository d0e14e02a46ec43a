//! The checker beside a reference that tries every order: random histories that are right, and broken ones.

use chronos::codec::Rng;

use super::checker::{Verdict, check, shrink};
use super::history::{ANY_TIME, Call, End, History, Moment};
use super::register::{Operation, Reply, State, Value};

fn bytes(text: &str) -> Value {
    text.as_bytes().into()
}

/// The reference: every choice of the calls that nobody knows of, in every order.
pub fn explained(history: &History) -> bool {
    fn place(calls: &[Call], left: &mut Vec<usize>, done: &mut Vec<usize>, state: &State) -> bool {
        if left.iter().all(|at| calls[*at].reply().is_none()) && in_order(calls, done) {
            return true;
        }
        (0..left.len()).any(|choice| {
            let at = left.remove(choice);
            let (after, reply) = calls[at].operation.apply(state);
            done.push(at);
            let fits = calls[at].reply().is_none_or(|told| *told == reply) && place(calls, left, done, &after);
            done.pop();
            left.insert(choice, at);
            fits
        })
    }
    place(history.calls(), &mut (0..history.calls().len()).collect(), &mut Vec::new(), &history.before)
}

/// Whether each call can be before all that are behind it, and no connection's are left out or in another order.
fn in_order(calls: &[Call], done: &[usize]) -> bool {
    let pairs = || (0..done.len()).flat_map(|a| (a + 1..done.len()).map(move |b| (&calls[done[a]], &calls[done[b]])));
    let in_session = |at: usize| {
        let before = (0..at).filter(|other| calls[*other].session == calls[at].session);
        before.into_iter().all(|other| done.contains(&other))
    };
    pairs().all(|(first, second)| {
        first.begun <= second.last_moment() && (first.session != second.session || first.begun < second.begun)
    }) && done.iter().all(|at| in_session(*at) && calls[*at].begun <= calls[*at].last_moment())
}

/// A history that has an explanation: its calls took effect one after the other, and each began before and ended after,
/// by up to `width` (a thousand is from one to the next). Of so many answers one is `lost`.
fn generated(rng: &mut Rng, calls: usize, sessions: u64, width: u64, lost: u64) -> History {
    let mut state: State = rng.chance(1, 2).then(|| bytes("1000"));
    let before = state.clone();
    // From so many calls of a session on none takes effect.
    let mut dead = vec![false; sessions as usize];
    let mut drafts = Vec::new();
    for number in 0..calls as u64 {
        let session = rng.below(sessions);
        dead[session as usize] |= rng.chance(1, 2 * lost);
        let operation = Operation::random(rng, 1 + number, 3);
        let reply = match dead[session as usize] {
            true => None,
            false => {
                let (after, reply) = operation.apply(&state);
                state = after;
                (!rng.chance(1, lost)).then_some(reply)
            }
        };
        drafts.push((session, operation, reply, 1_000 * (number + 1)));
    }
    // No two events at the same time.
    let mut count = 0;
    let mut unlike = |moment: u64| {
        count += 1;
        moment * 1_000 + count
    };
    let mut begun: Vec<Moment> =
        drafts.iter().map(|(.., point)| unlike(point.saturating_sub(1 + rng.below(width)))).collect();
    for session in 0..sessions {
        // A connection sends in order; and earlier is never too late.
        let of: Vec<usize> = (0..calls).filter(|at| drafts[*at].0 == session).collect();
        let mut sorted: Vec<Moment> = of.iter().map(|at| begun[*at]).collect();
        sorted.sort_unstable();
        of.into_iter().zip(sorted).for_each(|(at, moment)| begun[at] = moment);
    }
    let calls = drafts.into_iter().zip(begun).map(|((session, operation, reply, point), begun)| {
        let end = match reply {
            Some(reply) => End::Answered { at: unlike(point + 1 + rng.below(width)), reply },
            None if rng.chance(1, 2) => End::Unknown { until: unlike(point + 1 + rng.below(width)) },
            None => End::Unknown { until: ANY_TIME },
        };
        Call { session, begun, operation, end }
    });
    History::new(before, calls.collect())
}

/// Another answer, another time, or an answer where there was none.
fn broken(rng: &mut Rng, history: &History) -> History {
    let mut calls = history.calls().to_vec();
    let replies: Vec<Reply> = calls.iter().filter_map(|call| call.reply().cloned()).collect();
    let begun = rng.pick(&calls).begun;
    let at = rng.below(calls.len() as u64) as usize;
    let other = |rng: &mut Rng, call: &Call| match rng.below(4) {
        0 => call.operation.apply(&None).1,
        1 => call.operation.apply(&Some(bytes("1000"))).1,
        2 => call.operation.apply(&Some(format!("{}000", 1 + rng.below(6)).into_bytes().into())).1,
        _ if replies.is_empty() => Reply::Ok,
        _ => rng.pick(&replies).clone(),
    };
    let call = calls[at].clone();
    calls[at].end = match (call.end.clone(), rng.below(3)) {
        (End::Answered { reply, .. }, 0) => End::Answered { at: begun.max(call.begun) + 1, reply },
        (End::Answered { at, .. }, _) => End::Answered { at, reply: other(rng, &call) },
        (End::Unknown { .. }, 0) => End::Unknown { until: begun.max(call.begun) + 1 },
        (End::Unknown { .. }, _) => End::Answered { at: begun.max(call.begun) + 1, reply: other(rng, &call) },
    };
    History::new(history.before.clone(), calls)
}

/// So many small histories are looked at by both.
const SMALL: u64 = 10_000;

#[test]
fn it_agrees_with_the_reference_that_tries_every_order() {
    let seed = super::seed();
    let mut rng = Rng::new(seed);
    let (mut right, mut wrong) = (0, 0);
    for number in 0..SMALL {
        let (calls, sessions) = (1 + rng.below(6) as usize, 1 + rng.below(5));
        let width = *rng.pick(&[1_500, 4_000]);
        let history = generated(&mut rng, calls, sessions, width, 8);
        assert_eq!(check(&history), Verdict::Linearizable, "seed {seed}, number {number}:\n{history}");
        assert!(explained(&history), "by the reference: seed {seed}, number {number}:\n{history}");
        // What shrinking a wrong history relies on.
        let idle = (0..calls).filter(|at| history.calls()[*at].is_idle()).map(|at| history.without(at));
        for smaller in idle.chain(history.moments().into_iter().map(|moment| history.upto(moment))) {
            assert!(explained(&smaller), "seed {seed}, number {number}:\n{history}smaller:\n{smaller}");
        }
        let mut history = history;
        for _ in 0..1 + rng.below(2) {
            history = broken(&mut rng, &history);
        }
        let verdict = check(&history);
        let expected = explained(&history);
        assert_eq!(verdict == Verdict::Linearizable, expected, "seed {seed}, number {number}: {verdict:?}\n{history}");
        if expected {
            right += 1;
        } else {
            wrong += 1;
            let smaller = shrink(&history);
            assert!(!explained(&smaller), "seed {seed}, number {number}:\n{history}shrunk:\n{smaller}");
        }
    }
    assert!(right > SMALL / 20 && wrong > SMALL / 20, "{right} right, {wrong} wrong");
}

/// So many long ones by the checker alone.
const LONG: usize = 30;

#[test]
fn long_histories_are_told_right_from_wrong() {
    let seed = super::seed();
    let mut rng = Rng::new(seed);
    let mut told = 0;
    for number in 0..LONG {
        let history = generated(&mut rng, 200, 5, 2_000, 1_000);
        assert_eq!(check(&history), Verdict::Linearizable, "seed {seed}, number {number}");
        // Nobody was ever told this.
        let mut calls = history.calls().to_vec();
        let call = rng.pick(&(0..200).filter(|at| calls[*at].reply().is_some()).collect::<Vec<_>>()).to_owned();
        calls[call].operation = Operation::Get;
        calls[call].end = End::Answered { at: calls[call].last_moment(), reply: Reply::Value(bytes("never written")) };
        let history = History::new(history.before, calls);
        let verdict = check(&history);
        assert_ne!(verdict, Verdict::Linearizable, "seed {seed}, number {number}");
        if verdict == Verdict::TooHard {
            continue;
        }
        told += 1;
        let shrunk = shrink(&history);
        assert!(shrunk.calls().len() < history.calls().len(), "seed {seed}, number {number}:\n{shrunk}");
    }
    assert!(told > LONG / 2, "{told} of {LONG}");
}
