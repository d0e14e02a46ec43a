//! Whole reads and writes out of system calls that may do only a part, or be interrupted before they do any.

use std::io;

use rustix::io::Errno;

/// Writes all of `bytes`, however few of them one call takes.
pub(super) fn write_whole(
    mut bytes: &[u8],
    mut offset: u64,
    mut write: impl FnMut(&[u8], u64) -> Result<usize, Errno>,
) -> io::Result<()> {
    while !bytes.is_empty() {
        match write(bytes, offset) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => {
                bytes = &bytes[count..];
                offset += count as u64;
            }
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

/// Reads until `buffer` is full or the file ends; returns how many bytes.
pub(super) fn read_whole(
    buffer: &mut [u8],
    offset: u64,
    mut read: impl FnMut(&mut [u8], u64) -> Result<usize, Errno>,
) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match read(&mut buffer[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;

    use super::*;

    #[test]
    fn short_and_interrupted_writes_go_on_and_a_write_of_nothing_is_an_error() {
        let script = [Ok(2), Err(Errno::INTR), Ok(1), Ok(3)];
        let mut calls = Vec::new();
        write_whole(b"abcdef", 10, |bytes, offset| {
            calls.push((bytes.to_vec(), offset));
            script[calls.len() - 1]
        })
        .unwrap();
        let expected: [(&[u8], u64); 4] = [(b"abcdef", 10), (b"cdef", 12), (b"cdef", 12), (b"def", 13)];
        assert!(calls.iter().map(|(bytes, offset)| (&bytes[..], *offset)).eq(expected), "{calls:?}");

        assert_eq!(write_whole(b"a", 0, |_, _| Ok(0)).unwrap_err().kind(), ErrorKind::WriteZero);
        assert_eq!(write_whole(b"a", 0, |_, _| Err(Errno::NOSPC)).unwrap_err().kind(), ErrorKind::StorageFull);
    }

    #[test]
    fn short_and_interrupted_reads_go_on_until_full_or_at_the_end() {
        let script = [Ok(2), Err(Errno::INTR), Ok(1), Ok(0)];
        let mut offsets = Vec::new();
        let mut buffer = [0; 6];
        let count = read_whole(&mut buffer, 10, |_, offset| {
            offsets.push(offset);
            script[offsets.len() - 1]
        });
        assert_eq!(count.unwrap(), 3);
        assert_eq!(offsets, [10, 12, 12, 13]);
        assert!(read_whole(&mut buffer, 0, |_, _| Err(Errno::IO)).is_err());
    }
}
