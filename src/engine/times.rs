//! When each position of history was committed, as far as the history window reaches.
//!
//! Each log group has one time, that at which it is written: after its changes were made, and before anybody is told that
//! they are durable. A *sample* says "everything up to here was committed by then"; groups of one millisecond share one.
//! So the position that was the newest at a time is that of the last sample not after it, exactly.
//!
//! **How many.** Samples are kept exactly while there are at most [`MAX_SAMPLES`] in the window. When there are more, they
//! are thinned: time is cut into cells, twice as long until half as many samples are left, and of each cell the *last* one
//! stays. Then an answer may lack what was committed within the cell before the time asked for, and never has anything
//! that came after it. A cell is at most a 16,384th of the window long: with 131,072 samples in two windows (more are not
//! kept even when the clock was stepped back by a whole one), halving them takes cells of a 32,768th, rounded up to a
//! power of two.
//!
//! **The clock.** Times never run backwards. While the wall clock is behind the newest time (it was stepped back), time
//! stands still; if it is behind by more than the window, one of the two is plainly wrong, and history begins anew at what
//! the clock says. A millisecond that has passed is never added to, so what was once told of it stays.
//!
//! **Where they survive.** In the log, with each group; and in the manifest from the edit on that says that the group is in
//! tables, which is the edit that may drop it from the log (see [`super::catalog`]).

use std::collections::VecDeque;

use super::SeqNo;

/// Two mebibytes of memory, and about a quarter of that in the manifest.
pub(crate) const MAX_SAMPLES: usize = 1 << 17;

/// A position, and a time in milliseconds since 1970 by which everything up to it was committed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Moment {
    pub(crate) seq: SeqNo,
    pub(crate) time: u64,
}

/// What the manifest is to learn.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Unrecorded {
    pub(crate) samples: Vec<Moment>,
    pub(crate) oldest: Option<Moment>,
}

/// See the module's text.
#[derive(Debug)]
pub(crate) struct Times {
    window: u64,
    /// The oldest that can be read: every position from here on, as of every time from here on. What lies before may have
    /// been dropped. Only ever rises, unless history begins anew.
    oldest: Moment,
    /// Ascending by position and by time, each after `oldest` by position.
    samples: VecDeque<Moment>,
    /// No millisecond up to this one gets anything more.
    told: u64,
    /// Up to where the manifest has the samples, and the oldest moment that it has.
    recorded: SeqNo,
    recorded_oldest: Option<Moment>,
}

impl Times {
    /// A window of so many milliseconds, of which nothing before `oldest` is left.
    pub(crate) fn new(window: u64, oldest: Moment) -> Times {
        Times { window, oldest, samples: VecDeque::new(), told: 0, recorded: SeqNo(0), recorded_oldest: None }
    }

    pub(crate) fn oldest(&self) -> Moment {
        self.oldest
    }

    pub(crate) fn window(&self) -> u64 {
        self.window
    }

    pub(crate) fn len(&self) -> usize {
        self.samples.len()
    }

    fn newest(&self) -> Moment {
        self.samples.back().copied().unwrap_or(self.oldest)
    }

    /// The time that it is in history when the clock says `now`.
    pub(crate) fn present(&self, now: u64) -> u64 {
        if self.is_far_behind(now) { now } else { now.max(self.newest_time()) }
    }

    fn newest_time(&self) -> u64 {
        self.samples.back().map_or(0, |sample| sample.time)
    }

    fn is_far_behind(&self, now: u64) -> bool {
        now.saturating_add(self.window) < self.newest_time()
    }

    /// The log writes everything up to `seq`: at which time.
    pub(crate) fn stamp(&mut self, seq: SeqNo, now: u64) -> u64 {
        if self.is_far_behind(now) {
            self.told = 0;
        }
        let time = self.present(now).max(self.told.saturating_add(1));
        self.push(Moment { seq, time });
        time
    }

    /// After a start: what no sample reaches of `upto` positions counts as committed now.
    pub(crate) fn stamp_rest(&mut self, upto: SeqNo, now: u64) {
        if upto > self.newest().seq {
            self.stamp(upto, now);
        }
    }

    /// Adds a sample, in the order of positions. A time before that of the one before says that history began anew.
    pub(crate) fn push(&mut self, sample: Moment) {
        let newest = self.newest();
        if sample.seq <= newest.seq {
            return;
        }
        if sample.time < self.newest_time() {
            self.oldest = Moment { seq: newest.seq, time: sample.time };
            self.samples.clear();
        }
        if self.newest_time() == sample.time {
            self.samples.pop_back();
        }
        self.samples.push_back(sample);
        if self.samples.len() > MAX_SAMPLES {
            self.thin();
        }
    }

    fn thin(&mut self) {
        let mut cell = 2;
        while self.samples.len() > MAX_SAMPLES / 2 && cell <= self.window {
            let mut kept: VecDeque<Moment> = VecDeque::with_capacity(self.samples.len());
            for sample in &self.samples {
                if kept.back().is_some_and(|last| last.time / cell == sample.time / cell) {
                    kept.pop_back();
                }
                kept.push_back(*sample);
            }
            self.samples = kept;
            cell *= 2;
        }
    }

    /// What lies before the window that ends `now` is given up.
    pub(crate) fn advance(&mut self, now: u64) {
        self.oldest.time = self.oldest.time.max(now.saturating_sub(self.window));
        while let Some(passed) = self.samples.front().filter(|sample| sample.time <= self.oldest.time) {
            self.oldest.seq = passed.seq;
            self.samples.pop_front();
        }
    }

    /// The newest position that was committed by `when`, if that is within what can be read.
    pub(crate) fn position_at(&mut self, when: u64, now: u64) -> Option<SeqNo> {
        if when < self.oldest.time || when > self.present(now) {
            return None;
        }
        // The present millisecond may get more.
        self.told = self.told.max(when.min(now.saturating_sub(1)));
        let after = self.samples.partition_point(|sample| sample.time <= when);
        Some(after.checked_sub(1).map_or(self.oldest.seq, |at| self.samples[at].seq))
    }

    /// By when position `seq` was committed; `None` if that was before what can be read, or the log has not written it
    /// yet.
    pub(crate) fn time_of(&self, seq: SeqNo) -> Option<u64> {
        let at = self.samples.partition_point(|sample| sample.seq < seq);
        self.samples.get(at).filter(|_| seq > self.oldest.seq).map(|sample| sample.time)
    }

    /// Positions after this one have failed.
    pub(crate) fn take_back(&mut self, after: SeqNo) {
        while self.samples.back().is_some_and(|sample| sample.seq > after) {
            self.samples.pop_back();
        }
        // What is readable at the one is what is readable at the other.
        self.oldest.seq = self.oldest.seq.min(after);
    }

    /// What the manifest does not have yet and has to, once it says that everything up to `flushed` is in tables.
    pub(crate) fn unrecorded(&self, flushed: SeqNo) -> Unrecorded {
        let new = |sample: &&Moment| sample.seq > self.recorded && sample.seq <= flushed;
        Unrecorded {
            samples: self.samples.iter().filter(new).copied().collect(),
            oldest: Some(self.oldest).filter(|_| self.recorded_oldest != Some(self.oldest)),
        }
    }

    /// The manifest has these.
    pub(crate) fn note_recorded(&mut self, recorded: &Unrecorded) {
        if let Some(newest) = recorded.samples.last() {
            self.recorded = self.recorded.max(newest.seq);
        }
        self.recorded_oldest = recorded.oldest.or(self.recorded_oldest);
    }

    /// What the manifest has, for one that is begun anew.
    pub(crate) fn recorded(&self) -> Unrecorded {
        Unrecorded {
            samples: self.samples.iter().filter(|sample| sample.seq <= self.recorded).copied().collect(),
            oldest: self.recorded_oldest,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seq: u64, time: u64) -> Moment {
        Moment { seq: SeqNo(seq), time }
    }

    #[test]
    fn a_time_leads_to_the_newest_position_committed_by_then() {
        let mut times = Times::new(1_000, at(10, 5_000));
        assert_eq!(
            [(11, 5_001), (13, 5_001), (20, 5_100)].map(|(seq, now)| times.stamp(SeqNo(seq), now)),
            [5_001, 5_001, 5_100]
        );
        let mut position = |when| times.position_at(when, 5_200).map(|seq| seq.0);
        assert_eq!(
            [4_999, 5_000, 5_001, 5_099, 5_100, 5_200].map(&mut position),
            [None, Some(10), Some(13), Some(13), Some(20), Some(20)]
        );
        assert_eq!(position(5_201), None, "that is to come");
        assert_eq!(
            [10, 11, 13, 14, 20, 21].map(|seq| times.time_of(SeqNo(seq))),
            [None, Some(5_001), Some(5_001), Some(5_100), Some(5_100), None]
        );
    }

    #[test]
    fn after_a_start_what_no_sample_reaches_was_committed_now() {
        let mut times = Times::new(1_000, at(10, 5_000));
        times.stamp_rest(SeqNo(10), 5_300);
        assert_eq!((times.window(), times.len()), (1_000, 0), "it is the oldest");
        times.stamp_rest(SeqNo(12), 5_400);
        times.stamp_rest(SeqNo(11), 5_500);
        assert_eq!(times.len(), 1);
        assert_eq!([11, 12, 13].map(|seq| times.time_of(SeqNo(seq))), [Some(5_400), Some(5_400), None]);
        times.stamp_rest(SeqNo(13), 5_600);
        assert_eq!((times.len(), times.time_of(SeqNo(13))), (2, Some(5_600)));
    }

    #[test]
    fn the_window_gives_up_what_is_older_and_never_takes_it_back() {
        let mut times = Times::new(1_000, at(10, 5_000));
        let stamped = [(11, 5_100), (12, 5_200), (13, 5_300)].map(|(seq, now)| times.stamp(SeqNo(seq), now));
        assert_eq!(stamped, [5_100, 5_200, 5_300]);
        times.advance(6_250);
        assert_eq!((times.oldest(), times.len()), (at(12, 5_250), 1));
        assert_eq!(
            [5_249, 5_250, 5_300].map(|when| times.position_at(when, 6_250)),
            [None, Some(SeqNo(12)), Some(SeqNo(13))]
        );
        times.advance(6_000);
        assert_eq!(times.oldest(), at(12, 5_250));
    }

    #[test]
    fn time_stands_still_while_the_clock_is_behind_and_begins_anew_if_that_is_by_more_than_the_window() {
        let mut times = Times::new(1_000, at(1, 5_000));
        assert_eq!(times.stamp(SeqNo(2), 8_000), 8_000);
        assert_eq!(times.stamp(SeqNo(3), 7_000), 8_000);
        assert_eq!(times.position_at(7_999, 7_001), Some(SeqNo(1)));
        assert_eq!(times.position_at(8_000, 7_001), Some(SeqNo(3)));
        assert_eq!(times.stamp(SeqNo(4), 6_999), 6_999);
        assert_eq!(times.oldest(), at(3, 6_999));
        assert_eq!([6_998, 6_999, 8_000].map(|when| times.position_at(when, 7_000)), [None, Some(SeqNo(4)), None]);
    }

    #[test]
    fn what_was_told_of_a_time_stays_although_the_clock_is_stepped_back() {
        let mut times = Times::new(1_000, at(1, 5_000));
        times.stamp(SeqNo(2), 5_100);
        assert_eq!(times.position_at(5_400, 5_500), Some(SeqNo(2)));
        assert_eq!(times.stamp(SeqNo(3), 5_200), 5_401);
        assert_eq!(times.position_at(5_400, 5_500), Some(SeqNo(2)));
    }

    #[test]
    fn thinning_keeps_the_last_of_each_cell_and_forgets_nothing_longer_than_a_cell() {
        let window = 10_000_000;
        let mut times = Times::new(window, at(0, 0));
        let mut stamped = Vec::new();
        for n in 1..=3 * MAX_SAMPLES as u64 {
            // Bursts with silence between them.
            let now = n * 7 + n / 1_000 * 40_000;
            times.stamp(SeqNo(n), now);
            stamped.push(at(n, now));
            assert!(times.len() <= MAX_SAMPLES);
        }
        let now = stamped.last().unwrap().time;
        let cell = window / 16_384;
        let newest_by =
            |when| stamped[..stamped.partition_point(|sample| sample.time <= when)].last().map_or(0, |s| s.seq.0);
        let mut thinned = 0;
        for when in (0..now).step_by(3_001) {
            let told = times.position_at(when, now).unwrap().0;
            assert!(told <= newest_by(when) && told >= newest_by(when.saturating_sub(cell)), "{told} at {when}");
            thinned += u64::from(told < newest_by(when));
        }
        assert!(thinned > 0);
    }

    #[test]
    fn the_manifest_gets_each_sample_once_and_none_of_what_is_not_flushed() {
        let mut times = Times::new(1_000, at(1, 5_000));
        for (seq, now) in [(2, 5_001), (4, 5_002), (6, 5_003)] {
            times.stamp(SeqNo(seq), now);
        }
        let first = times.unrecorded(SeqNo(5));
        assert_eq!(first, Unrecorded { samples: vec![at(2, 5_001), at(4, 5_002)], oldest: Some(at(1, 5_000)) });
        times.note_recorded(&first);
        assert_eq!(times.recorded(), first);
        assert_eq!(times.unrecorded(SeqNo(5)), Unrecorded::default());
        times.take_back(SeqNo(5));
        assert_eq!(times.stamp(SeqNo(8), 5_004), 5_004);
        assert_eq!(times.unrecorded(SeqNo(9)), Unrecorded { samples: vec![at(8, 5_004)], oldest: None });
    }

    #[test]
    fn as_many_samples_as_there_may_be_are_exact() {
        let most = MAX_SAMPLES as u64;
        let mut times = Times::new(1 << 40, at(0, 0));
        for n in 1..=most {
            times.stamp(SeqNo(n), n);
        }
        assert_eq!(times.len(), MAX_SAMPLES);
        assert!((1..=most).step_by(997).all(|n| times.position_at(n, most + 1) == Some(SeqNo(n))));
        times.stamp(SeqNo(most + 1), most + 1);
        assert!(times.len() <= MAX_SAMPLES);
    }

    #[test]
    fn what_is_taken_back_is_what_comes_after_and_no_more() {
        let mut times = Times::new(1_000, at(1, 5_000));
        for (seq, now) in [(2, 5_001), (4, 5_002), (6, 5_003)] {
            times.stamp(SeqNo(seq), now);
        }
        times.take_back(SeqNo(4));
        assert_eq!([4, 5].map(|seq| times.time_of(SeqNo(seq))), [Some(5_002), None]);
        assert_eq!(times.position_at(5_003, 5_004), Some(SeqNo(4)));
        times.take_back(SeqNo(0));
        assert_eq!((times.oldest(), times.len()), (at(0, 5_000), 0));
    }
}
