//! Runs a target of `chronos::fuzz` with no more memory than its input accounts for: what asks for more aborts, and so is
//! found.

use std::alloc::System;
use std::panic;
use std::sync::Once;

use cap::Cap;
use chronos::fuzz;

#[global_allocator]
static MEMORY: Cap<System> = Cap::new(System, usize::MAX);

/// Whatever the input, a target may take this much: caches, simulated disks, what decompression keeps.
const MEMORY_BESIDES: usize = 16 << 20;

/// For each byte of input: one of LZ4 stands for 255 bytes at most, which are then copied some times.
const MEMORY_TIMES: usize = 2 << 10;

/// Runs the target of that name.
pub fn run(name: &str, input: &[u8]) {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let report = panic::take_hook();
        panic::set_hook(Box::new(move |what| {
            // To be told, a panic needs more than that.
            let _ = MEMORY.set_limit(usize::MAX);
            report(what);
        }));
    });
    let target = fuzz::target(name);
    let most = MEMORY.allocated() + MEMORY_BESIDES + MEMORY_TIMES * input.len();
    MEMORY.set_limit(most).expect("more than is allocated now");
    (target.run)(input);
    MEMORY.set_limit(usize::MAX).expect("any amount");
}
