//! Reads and mixed work by one thread and by several: what each further thread brings.
//!
//! ```text
//! cargo bench --bench scaling [-- THREADS ...]
//! ```
//!
//! 1,000,000 keys of 16 bytes with values of 100, merged and cached, not synced. Every row runs with each number of
//! threads in turn, three times; medians. `of one` is the rate beside that of one thread: on a machine with that many free
//! processors it should be close to the number of threads.

use std::sync::Barrier;
use std::time::{Duration, Instant};

use chronos::codec::Rng;
use chronos::engine::Durability;
use chronos::{Db, Options};

const KEYS: u64 = 1_000_000;

/// Of one measurement.
const TIME: Duration = Duration::from_millis(1_500);

const ROUNDS: usize = 3;

/// Between two looks at the clock.
const STRIDE: u64 = 64;

const VALUE: [u8; 100] = [b'v'; 100];

fn key(number: u64) -> String {
    format!("{number:016}")
}

type Work = fn(&Db, &mut Rng);

const WORK: [(&str, Work); 6] = [
    ("get", |db, rng| {
        let key = key(rng.below(KEYS));
        assert!(db.get(key.as_bytes()).expect("get").is_some());
    }),
    ("get of an absent key", |db, rng| {
        let key = key(rng.below(KEYS)) + "x";
        assert!(db.get(key.as_bytes()).expect("get").is_none());
    }),
    ("get of one hot key", |db, _| {
        assert!(db.get(key(KEYS / 2).as_bytes()).expect("get").is_some());
    }),
    ("scan of 50", |db, rng| {
        let from = key(rng.below(KEYS - 50));
        assert_eq!(db.range(from.as_bytes()..).take(50).filter(Result::is_ok).count(), 50);
    }),
    ("put", |db, rng| {
        db.put(key(rng.below(KEYS)).as_bytes(), &VALUE).expect("put");
    }),
    ("get, one in ten a put", |db, rng| {
        let key = key(rng.below(KEYS));
        if rng.chance(1, 10) {
            db.put(key.as_bytes(), &VALUE).expect("put");
        } else {
            assert!(db.get(key.as_bytes()).expect("get").is_some());
        }
    }),
];

/// Operations a second of all threads together.
fn run(db: &Db, work: Work, threads: u64) -> f64 {
    let start = Barrier::new(threads as usize);
    std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads)
            .map(|thread| {
                let start = &start;
                scope.spawn(move || {
                    let mut rng = Rng::new(thread + 1);
                    start.wait();
                    let (started, mut operations) = (Instant::now(), 0);
                    while started.elapsed() < TIME {
                        for _ in 0..STRIDE {
                            work(db, &mut rng);
                        }
                        operations += STRIDE;
                    }
                    operations as f64 / started.elapsed().as_secs_f64()
                })
            })
            .collect();
        running.into_iter().map(|thread| thread.join().expect("a thread")).sum()
    })
}

fn main() {
    let wanted: Vec<u64> = std::env::args().skip(1).filter_map(|arg| arg.parse().ok()).collect();
    let wanted = if wanted.is_empty() { vec![1, 2] } else { wanted };
    let home = tempfile::tempdir().expect("a temporary directory");
    let db = Options::new().durability(Durability::Os).memory(1 << 30).open(home.path()).expect("open");
    for number in 0..KEYS {
        db.put(key(number).as_bytes(), &VALUE).expect("put");
    }
    db.compact().expect("compact");
    println!("| work | threads | operations/s | of one |\n|---|---|---|---|");
    for (name, work) in WORK {
        let mut rates = vec![Vec::new(); wanted.len()];
        for _ in 0..ROUNDS {
            for (threads, rates) in wanted.iter().zip(&mut rates) {
                rates.push(run(&db, work, *threads));
            }
        }
        let medians: Vec<f64> = rates
            .into_iter()
            .map(|mut rates| {
                rates.sort_by(f64::total_cmp);
                rates[ROUNDS / 2]
            })
            .collect();
        for (threads, rate) in wanted.iter().zip(&medians) {
            println!("| {name} | {threads} | {rate:.0} | {:.2} |", rate / medians[0]);
        }
    }
}
