//! What this thread has been given by the allocator: what the engine says that it takes is held against it.

/// What `make` makes, and how many bytes more are allocated than before.
pub(crate) fn held<T>(make: impl FnOnce() -> T) -> (T, usize) {
    let mut made = None;
    let counts = allocation_counter::measure(|| made = Some(make()));
    (made.expect("it was called"), usize::try_from(counts.bytes_current).unwrap_or(0))
}

/// An estimate is not far below what is held, nor far above; a few KiB do not count.
#[track_caller]
pub(crate) fn assert_near(what: &str, told: usize, held: usize) {
    const SLACK: usize = 4 << 10;
    assert!(
        told + SLACK >= held / 10 * 9 && told <= held / 10 * 12 + SLACK,
        "{what}: {told} bytes are told, {held} are held"
    );
}
