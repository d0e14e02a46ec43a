//! Replays the corpus of each target, and goes a little further from there: inputs changed at random, with a seed that is
//! told. So every test run is a short fuzz run, without the fuzzer's sight of which code is reached.
//!
//! `CHRONOS_FUZZ_RUNS=1000000 CHRONOS_SEED=7 cargo test --release --lib fuzz` goes further or replays; with
//! `CHRONOS_FUZZ_TARGET=table` one target alone.
//! `CHRONOS_FUZZ_SEEDS=1 cargo test --lib fuzz` writes the seeds of each target into its corpus.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::{TARGETS, Target};
use crate::codec::Rng;

/// Random inputs of each target in the test command, divided by what one costs.
const RUNS: u64 = 5_000;

/// Changed inputs stay shorter than this: nothing is found with length alone.
const MAX_BYTES: usize = 4 << 10;

/// All files of all corpora.
const MAX_CORPUS_BYTES: usize = 300_000;

fn directory(target: &Target) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target.name)
}

/// The inputs with their names, in the order of those.
fn corpus(target: &Target) -> Vec<(String, Vec<u8>)> {
    let files = fs::read_dir(directory(target)).unwrap().map(|entry| entry.unwrap().path());
    let input = |path: PathBuf| (path.file_name().unwrap().to_string_lossy().into_owned(), fs::read(path).unwrap());
    let mut inputs: Vec<_> = files.map(input).collect();
    inputs.sort();
    inputs
}

/// Runs a target; if that panics, says with what.
fn run(target: &Target, input: &[u8], origin: &str) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| (target.run)(input))) {
        eprintln!("{}: {origin}: \"{}\"", target.name, input.escape_ascii());
        resume_unwind(panic);
    }
}

fn number_from_env(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |text| text.parse().expect("a number"))
}

#[test]
fn the_corpus_holds() {
    let mut bytes = 0;
    for target in TARGETS {
        if std::env::var_os("CHRONOS_FUZZ_SEEDS").is_some() {
            fs::create_dir_all(directory(target)).unwrap();
            for (n, seed) in (target.seeds)().iter().enumerate() {
                fs::write(directory(target).join(format!("seed-{n:02}")), seed).unwrap();
            }
        }
        let inputs = corpus(target);
        assert!(!inputs.is_empty(), "{} has no corpus", target.name);
        for (name, input) in inputs {
            bytes += input.len();
            run(target, &input, &name);
        }
        (target.seeds)().iter().for_each(|seed| run(target, seed, "a seed"));
    }
    assert!(bytes <= MAX_CORPUS_BYTES, "{bytes} bytes of corpus: minimise it, see fuzz/README.md");
}

#[test]
fn what_is_near_the_corpus_holds() {
    let seed = number_from_env("CHRONOS_SEED", 1);
    let runs = number_from_env("CHRONOS_FUZZ_RUNS", RUNS);
    let only = std::env::var("CHRONOS_FUZZ_TARGET").ok();
    assert!(only.as_ref().is_none_or(|name| TARGETS.iter().any(|target| target.name == name)), "no target {only:?}");
    for target in TARGETS.iter().filter(|target| only.as_ref().is_none_or(|name| target.name == name)) {
        let began = Instant::now();
        let inputs: Vec<Vec<u8>> = corpus(target).into_iter().map(|(_, input)| input).chain((target.seeds)()).collect();
        let mut rng = Rng::new(seed);
        for n in 0..runs / target.cost {
            let input = changed(&inputs, &mut rng);
            run(target, &input, &format!("run {n} of CHRONOS_SEED={seed}"));
        }
        println!("{}: {} runs in {:.1?}", target.name, runs / target.cost, began.elapsed());
    }
}

/// One input with a few changes.
fn changed(inputs: &[Vec<u8>], rng: &mut Rng) -> Vec<u8> {
    /// Where lengths and numbers turn.
    const EDGES: [u8; 10] = [0, 1, 2, 0x7f, 0x80, 0xff, b'\n', b'\r', b'"', b' '];
    let mut input = rng.pick(inputs).clone();
    for _ in 0..=rng.below(4) {
        let at = rng.below(input.len() as u64 + 1) as usize;
        let end = (at + rng.below(9) as usize).min(input.len());
        match rng.below(7) {
            0 => drop(input.drain(at..end)),
            1 => input.insert(at, rng.next_u64() as u8),
            2 => {
                let other = rng.pick(inputs);
                let from = rng.below(other.len() as u64 + 1) as usize;
                let len = rng.below((other.len() - from) as u64 + 1) as usize;
                input.splice(at..end, other[from..from + len].iter().copied());
            }
            3 => input.get_mut(at).into_iter().for_each(|byte| *byte ^= 1 << rng.below(8)),
            4 => input.get_mut(at).into_iter().for_each(|byte| *byte = *rng.pick(&EDGES)),
            5 => input[at..end].fill(*rng.pick(&EDGES)),
            _ => input.get_mut(at).into_iter().for_each(|byte| *byte = byte.wrapping_add(rng.below(35) as u8)),
        }
    }
    input.truncate(MAX_BYTES);
    input
}
