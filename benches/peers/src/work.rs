//! What is written and asked for: the same bytes, in the same order, for every engine.

use std::time::Duration;

use rand::distr::Distribution;
use rand::{Rng, RngExt, SeedableRng};
use rand_distr::Zipf;
use rand_xoshiro::Xoshiro256PlusPlus;

/// Bytes of a key.
pub const KEY: usize = 16;

/// Bytes of a value.
pub const VALUE: usize = 100;

/// How skewed the choice of keys is, as in YCSB (Cooper et al., "Benchmarking Cloud Serving Systems with YCSB", 2010).
const ZIPF_EXPONENT: f64 = 0.99;

/// The half of a value that does not compress is cut out of this many random bytes.
const POOL: usize = 1 << 20;

/// The longest scan of YCSB E.
pub const LONGEST_SCAN: u32 = 100;

/// How many entries a scan of the plain rows has.
pub const SCAN: u32 = 50;

/// Keys that are there have even numbers, so that absent ones are not out of range.
pub fn key(number: u32) -> [u8; KEY] {
    spell(2 * u64::from(number))
}

/// A key that is not there, beside one that is.
pub fn absent_key(number: u32) -> [u8; KEY] {
    spell(2 * u64::from(number) + 1)
}

fn spell(mut rest: u64) -> [u8; KEY] {
    let mut key = [b'0'; KEY];
    for digit in key.iter_mut().rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    key
}

/// Values of which one half does not compress and the other does to nothing, as in `db_bench`.
pub struct Values {
    pool: Vec<u8>,
}

impl Values {
    pub fn new() -> Values {
        let mut pool = vec![0; POOL];
        random(0).fill_bytes(&mut pool);
        Values { pool }
    }

    /// The value that a key is given the `version`th time.
    pub fn of(&self, number: u32, version: u32) -> [u8; VALUE] {
        let mut value = [b'x'; VALUE];
        let at = scramble(u64::from(number) << 32 | u64::from(version)) as usize % (POOL - VALUE);
        value[..VALUE / 2].copy_from_slice(&self.pool[at..at + VALUE / 2]);
        value
    }
}

pub fn random(seed: u64) -> Xoshiro256PlusPlus {
    Xoshiro256PlusPlus::seed_from_u64(seed)
}

/// FNV-1a, with which YCSB spreads the popular keys over the key space.
fn scramble(number: u64) -> u64 {
    number
        .to_le_bytes()
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

/// Every number below `count` once.
pub fn shuffled(count: u32, seed: u64) -> Vec<u32> {
    let mut numbers: Vec<u32> = (0..count).collect();
    let mut rng = random(seed);
    for at in (1..numbers.len()).rev() {
        numbers.swap(at, rng.random_range(0..=at));
    }
    numbers
}

/// What one thread is to do next.
#[derive(Clone, Copy, Debug)]
pub enum Op {
    Put(u32),
    Get(u32),
    GetAbsent(u32),
    Scan(u32, u32),
    /// Reads a key and sets it.
    Modify(u32),
    /// Sets a key that was not there.
    Insert,
    /// Reads the key that was inserted so many before the newest.
    GetRecent(u32),
}

/// The workloads of YCSB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ycsb {
    A,
    B,
    C,
    D,
    E,
    F,
}

/// The operations of one thread, drawn before anything is timed.
pub fn ycsb(workload: Ycsb, keys: u32, count: usize, seed: u64) -> Vec<Op> {
    let mut rng = random(seed);
    let zipf = Zipf::new(f64::from(keys), ZIPF_EXPONENT).expect("a distribution over at least one key");
    let rank = |rng: &mut Xoshiro256PlusPlus| zipf.sample(rng) as u64 - 1;
    let popular = |rng: &mut Xoshiro256PlusPlus| (scramble(rank(rng)) % u64::from(keys)) as u32;
    (0..count)
        .map(|_| {
            let percent = rng.random_range(0..100);
            match workload {
                Ycsb::A if percent < 50 => Op::Put(popular(&mut rng)),
                Ycsb::B if percent < 5 => Op::Put(popular(&mut rng)),
                Ycsb::D if percent < 5 => Op::Insert,
                Ycsb::D => Op::GetRecent(rank(&mut rng) as u32),
                Ycsb::E if percent < 5 => Op::Insert,
                Ycsb::E => Op::Scan(popular(&mut rng), rng.random_range(1..=LONGEST_SCAN)),
                Ycsb::F if percent < 50 => Op::Modify(popular(&mut rng)),
                _ => Op::Get(popular(&mut rng)),
            }
        })
        .collect()
}

/// Between two looks at whether an engine has come to rest, and how long it must have been at rest.
pub const REST: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// However busy an engine still is, nobody waits longer.
pub const LONGEST_REST: Duration = Duration::from_secs(120);
