//! One engine doing one row, in a process of its own, so that memory, input and output, and caches are its own.

use std::fs;
use std::path::Path;
use std::sync::Barrier;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use rand::RngExt;

use crate::engines::{self, Engine, Reader, Result, Settings};
use crate::report::Measured;
use crate::rows::Row;
use crate::work::{self, KEY, LONGEST_REST, Op, REST, VALUE, Values};

/// Puts of one batch when a database is prepared.
const LOAD: usize = 10_000;

/// Before reads are timed, one key in so many is read: each block of 35 keys some times.
const WARM_UP: u32 = 4;

/// Fills a database in random order and merges it.
pub fn prepare(engine: &str, directory: &Path, keys: u32, memory: usize) -> Result<()> {
    fs::create_dir_all(directory)?;
    let engine = engines::open(engine, directory, Settings { memory, synced: false })?;
    let values = Values::new();
    for numbers in work::shuffled(keys, 7).chunks(LOAD) {
        let pairs: Vec<_> = numbers.iter().map(|number| (work::key(*number), values.of(*number, 0))).collect();
        engine.load(&pairs)?;
    }
    engine.compact()
}

/// Runs a row in `directory`, which has the prepared database if the row begins with one.
pub fn run(engine: &str, row: Row, directory: &Path, keys: u32, settings: Settings, cap: Duration) -> Result<Measured> {
    fs::create_dir_all(directory)?;
    let engine = engines::open(engine, directory, settings)?;
    let (operations, values) = (row.operations(keys), Values::new());
    if row.on_full() {
        let mut rng = work::random(5);
        let mut reader = engine.reader()?;
        for _ in 0..keys / WARM_UP {
            let found = reader.get(&work::key(rng.random_range(0..keys)))?;
            if found != Some(VALUE) {
                return Err(format!("a key that must be there has {found:?}").into());
            }
        }
    }
    let (before, cpu_before) = (written()?, cpu()?);
    let world = World { engine: &*engine, values: &values, row, newest: AtomicU32::new(keys), keys, cap };
    let (seconds, latencies, puts) = world.run(operations)?;
    let (cpu, disk_busy) = (cpu()? - cpu_before, disk_bytes(directory)?);
    if row.writes() {
        engine.flush()?;
        rest()?;
    }
    let resident = status("VmHWM:")?;
    let (wrote, disk) = (written()? - before, disk_bytes(directory)?);
    Ok(Measured {
        operations: latencies.len(),
        seconds,
        quantiles: [0.5, 0.99, 0.999].map(|quantile| latencies.value_at_quantile(quantile) as f64 / 1e3),
        worst: latencies.max() as f64 / 1e3,
        cpu_us: cpu * 1e6 / latencies.len().max(1) as f64,
        write_amplification: if puts > 0 { wrote as f64 / (puts * (KEY + VALUE) as u64) as f64 } else { 0.0 },
        space_busy: disk_busy as f64 / world.live_bytes(puts) as f64,
        space: disk as f64 / world.live_bytes(puts) as f64,
        resident_mib: resident as f64 / 1024.0,
    })
}

struct World<'a> {
    engine: &'a dyn Engine,
    values: &'a Values,
    row: Row,
    /// The number of the next key to be inserted.
    newest: AtomicU32,
    keys: u32,
    cap: Duration,
}

/// What one thread has done.
struct Done {
    latencies: Histogram<u64>,
    puts: u64,
    started: Instant,
    ended: Instant,
}

impl World<'_> {
    /// Seconds, latencies in nanoseconds, and how many puts there were.
    fn run(&self, operations: Vec<Vec<Op>>) -> Result<(f64, Histogram<u64>, u64)> {
        let start = Barrier::new(operations.len() + 1);
        std::thread::scope(|scope| {
            let threads: Vec<_> = operations
                .iter()
                .map(|operations| {
                    let start = &start;
                    scope.spawn(move || {
                        let reader = self.engine.reader();
                        start.wait();
                        self.work(operations, reader?)
                    })
                })
                .collect();
            start.wait();
            let mut latencies = Histogram::new(3)?;
            let mut puts = 0;
            let mut span: Option<(Instant, Instant)> = None;
            for thread in threads {
                let done = thread.join().map_err(|_| "a thread has panicked")??;
                latencies.add(done.latencies)?;
                puts += done.puts;
                let (from, to) = span.unwrap_or((done.started, done.ended));
                span = Some((from.min(done.started), to.max(done.ended)));
            }
            let seconds = span.map_or(0.0, |(from, to)| (to - from).as_secs_f64());
            Ok((seconds, latencies, puts))
        })
    }

    fn work(&self, operations: &[Op], mut reader: Box<dyn Reader + '_>) -> Result<Done> {
        let mut latencies = Histogram::new(3)?;
        let mut puts = 0;
        let started = Instant::now();
        let mut ended = started;
        for (version, op) in operations.iter().enumerate() {
            let begun = Instant::now();
            puts += self.step(*op, version as u32 + 1, &mut *reader)?;
            ended = Instant::now();
            latencies.record((ended - begun).as_nanos() as u64)?;
            if ended - started > self.cap {
                break;
            }
        }
        Ok(Done { latencies, puts, started, ended })
    }

    /// How many keys it has set.
    fn step(&self, op: Op, version: u32, reader: &mut dyn Reader) -> Result<u64> {
        if self.row.is_mixed() && !matches!(op, Op::Put(_) | Op::Insert) {
            reader.refresh()?;
        }
        match op {
            Op::Put(number) => self.engine.put(&work::key(number), &self.values.of(number, version)).map(|()| 1),
            Op::Insert => {
                // In two steps: whoever reads the newest key must find it.
                let number = self.newest.fetch_add(1, Ordering::Relaxed);
                self.engine.put(&work::key(number), &self.values.of(number, version)).map(|()| 1)
            }
            Op::Get(number) => expect(reader.get(&work::key(number))?, true).map(|()| 0),
            Op::GetAbsent(number) => expect(reader.get(&work::absent_key(number))?, false).map(|()| 0),
            Op::GetRecent(back) => {
                // The newest may be another thread's that is not in yet: it may be absent.
                let number = self.newest.load(Ordering::Relaxed) - 1 - back;
                reader.get(&work::key(number)).map(|_| 0)
            }
            Op::Scan(number, count) => {
                let seen = reader.scan(&work::key(number), count as usize)?;
                let there = (self.keys - number).min(count) as usize;
                if seen < there { Err(format!("a scan gave {seen} entries of {there}").into()) } else { Ok(0) }
            }
            Op::Modify(number) => {
                expect(reader.get(&work::key(number))?, true)?;
                self.engine.put(&work::key(number), &self.values.of(number, version)).map(|()| 1)
            }
        }
    }

    /// Keys and values that are there in the end.
    fn live_bytes(&self, puts: u64) -> u64 {
        let keys = if self.row.on_full() { u64::from(self.newest.load(Ordering::Relaxed)) } else { puts };
        keys.max(1) * (KEY + VALUE) as u64
    }
}

fn expect(found: Option<usize>, present: bool) -> Result<()> {
    if found == present.then_some(VALUE) { Ok(()) } else { Err(format!("a read gave {found:?}").into()) }
}

/// Waits until nothing has been written for a while.
fn rest() -> Result<()> {
    let began = Instant::now();
    let (mut last, mut since) = (written()?, Instant::now());
    while since.elapsed() < REST.1 && began.elapsed() < LONGEST_REST {
        std::thread::sleep(REST.0);
        let now = written()?;
        if now != last {
            (last, since) = (now, Instant::now());
        }
    }
    Ok(())
}

/// Bytes that this process has caused to be written to the disk.
fn written() -> Result<u64> {
    number_behind(&fs::read_to_string("/proc/self/io")?, "write_bytes:")
}

/// Of `/proc/self/status`, in KiB.
fn status(name: &str) -> Result<u64> {
    number_behind(&fs::read_to_string("/proc/self/status")?, name)
}

fn number_behind(text: &str, name: &str) -> Result<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let word = line.and_then(|rest| rest.split_whitespace().next());
    Ok(word.ok_or_else(|| format!("there is no {name}"))?.parse()?)
}

/// Seconds of processor time of all threads so far.
fn cpu() -> Result<f64> {
    // Behind the name, which may have spaces: state, and from there the 12th and 13th, in hundredths of a second.
    let stat = fs::read_to_string("/proc/self/stat")?;
    let rest = stat.rsplit(')').next().unwrap_or_default();
    let ticks: Vec<u64> = rest.split_whitespace().skip(11).take(2).filter_map(|word| word.parse().ok()).collect();
    Ok(ticks.iter().sum::<u64>() as f64 / 100.0)
}

/// What the files take on the disk. One that goes away meanwhile takes nothing.
fn disk_bytes(directory: &Path) -> Result<u64> {
    use std::os::unix::fs::MetadataExt;
    let mut bytes = 0;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => bytes += disk_bytes(&entry.path())?,
            Ok(metadata) => bytes += 512 * metadata.blocks(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(bytes)
}
