//! Runs a scenario under many schedules, each a pure function of its seed: which thread goes on at each step, which waits
//! time out, and whatever else the scenario draws.

use std::cell::Cell;
use std::collections::HashMap;
use std::ops::Range;
use std::panic;
use std::sync::Once;

use chronos::codec::Rng;
use chronos::sync::clock;
use shuttle::scheduler::{Schedule, Scheduler, Task, TaskId};
use shuttle::{Config, FailurePersistence, MaxSteps, Runner};

use super::common::number_from_env;

/// Schedules of all scenarios together in the test command.
const SCHEDULES: u64 = 12_500;

/// A schedule of more steps does not end by itself: the longest here have some ten thousand.
const MOST_STEPS: usize = 400_000;

/// Waits that may time out in one schedule. What has not come to its end by then hangs.
const TIMEOUTS: usize = 200;

/// In one of so many schedules time stands still: no wait times out, and whoever was not woken is found to hang, even if
/// after a while something else would have woken him. Not for what needs time to get on, as does a log that has failed.
const TIMELESS: u64 = 3;

/// Compression and merges want more than the default.
const STACK_BYTES: usize = 512 << 10;

/// While others have something to do, time passes at one step in so many.
const CLOCK_RARITY: u64 = 150;

/// Changes of priority of a schedule by priorities: a defect of so many orderings is found with a known probability
/// (Burckhardt and others, "A Randomized Scheduler with Probabilistic Guarantees of Finding Bugs", ASPLOS 2010).
const MOST_CHANGES: u64 = 4;

/// They lie within the first 2 to this power of steps, as likely early as late on a logarithmic scale.
const CHANGES_WITHIN: u64 = 14;

/// A thread is held up for at most 2 to this power of steps.
const LONGEST_PAUSE: u64 = 12;

thread_local! {
    /// What runs on this thread: the scenario and the seed.
    static RUNNING: Cell<Option<(&'static str, u64)>> = const { Cell::new(None) };
}

/// Runs `percent` of all schedules on `scenario`, the name of a test.
pub fn explore(name: &'static str, percent: u64, scenario: fn(&mut Rng)) {
    say_what_runs_when_it_panics();
    let replayed = std::env::var_os("CHRONOS_SEED").is_some();
    let schedules = number_from_env("CHRONOS_SCHEDULES", if replayed { 1 } else { SCHEDULES });
    let first = number_from_env("CHRONOS_SEED", 0);
    let seeds = first..first + (schedules * percent / 100).max(1);
    let mut config = Config::new();
    config.stack_size = STACK_BYTES;
    config.failure_persistence = FailurePersistence::None;
    config.max_steps = MaxSteps::FailAfter(MOST_STEPS);
    config.silence_warnings = true;
    config.ungraceful_shutdown_config.immediately_return_on_panic = true;
    let explorer = Explorer { name, seeds, rng: Rng::new(0), style: Style::Random { stay: 0 }, step: 0 };
    let schedules = Runner::new(explorer, config).run(move || {
        let seed = RUNNING.get().map_or(0, |(_, seed)| seed);
        let timeouts = if time_passes() { TIMEOUTS } else { 0 };
        // Not the scheduler's numbers: what a scenario draws is its own.
        clock::with(timeouts, || scenario(&mut Rng::new(!seed)));
    });
    RUNNING.set(None);
    println!("{name}: {schedules} schedules");
}

/// Whether waits time out in the schedule that runs.
pub fn time_passes() -> bool {
    RUNNING.get().is_none_or(|(_, seed)| !seed.is_multiple_of(TIMELESS))
}

fn say_what_runs_when_it_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if let Some((name, seed)) = RUNNING.take() {
                eprintln!(
                    "schedule {seed} of {name}: CHRONOS_SEED={seed} cargo test --features schedules --test schedules {name}"
                );
            }
            before(info);
        }));
    });
}

struct Explorer {
    name: &'static str,
    seeds: Range<u64>,
    rng: Rng,
    style: Style,
    step: u64,
}

enum Style {
    /// Anybody; the thread that runs goes on with `stay` in `stay + 1` cases.
    Random { stay: u64 },
    /// As above, and at one step in `rarity` the thread that runs is held up for a while, as long as others can go on: what
    /// lies between two of its steps is then much.
    Pauses { rarity: u64, until: HashMap<TaskId, u64> },
    /// The highest priority always; at each of some steps that of the thread that runs becomes the lowest.
    Priorities { of: HashMap<TaskId, i64>, changes: Vec<u64>, lowest: i64 },
}

impl Scheduler for Explorer {
    fn new_execution(&mut self) -> Option<Schedule> {
        let seed = self.seeds.next()?;
        RUNNING.set(Some((self.name, seed)));
        self.rng = Rng::new(seed);
        self.step = 0;
        let rng = &mut self.rng;
        self.style = if rng.chance(1, 3) {
            Style::Random { stay: *rng.pick(&[0, 1, 4, 16]) }
        } else if rng.chance(1, 2) {
            Style::Pauses { rarity: *rng.pick(&[10, 30, 100]), until: HashMap::new() }
        } else {
            let changes = 1 + rng.below(MOST_CHANGES);
            let mut change = || {
                let within = 1 + rng.below(CHANGES_WITHIN);
                rng.below(1 << within)
            };
            Style::Priorities { of: HashMap::new(), changes: (0..changes).map(|_| change()).collect(), lowest: 0 }
        };
        Some(Schedule::new(seed))
    }

    fn next_task(&mut self, runnable: &[&Task], current: Option<TaskId>, is_yielding: bool) -> Option<TaskId> {
        self.step += 1;
        let ids = move || runnable.iter().map(|task| task.id());
        let is_clock = |id: &TaskId| usize::from(*id) == clock::TASK;
        let mut others: Vec<TaskId> = ids().filter(|id| !is_clock(id)).collect();
        let time = ids().find(is_clock);
        if time.is_some() && (others.is_empty() || self.rng.chance(1, CLOCK_RARITY)) {
            return time;
        }
        match &mut self.style {
            Style::Random { stay } => {
                if is_yielding && others.len() > 1 {
                    others.retain(|id| Some(*id) != current);
                } else if let Some(current) = current
                    && others.contains(&current)
                    && !self.rng.chance(1, *stay + 1)
                {
                    return Some(current);
                }
                Some(*self.rng.pick(&others))
            }
            Style::Pauses { rarity, until } => {
                if let Some(current) = current
                    && (is_yielding || self.rng.chance(1, *rarity))
                {
                    let within = 1 + self.rng.below(LONGEST_PAUSE);
                    until.insert(current, self.step + self.rng.below(1 << within));
                }
                let awake = |id: &TaskId| until.get(id).is_none_or(|until| *until <= self.step);
                if others.iter().any(awake) {
                    others.retain(awake);
                }
                Some(*self.rng.pick(&others))
            }
            Style::Priorities { of, changes, lowest } => {
                for id in &others {
                    of.entry(*id).or_insert_with(|| 1 + self.rng.below(1 << 32) as i64);
                }
                if let Some(current) = current
                    && (is_yielding || changes.contains(&self.step))
                {
                    *lowest -= 1;
                    of.insert(current, *lowest);
                }
                others.into_iter().max_by_key(|id| of[id])
            }
        }
    }

    fn next_u64(&mut self) -> u64 {
        self.rng.next_u64()
    }
}
