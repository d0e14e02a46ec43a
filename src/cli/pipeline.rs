//! Stdin to the server at full speed, while another thread reads the replies.
//!
//! ```text
//! stdin --> cut into requests --+--> socket              the writing thread
//!                               |
//!                               +--> batches --> receive replies, print      the caller's
//! ```
//!
//! Neither side may wait for the other in a circle: the server stops reading requests when its replies are not taken,
//! so replies are taken by a thread that never writes. A batch is announced **before** its bytes are written, and all
//! batches before it have been written by then; so whoever holds a batch can wait for its replies, and a full channel
//! means that replies are still to come. What is in flight is bounded by the channel.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;

/// Bytes read from stdin at once: a batch.
const CHUNK: usize = 64 << 10;

/// Batches announced and not yet taken up. With those in hand and in writing, some 400 KiB of requests are in flight:
/// enough to keep a server busy, little enough that one that stops is noticed.
const BATCHES: usize = 4;

/// What `cut` is given.
pub(crate) enum Input<'a> {
    Bytes(&'a [u8]),
    End,
}

/// Starts the writing thread. `cut` turns input into the bytes to send, which it appends, and says in a batch what
/// will be answered. The batches end when the input does, or when the connection can no longer be written to; then
/// whoever reads it finds out why. The thread is not waited for: at the end of the process it may still sit in a read.
pub(crate) fn spawn<B: Send + 'static>(
    mut input: impl Read + Send + 'static,
    mut to: TcpStream,
    mut cut: impl FnMut(Input<'_>, &mut Vec<u8>) -> B + Send + 'static,
) -> Receiver<io::Result<B>> {
    let (batches, receiver) = sync_channel(BATCHES);
    thread::spawn(move || {
        let mut chunk = vec![0; CHUNK];
        let mut out = Vec::new();
        loop {
            let read = match input.read(&mut chunk) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    // The receiver is gone only if the run has ended anyway.
                    let _ = batches.send(Err(error));
                    return;
                }
                Ok(read) => read,
            };
            out.clear();
            let batch = cut(if read == 0 { Input::End } else { Input::Bytes(&chunk[..read]) }, &mut out);
            if batches.send(Ok(batch)).is_err() || to.write_all(&out).is_err() || read == 0 {
                return;
            }
        }
    });
    receiver
}
