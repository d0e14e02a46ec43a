//! A bell that ends another thread's `poll`.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;

/// One listener polls [`Wake::source`], anybody rings. A socket pair: the one such thing that every Unix has and that
/// needs no unsafe code.
pub(crate) struct Wake {
    ringer: UnixStream,
    source: UnixStream,
}

impl Wake {
    pub(crate) fn new() -> io::Result<Wake> {
        let (ringer, source) = UnixStream::pair()?;
        ringer.set_nonblocking(true)?;
        source.set_nonblocking(true)?;
        Ok(Wake { ringer, source })
    }

    /// Makes the source readable. Never blocks: a full pipe means that it is readable already.
    pub(crate) fn ring(&self) {
        let _ = (&self.ringer).write(&[1]);
    }

    /// What to poll for reading.
    pub(crate) fn source(&self) -> &UnixStream {
        &self.source
    }

    /// Silences the bell. To be called before looking at what it was rung for, so that no ring is lost.
    pub(crate) fn silence(&self) {
        let mut rings = [0; 64];
        while matches!((&self.source).read(&mut rings), Ok(n) if n == rings.len()) {}
    }
}
