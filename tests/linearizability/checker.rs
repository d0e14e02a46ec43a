//! Whether a history has an explanation: an order of its calls, each at one moment between its beginning and its end, in
//! which every answer is right.
//!
//! The search is that of Wing and Gong ("Testing and verifying concurrent objects", 1993) with the memory that Lowe gave
//! it ("Testing for linearizability", 2017): what can still be explained depends only on which calls are *taken* and on
//! the state that they have led to, so no such pair is looked at twice. Histories are of one key each, since a set of
//! registers is linearizable if and only if each of them is (Herlihy and Wing, 1990).
//!
//! A call may be the next one if
//!
//! 1. no call that is not taken was answered before it began;
//! 2. no call that is taken began after the last moment of this one. For a call with an answer that follows from 1; an
//!    unknown one may be left out, and is from then on;
//! 3. the call before it in its session is taken, answered or not: a connection's commands run in their order.
//!
//! A history is explained once all calls with an answer are taken.

use std::cmp::Reverse;
use std::collections::HashSet;

use super::history::{ANY_TIME, Call, End, History};
use super::register::State;

/// Configurations that one history may take. With fewer than ten clients it takes hundreds; a history that needs more is
/// not called right for that.
const MOST_CONFIGURATIONS: usize = 2_000_000;

#[derive(Debug, PartialEq)]
pub enum Verdict {
    Linearizable,
    /// The longest order that was right so far, and where it led.
    Wrong {
        order: Vec<usize>,
        state: State,
    },
    /// The search was given up.
    TooHard,
}

/// Which calls have taken effect.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Taken(Vec<u64>);

impl Taken {
    fn has(&self, at: usize) -> bool {
        self.0[at / 64] >> (at % 64) & 1 == 1
    }

    fn flip(&mut self, at: usize) {
        self.0[at / 64] ^= 1 << (at % 64);
    }
}

/// A call that was taken, and what to go back to.
struct Step {
    call: usize,
    before: State,
    /// The newest beginning of the calls that were taken before.
    newest: u64,
    /// What else could have been taken.
    others: Vec<usize>,
}

struct Search<'a> {
    calls: &'a [Call],
    /// The call before it in its session.
    previous: Vec<Option<usize>>,
    taken: Taken,
    state: State,
    newest: u64,
    /// Calls with an answer that are not taken yet.
    owed: usize,
}

impl Search<'_> {
    fn new(history: &History) -> Search<'_> {
        let calls = history.calls();
        let earlier = |at: usize| (0..at).rev().find(|other| calls[*other].session == calls[at].session);
        Search {
            calls,
            previous: (0..calls.len()).map(earlier).collect(),
            taken: Taken(vec![0; calls.len().div_ceil(64)]),
            state: history.before.clone(),
            newest: 0,
            owed: calls.iter().filter(|call| call.reply().is_some()).count(),
        }
    }

    /// The calls that may be next and whose answer is right then; the best guess last.
    fn choices(&self) -> Vec<usize> {
        let mut choices = Vec::new();
        // Of the calls that were looked at and are not taken, the first answer: what begins later is later.
        let mut first_answer = ANY_TIME;
        for (at, call) in self.calls.iter().enumerate().filter(|(at, _)| !self.taken.has(*at)) {
            if call.begun > first_answer {
                break;
            }
            if let End::Answered { at, .. } = call.end {
                first_answer = first_answer.min(at);
            }
            let in_time = self.newest.max(call.begun) <= call.last_moment();
            if in_time
                && self.previous[at].is_none_or(|previous| self.taken.has(previous))
                && call.reply().is_none_or(|reply| *reply == call.operation.apply(&self.state).1)
            {
                choices.push(at);
            }
        }
        // What ended first mostly took effect first; what nobody knows of, mostly last.
        choices.sort_by_key(|at| (self.calls[*at].reply().is_some(), Reverse(self.calls[*at].last_moment())));
        choices
    }

    fn take(&mut self, call: usize, others: Vec<usize>) -> Step {
        let after = self.calls[call].operation.apply(&self.state).0;
        let step = Step { call, before: std::mem::replace(&mut self.state, after), newest: self.newest, others };
        self.taken.flip(call);
        self.newest = self.newest.max(self.calls[call].begun);
        self.owed -= usize::from(self.calls[call].reply().is_some());
        step
    }

    /// What else could have been taken instead.
    fn take_back(&mut self, step: Step) -> Vec<usize> {
        self.taken.flip(step.call);
        self.state = step.before;
        self.newest = step.newest;
        self.owed += usize::from(self.calls[step.call].reply().is_some());
        step.others
    }
}

/// Looks for an explanation.
pub fn check(history: &History) -> Verdict {
    let mut search = Search::new(history);
    let mut seen: HashSet<(Taken, State)> = HashSet::new();
    let mut steps: Vec<Step> = Vec::new();
    let mut choices = search.choices();
    let (mut longest, mut led_to) = (Vec::new(), search.state.clone());
    while search.owed > 0 {
        match choices.pop() {
            Some(call) => {
                let step = search.take(call, choices);
                if seen.len() == MOST_CONFIGURATIONS {
                    return Verdict::TooHard;
                }
                if !seen.insert((search.taken.clone(), search.state.clone())) {
                    choices = search.take_back(step);
                    continue;
                }
                steps.push(step);
                choices = search.choices();
                if steps.len() > longest.len() {
                    longest = steps.iter().map(|step| step.call).collect();
                    led_to = search.state.clone();
                }
            }
            None => match steps.pop() {
                Some(step) => choices = search.take_back(step),
                None => return Verdict::Wrong { order: longest, state: led_to },
            },
        }
    }
    Verdict::Linearizable
}

/// A smaller history that is wrong, too, of one that is: without what came after the event that cannot be explained, and
/// without calls that changed nothing and are not missed. (A history that has an explanation keeps it when its end is cut
/// off or such a call is left out, so what is wrong in the smaller one was wrong in the whole.)
pub fn shrink(history: &History) -> History {
    let wrong = |history: &History| matches!(check(history), Verdict::Wrong { .. });
    let moments = history.moments();
    let right = moments.partition_point(|moment| !wrong(&history.upto(*moment)));
    let cut = moments.get(right).map(|moment| history.upto(*moment));
    // A cut that was too hard to tell may have led astray.
    let mut smallest = cut.filter(wrong).unwrap_or_else(|| history.clone());
    let mut at = 0;
    while at < smallest.calls().len() {
        let shorter = smallest.without(at);
        match smallest.calls()[at].is_idle() && wrong(&shorter) {
            true => smallest = shorter,
            false => at += 1,
        }
    }
    smallest
}
