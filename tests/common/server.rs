//! The real server as a process that can be killed.

#![allow(dead_code, reason = "each test binary uses its own part")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::path::Path;
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

/// A server that is ready.
pub struct Server {
    process: Process,
    pub addr: String,
    /// What it had logged when it was ready.
    pub log: String,
    rest: Option<JoinHandle<String>>,
}

/// Killed when dropped, so that a failed test leaves nothing behind.
pub struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The server on `dir`, not started yet.
pub fn command(dir: &Path, flags: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_chronos-server"));
    command.args(["--port", "0", "--dir"]).arg(dir).args(flags);
    command
}

impl Process {
    fn start(mut command: Command) -> (Process, BufReader<ChildStderr>) {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        (Process(child), stderr)
    }
}

impl Server {
    /// Starts it on `dir`. After whatever has happened there it must become ready by itself.
    pub fn start(dir: &Path, flags: &[&str]) -> Server {
        Server::run(command(dir, flags))
    }

    /// As [`Server::start`], with whatever `command` does around it.
    pub fn run(command: Command) -> Server {
        Server::try_run(command).unwrap_or_else(|(status, log)| panic!("the server did not start: {status}\n{log}"))
    }

    /// As [`Server::run`]; how it ended and what it logged if it did not become ready.
    pub fn try_run(command: Command) -> Result<Server, (ExitStatus, String)> {
        let (mut process, mut stderr) = Process::start(command);
        let mut log = String::new();
        let addr = loop {
            let from = log.len();
            if stderr.read_line(&mut log).unwrap() == 0 {
                return Err((process.0.wait().unwrap(), log));
            }
            if let Some((_, addr)) = log[from..].split_once("addr=").filter(|_| log[from..].contains("ready")) {
                break addr.split(' ').next().unwrap().to_owned();
            }
        };
        let rest = thread::spawn(move || {
            let mut rest = String::new();
            stderr.read_to_string(&mut rest).unwrap();
            rest
        });
        Ok(Server { process, addr, log, rest: Some(rest) })
    }

    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.process.0)
    }

    /// How many changes it took from the log when it started.
    pub fn replayed(&self) -> u64 {
        let line = self.log.lines().find(|line| line.contains("recovered")).expect("it says what it recovered");
        line.split_once("changes=").unwrap().1.split(' ').next().unwrap().parse().unwrap()
    }

    /// Sends a script and reads what is answered until the server closes.
    pub fn converse(&self, script: &str) -> String {
        let mut client = TcpStream::connect(&self.addr).unwrap();
        client.write_all(script.as_bytes()).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let mut output = String::new();
        client.read_to_string(&mut output).unwrap();
        output
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    /// Waits for the end, after a signal: how it ended, and all that it logged.
    pub fn wait(self) -> (ExitStatus, String) {
        let (status, log) = self.wait_after_panic();
        assert!(!log.contains("internal error"), "{log}");
        (status, log)
    }

    /// As [`Server::wait`], for a server that may end as none should.
    pub fn wait_after_panic(mut self) -> (ExitStatus, String) {
        let log = self.log + &self.rest.take().unwrap().join().unwrap();
        (self.process.0.wait().unwrap(), log)
    }

    /// As [`Server::wait`], for a server that had nothing to complain of.
    pub fn wait_in_peace(self) -> (ExitStatus, String) {
        let (status, log) = self.wait();
        assert!(!log.contains("ERROR"), "{log}");
        (status, log)
    }
}

/// Starts a server on `dir` and does not wait until it is ready. What it says is not read: it is not to live long.
pub fn spawn(dir: &Path, flags: &[&str]) -> Process {
    Process::start(command(dir, flags)).0
}

/// Starts a server and kills it after `time`, wherever in its recovery it then is.
pub fn kill_while_starting(dir: &Path, flags: &[&str], time: Duration) {
    let (mut process, _stderr) = Process::start(command(dir, flags));
    // A random moment is no event that could be awaited.
    thread::sleep(time);
    assert!(process.0.try_wait().unwrap().is_none(), "it ended by itself");
}
