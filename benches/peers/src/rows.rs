//! The rows of the table: what is done, with how much memory, by how many threads.

use rand::RngExt;

use crate::work::{self, Op, SCAN, Ycsb};

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    FillSequential,
    FillRandom,
    Overwrite,
    Get,
    GetAbsent,
    Scan,
    Ycsb(Ycsb),
}

/// How much memory the engine may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Memory {
    /// What was asked for.
    Given,
    /// Twice the data at least.
    Plenty,
    /// A tenth of the data.
    Tenth,
}

/// One row.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    pub name: &'static str,
    pub work: Work,
    pub memory: Memory,
    pub threads: usize,
    /// Whether each write is synced before it is acknowledged.
    pub synced: bool,
    /// One operation of all threads together for so many keys.
    pub keys_per_op: u32,
    /// Ahead of the best peer by this much is what is aimed at.
    pub aim: f64,
}

const PLAIN: Row = Row {
    name: "",
    work: Work::FillSequential,
    memory: Memory::Given,
    threads: 1,
    synced: false,
    keys_per_op: 1,
    aim: 1.0,
};

pub const ROWS: [Row; 17] = [
    Row { name: "fill-sequential", ..PLAIN },
    Row { name: "fill-random", work: Work::FillRandom, ..PLAIN },
    Row { name: "overwrite", work: Work::Overwrite, ..PLAIN },
    Row { name: "get", work: Work::Get, memory: Memory::Plenty, ..PLAIN },
    Row { name: "get-absent", work: Work::GetAbsent, memory: Memory::Plenty, aim: 1.3, ..PLAIN },
    Row { name: "scan-50", work: Work::Scan, memory: Memory::Plenty, keys_per_op: 20, ..PLAIN },
    Row { name: "get-10x", work: Work::Get, memory: Memory::Tenth, ..PLAIN },
    Row { name: "get-absent-10x", work: Work::GetAbsent, memory: Memory::Tenth, aim: 1.3, ..PLAIN },
    Row { name: "scan-50-10x", work: Work::Scan, memory: Memory::Tenth, keys_per_op: 20, ..PLAIN },
    Row { name: "ycsb-a", work: Work::Ycsb(Ycsb::A), threads: 2, ..PLAIN },
    Row { name: "ycsb-b", work: Work::Ycsb(Ycsb::B), threads: 2, ..PLAIN },
    Row { name: "ycsb-c", work: Work::Ycsb(Ycsb::C), threads: 2, ..PLAIN },
    Row { name: "ycsb-d", work: Work::Ycsb(Ycsb::D), threads: 2, ..PLAIN },
    Row { name: "ycsb-e", work: Work::Ycsb(Ycsb::E), threads: 2, keys_per_op: 20, ..PLAIN },
    Row { name: "ycsb-f", work: Work::Ycsb(Ycsb::F), threads: 2, ..PLAIN },
    Row { name: "durable-1", work: Work::FillRandom, synced: true, keys_per_op: 200, aim: 1.3, ..PLAIN },
    Row { name: "durable-16", work: Work::FillRandom, threads: 16, synced: true, keys_per_op: 50, aim: 1.3, ..PLAIN },
];

impl Row {
    pub fn named(name: &str) -> Option<Row> {
        ROWS.into_iter().find(|row| row.name == name)
    }

    /// Whether it begins with all keys in place.
    pub fn on_full(&self) -> bool {
        !matches!(self.work, Work::FillSequential | Work::FillRandom)
    }

    pub fn writes(&self) -> bool {
        !matches!(self.work, Work::Get | Work::GetAbsent | Work::Scan | Work::Ycsb(Ycsb::C))
    }

    /// Whether a read must see what was written a moment ago.
    pub fn is_mixed(&self) -> bool {
        self.writes() && matches!(self.work, Work::Ycsb(_))
    }

    /// What each thread does, drawn beforehand.
    pub fn operations(&self, keys: u32) -> Vec<Vec<Op>> {
        let count = (keys / self.keys_per_op) as usize / self.threads;
        let order = match self.work {
            Work::FillSequential => (0..keys).collect(),
            Work::FillRandom => work::shuffled(keys, 11),
            _ => Vec::new(),
        };
        (0..self.threads)
            .map(|thread| {
                let mut rng = work::random(100 + thread as u64);
                let mut any = || rng.random_range(0..keys);
                match self.work {
                    Work::FillSequential | Work::FillRandom => {
                        order[thread * count..][..count].iter().map(|number| Op::Put(*number)).collect()
                    }
                    Work::Overwrite => (0..count).map(|_| Op::Put(any())).collect(),
                    Work::Get => (0..count).map(|_| Op::Get(any())).collect(),
                    Work::GetAbsent => (0..count).map(|_| Op::GetAbsent(any())).collect(),
                    Work::Scan => (0..count).map(|_| Op::Scan(any(), SCAN)).collect(),
                    Work::Ycsb(workload) => work::ycsb(workload, keys, count, 100 + thread as u64),
                }
            })
            .collect()
    }
}
