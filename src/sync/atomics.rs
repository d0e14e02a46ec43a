//! Atomics before each call of which another thread may come.

use std::sync::atomic::Ordering;

use super::step;

macro_rules! atomic {
    ($name:ident, $value:ty, $($only:ident),*) => {
        #[derive(Debug, Default)]
        pub(crate) struct $name(std::sync::atomic::$name);

        #[allow(dead_code, reason = "each type has all calls")]
        impl $name {
            pub(crate) const fn new(value: $value) -> $name {
                $name(std::sync::atomic::$name::new(value))
            }

            pub(crate) fn load(&self, order: Ordering) -> $value {
                step();
                self.0.load(order)
            }

            pub(crate) fn store(&self, value: $value, order: Ordering) {
                step();
                self.0.store(value, order);
            }

            pub(crate) fn swap(&self, value: $value, order: Ordering) -> $value {
                step();
                self.0.swap(value, order)
            }

            $(pub(crate) fn $only(&self, value: $value, order: Ordering) -> $value {
                step();
                self.0.$only(value, order)
            })*
        }
    };
}

atomic!(AtomicBool, bool, fetch_or, fetch_and);
atomic!(AtomicU32, u32, fetch_add, fetch_sub, fetch_max);
atomic!(AtomicU64, u64, fetch_add, fetch_sub, fetch_max);
atomic!(AtomicUsize, usize, fetch_add, fetch_sub, fetch_max);
