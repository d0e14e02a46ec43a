//! The block cache under threads that look for blocks, keep them, and take from its budget; what happens is in
//! `src/storage/cache_schedules.rs`, since it cannot be seen from outside.

use chronos::cache_schedules;

use super::explore::explore;

#[test]
fn what_is_cached_is_what_was_read_and_never_too_much() {
    explore("what_is_cached_is_what_was_read_and_never_too_much", 6, cache_schedules::what_is_cached_is_what_was_read);
}
