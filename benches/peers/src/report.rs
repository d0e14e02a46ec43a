//! What a run has measured, as a line between processes and as rows of a table.

use std::collections::BTreeMap;
use std::fmt::Write;

use crate::engines::Result;
use crate::rows::Row;

/// One run of one engine.
#[derive(Clone, Debug, Default)]
pub struct Measured {
    pub operations: u64,
    pub seconds: f64,
    /// p50, p99 and p99.9 in microseconds.
    pub quantiles: [f64; 3],
    pub worst: f64,
    /// Processor time for each operation, background threads included, in microseconds.
    pub cpu_us: f64,
    /// Bytes written to the disk for each byte of keys and values, background work that was left included.
    pub write_amplification: f64,
    /// Bytes on the disk for each byte of keys and values, right after the last operation ...
    pub space_busy: f64,
    /// ... and after background work has come to rest.
    pub space: f64,
    /// The most memory the process had.
    pub resident_mib: f64,
}

impl Measured {
    fn fields(&self) -> [f64; 11] {
        let [p50, p99, p999] = self.quantiles;
        let (work, amplified) = ([self.operations as f64, self.seconds], [self.write_amplification, self.space_busy]);
        [
            work[0],
            work[1],
            p50,
            p99,
            p999,
            self.worst,
            self.cpu_us,
            amplified[0],
            amplified[1],
            self.space,
            self.resident_mib,
        ]
    }

    /// The names of [`Measured::line`]'s columns.
    pub const COLUMNS: &str = "operations seconds p50us p99us p99.9us worstus cpuus write-amp space-busy space rssMiB";

    pub fn line(&self) -> String {
        self.fields().map(|field| format!("{field:.6}")).join(" ")
    }

    pub fn parse(line: &str) -> Result<Measured> {
        let fields: Vec<f64> = line.split_whitespace().map(str::parse).collect::<std::result::Result<_, _>>()?;
        let [operations, seconds, p50, p99, p999, worst, cpu_us, write_amplification, space_busy, space, resident_mib] =
            fields[..]
        else {
            return Err(format!("not a measurement: {line}").into());
        };
        Ok(Measured {
            operations: operations as u64,
            seconds,
            quantiles: [p50, p99, p999],
            worst,
            cpu_us,
            write_amplification,
            space_busy,
            space,
            resident_mib,
        })
    }

    fn rate(&self) -> f64 {
        self.operations as f64 / self.seconds
    }
}

/// All runs of a row by engine.
pub type Runs = BTreeMap<&'static str, Vec<Measured>>;

fn median(runs: &[Measured], what: impl Fn(&Measured) -> f64) -> f64 {
    let mut values: Vec<f64> = runs.iter().map(what).collect();
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => 0.0,
        len if len % 2 == 1 => values[len / 2],
        len => (values[len / 2 - 1] + values[len / 2]) / 2.0,
    }
}

fn grouped(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// The tables, in Markdown.
pub fn tables(rows: &[(Row, Runs)], engines: &[&'static str]) -> String {
    let head = |last: &str| {
        let names: String = engines.iter().map(|name| format!(" {name} |")).collect();
        format!("| |{names}{last}\n|---|{}{}\n", "---|".repeat(engines.len()), "---|".repeat(last.matches('|').count()))
    };
    let mut text = String::from("Operations per second:\n\n");
    text += &head(" to the best peer | aimed at |");
    for (row, runs) in rows {
        let rate = |engine: &str| runs.get(engine).map_or(0.0, |runs| median(runs, Measured::rate));
        let peers = engines.iter().filter(|name| **name != "chronos").map(|name| rate(name));
        let ratio = rate("chronos") / peers.fold(f64::NAN, f64::max);
        let cells: String = engines.iter().map(|name| format!(" {} |", grouped(rate(name)))).collect();
        let bold = if ratio < row.aim { "**" } else { "" };
        _ = writeln!(text, "| {} |{cells} {bold}{ratio:.2}{bold} | {} |", row.name, row.aim);
    }
    let mut table = |title: &str, only: fn(&Row) -> bool, cell: &dyn Fn(&[Measured]) -> String| {
        _ = write!(text, "\n{title}:\n\n{}", head(""));
        for (row, runs) in rows.iter().filter(|(row, _)| only(row)) {
            let cells: String =
                engines.iter().map(|name| format!(" {} |", cell(runs.get(name).map_or(&[], |runs| runs)))).collect();
            _ = writeln!(text, "| {} |{cells}", row.name);
        }
    };
    table("Latency in microseconds, p50 / p99 / p99.9", |_| true, &|runs| {
        [0, 1, 2].map(|at| format!("{:.1}", median(runs, |run| run.quantiles[at]))).join(" / ")
    });
    table("Processor time for each operation in microseconds, background work included", |_| true, &|runs| {
        format!("{:.2}", median(runs, |run| run.cpu_us))
    });
    table("Bytes written for each byte given", Row::writes, &|runs| {
        format!("{:.2}", median(runs, |run| run.write_amplification))
    });
    table("Bytes on the disk for each live byte, at the end of the work / at rest", Row::writes, &|runs| {
        [median(runs, |run| run.space_busy), median(runs, |run| run.space)]
            .map(|ratio| format!("{ratio:.2}"))
            .join(" / ")
    });
    table("Most memory of the process in MiB", |_| true, &|runs| {
        format!("{:.0}", median(runs, |run| run.resident_mib))
    });
    text
}
