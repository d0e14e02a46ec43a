//! When the entries of a table expire, told in four numbers however many they are.
//!
//! Every n-th expiry is kept; when there are too many, every second of them goes and n doubles. Entries come in key
//! order, which has little to do with time, so what is kept is a fair sample.

/// Expiries kept at most: quartiles then are right to a few hundredths.
const MAX_KEPT: usize = 1024;

/// A sample of expiry times.
#[derive(Debug)]
pub(crate) struct Expiries {
    kept: Vec<u64>,
    every: u64,
    seen: u64,
}

impl Default for Expiries {
    fn default() -> Expiries {
        Expiries { kept: Vec::new(), every: 1, seen: 0 }
    }
}

impl Expiries {
    pub(crate) fn add(&mut self, expires_at: u64) {
        if self.seen.is_multiple_of(self.every) {
            if self.kept.len() == MAX_KEPT {
                let mut nth = 0;
                self.kept.retain(|_| {
                    nth += 1;
                    nth % 2 == 1
                });
                // The one that comes is again a multiple: an even number of them was kept.
                self.every *= 2;
            }
            self.kept.push(expires_at);
        }
        self.seen += 1;
    }

    pub(crate) fn count(&self) -> u64 {
        self.seen
    }

    /// Until when a quarter, a half, three quarters and all of them have expired, about; zeros if there are none.
    pub(crate) fn quartiles(mut self) -> [u64; 4] {
        self.kept.sort_unstable();
        [1, 2, 3, 4].map(|quarter| match self.kept.len() {
            0 => 0,
            len => self.kept[(len * quarter).div_ceil(4) - 1],
        })
    }
}

const _: () = assert!(MAX_KEPT.is_multiple_of(2));

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quartiles_are_times_that_came_and_about_right_for_any_number_of_them() {
        let of = |times: &mut dyn Iterator<Item = u64>| {
            let mut expiries = Expiries::default();
            times.for_each(|at| expiries.add(at));
            expiries.quartiles()
        };
        assert_eq!(of(&mut [].into_iter()), [0; 4]);
        assert_eq!(of(&mut [7].into_iter()), [7; 4]);
        assert_eq!(of(&mut [8, 2, 6, 4].into_iter()), [2, 4, 6, 8]);
        for count in [1_000, 1_024, 1_025, 5_000, 100_000] {
            // 7 shares no factor with the counts, so every number below comes once.
            let quartiles = of(&mut (0..count).map(|n| n * 7_919 % count));
            for (quarter, at) in (1..).zip(quartiles) {
                let expected = count * quarter / 4;
                assert!(at.abs_diff(expected) <= count / 20, "{count}: quartile {quarter} is {at}");
            }
            // Nor does the order matter in which they come.
            let ascending = of(&mut (0..count));
            for (quarter, at) in (1..).zip(ascending) {
                let expected = count * quarter / 4;
                assert!(at.abs_diff(expected) <= count / 20, "{count}: ascending, quartile {quarter} is {at}");
            }
        }
    }
}
