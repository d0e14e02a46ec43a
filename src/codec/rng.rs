//! A small random generator that can be replayed: the same seed gives the same numbers on every machine, for ever.
//!
//! For tests, crash images and skip decisions; nothing secret may come from it. The algorithm is SplitMix64 (Steele, Lea
//! and Flood, "Fast Splittable Pseudorandom Number Generators", OOPSLA 2014; constants as in
//! <https://prng.di.unimi.it/splitmix64.c>, public domain): a counter and a mixing function, so any seed is a good one.

/// A SplitMix64 generator.
///
/// ```
/// use chronos::codec::Rng;
///
/// let (mut one, mut other) = (Rng::new(7), Rng::new(7));
/// assert_eq!(one.next_u64(), other.next_u64());
/// assert!(one.below(6) < 6);
/// ```
#[derive(Clone, Debug)]
pub struct Rng {
    state: u64,
}

impl Rng {
    /// A generator that is a pure function of `seed`.
    pub fn new(seed: u64) -> Rng {
        Rng { state: seed }
    }

    /// The next 64 random bits.
    pub fn next_u64(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number in `0..bound`. Panics if `bound` is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        assert!(bound > 0, "there is no number below 0");
        // Multiply and take the high half (Lemire 2019). The bias is at most bound / 2^64: nothing a test could see.
        ((u128::from(self.next_u64()) * u128::from(bound)) >> 64) as u64
    }

    /// Yes in `part` of `whole` cases: `chance(1, 4)` is a quarter. Panics if `whole` is 0.
    pub fn chance(&mut self, part: u64, whole: u64) -> bool {
        self.below(whole) < part
    }

    /// One of `choices`. Panics if there are none.
    pub fn pick<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        &choices[self.below(choices.len() as u64) as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gives_the_published_numbers() {
        // Output of the reference implementation for seed 1234567.
        let mut rng = Rng::new(1_234_567);
        let expected: [u64; 5] = [
            6_457_827_717_110_365_317,
            3_203_168_211_198_807_973,
            9_817_491_932_198_370_423,
            4_593_380_528_125_082_431,
            16_408_922_859_458_223_821,
        ];
        assert_eq!(expected.map(|_| rng.next_u64()), expected);
    }

    #[test]
    fn below_reaches_every_number_and_none_beyond() {
        let mut rng = Rng::new(0);
        let mut seen = [0u32; 7];
        for _ in 0..7_000 {
            seen[rng.below(7) as usize] += 1;
        }
        assert!(seen.iter().all(|&count| (800..1_200).contains(&count)), "{seen:?}");
    }

    #[test]
    fn chance_follows_its_odds_and_the_certain_cases_are_certain() {
        let mut rng = Rng::new(3);
        let quarter = (0..4_000).filter(|_| rng.chance(1, 4)).count();
        assert!((850..1_150).contains(&quarter), "{quarter}");
        assert!((0..100).all(|_| !rng.chance(0, 5) && rng.chance(5, 5)));
    }
}
