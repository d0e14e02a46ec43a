//! `--pipe`: loads RESP or lines from stdin at full speed. Replies are counted, errors shown.

use std::io::{self, IsTerminal, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::protocol::reply_reader::Value;

use super::asked::Asked;
use super::connection::{Connection, Requests};
use super::counter::{Damage, RequestCounter};
use super::failure::Failure;
use super::options::Server;
use super::pipeline::{self, Input};
use super::printer::{complain, each_error, has_error};
use super::session::Session;

/// How many error replies are shown in full.
const SHOWN: u64 = 5;

/// How often the progress line is renewed: often enough to look alive.
const PROGRESS_EVERY: Duration = Duration::from_millis(200);

/// Loads stdin; `false` if anything was answered with an error.
pub(crate) fn run(server: &Server) -> Result<bool, Failure> {
    let mut stdin = io::stdin();
    let mut first = [0];
    let len = read_first(&mut stdin, &mut first).map_err(Failure::Input)?;
    let requests = if first[..len] == *b"*" { Requests::Arrays } else { Requests::Lines };
    let mut connection = Connection::open(server, requests)?;

    let sent = Arc::new(AtomicU64::new(0));
    let mut cutter = Cutter { counter: RequestCounter::new(), damaged: false, sent: sent.clone() };
    let input = io::Cursor::new(first[..len].to_vec()).chain(stdin);
    let batches = pipeline::spawn(input, connection.handle()?, move |input, out| cutter.cut(input, out));

    let mut progress = Progress::new(sent);
    let ended = take_replies(&mut connection, batches.iter(), &mut progress);
    progress.finish()?;
    ended?;
    Ok(progress.errors == 0)
}

fn read_first(stdin: &mut io::Stdin, first: &mut [u8; 1]) -> io::Result<usize> {
    loop {
        match stdin.read(first) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            read => return read,
        }
    }
}

fn take_replies(
    connection: &mut Connection,
    batches: impl Iterator<Item = io::Result<Batch>>,
    progress: &mut Progress,
) -> Result<(), Failure> {
    for batch in batches {
        let Batch { requests, damage } = batch.map_err(Failure::Input)?;
        for _ in 0..requests {
            let value = loop {
                match connection.receive()? {
                    Value::Push(_) => {}
                    value => break value,
                }
            };
            progress.reply(value);
        }
        if let Some(Damage { at, what }) = damage {
            return Err(Failure::Damaged { at, what });
        }
    }
    Ok(())
}

/// A chunk of stdin, as far as its answers go.
struct Batch {
    requests: u64,
    damage: Option<Damage>,
}

/// Passes chunks of stdin on and counts the requests in them, up to the first damage.
struct Cutter {
    counter: RequestCounter,
    damaged: bool,
    sent: Arc<AtomicU64>,
}

impl Cutter {
    fn cut(&mut self, input: Input<'_>, out: &mut Vec<u8>) -> Batch {
        if self.damaged {
            return Batch { requests: 0, damage: None };
        }
        let (requests, damage) = match input {
            Input::Bytes(bytes) => {
                out.extend_from_slice(bytes);
                self.counter.count(bytes)
            }
            Input::End => match self.counter.end() {
                Ok(false) => (0, None),
                Ok(true) => {
                    out.push(b'\n');
                    (1, None)
                }
                Err(damage) => (0, Some(damage)),
            },
        };
        self.damaged = damage.is_some();
        self.sent.fetch_add(out.len() as u64, Ordering::Relaxed);
        Batch { requests, damage }
    }
}

/// Counts, and shows them while a person watches.
struct Progress {
    began: Instant,
    shown: Instant,
    on_terminal: bool,
    sent: Arc<AtomicU64>,
    replies: u64,
    errors: u64,
}

impl Progress {
    fn new(sent: Arc<AtomicU64>) -> Progress {
        let now = Instant::now();
        Progress { began: now, shown: now, on_terminal: io::stderr().is_terminal(), sent, replies: 0, errors: 0 }
    }

    fn reply(&mut self, value: Value) {
        self.replies += 1;
        // Most replies are `+OK`, and need no second look.
        if matches!(value, Value::Error(_) | Value::Array(_)) {
            self.look_for_error(value);
        }
        // A look at the clock for each of a million replies would be felt.
        if self.on_terminal && self.replies.is_multiple_of(256) && self.shown.elapsed() >= PROGRESS_EVERY {
            self.shown = Instant::now();
            self.overwrite(&self.line());
        }
    }

    fn look_for_error(&mut self, value: Value) {
        let reply = Session::new(0).understand(&Asked::PLAIN, value);
        if !has_error(&reply) {
            return;
        }
        self.errors += 1;
        if self.errors <= SHOWN {
            self.overwrite("");
            each_error(&reply, &mut |text| complain(&format!("request {}: {text}", self.replies)));
        }
    }

    fn line(&self) -> String {
        let seconds = self.began.elapsed().as_secs_f64();
        let (replies, errors, bytes) = (self.replies, self.errors, self.sent.load(Ordering::Relaxed));
        let rate = replies as f64 / seconds.max(1e-6);
        format!("errors: {errors}, replies: {replies}, bytes: {bytes}, {seconds:.1} s, {rate:.0} replies/s")
    }

    /// Replaces the progress line; stderr is decoration here, so its errors are not worth a failure.
    fn overwrite(&self, line: &str) {
        if self.on_terminal {
            let _ = write!(io::stderr(), "\r\x1b[K{line}");
        }
    }

    fn finish(&self) -> Result<(), Failure> {
        self.overwrite("");
        let mut out = io::stdout();
        writeln!(out, "{}", self.line()).and_then(|()| out.flush()).map_err(Failure::output)
    }
}
