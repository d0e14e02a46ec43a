//! Seeded defects: mistakes that others have made, or that would be easy to make, each to be put into the engine on
//! purpose so that its tests can be tested. `tests/defects/` does that.
//!
//! Only a build with the feature `seeded-defects` has them, one at a time: the one that `CHRONOS_DEFECT` names. In every
//! other build [`seeded`] is `false` for the compiler too, and nothing of them is left.

macro_rules! defects {
    ($($(#[doc = $what:literal])+ $name:ident,)+) => {
        /// What can be made wrong.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Defect {
            $($(#[doc = $what])+ $name,)+
        }

        #[cfg(feature = "seeded-defects")]
        const ALL: &[Defect] = &[$(Defect::$name),+];
    };
}

defects! {
    /// the log is not synced, and said to be
    LogNotSynced,
    /// a group is acknowledged when it is written, and synced later
    AcknowledgedUnsynced,
    /// a group is acknowledged before it is written
    AcknowledgedUnwritten,
    /// a sync of the log that has failed is tried again
    SyncRetried,
    /// after a failed append the next goes behind what it may have left
    AppendedBehindFailure,
    /// what failed is not taken back out of the memtables
    FailedGroupKept,
    /// a failed segment is not closed in the manifest
    FailedSegmentOpen,
    /// a failed segment is closed behind the group that failed
    FailedSegmentTooLong,
    /// of the writers of a group that failed only the last is told
    FailureToldToOne,
    /// a memtable forgets versions that somebody may still read
    OverwrittenForgotten,
    /// a new segment is used before its name is durable
    SegmentNotNamed,
    /// the log goes on in a new segment before the last one is synced
    SegmentLeftUnsynced,
    /// an idle log does not say that its last group is durable
    MarkerNotWritten,
    /// a record of the log says that it is itself durable
    WatermarkTooHigh,
    /// a read-modify-write goes by what it read, whatever came in between
    UpdateByStaleRead,
    /// a replayed log is believed before it is synced
    ReplayNotSynced,
    /// a torn tail is taken for damage
    TornTailRefused,
    /// damage that a later record has told to be durable is taken for a torn tail
    HoleAccepted,
    /// that a closed segment ends too early is not noticed
    ShortSegmentAccepted,
    /// that positions are missing between two groups is not noticed
    MissingPositionsAccepted,
    /// that the log ends before what it says was durable is not noticed
    LostEndAccepted,
    /// a segment in use of which the manifest has lost the edit is not noticed
    UnlistedSegmentAccepted,
    /// a start gives out numbers that files have had
    FileNumberReused,
    /// the numbers of files that a failed edit would have added are given out again
    FailedNumberReused,
    /// a start deletes what the old manifest names before the new one is in force
    LeftoversDeletedEarly,
    /// where a full disk takes no new manifest, the old one is not synced
    OldManifestNotSynced,
    /// an edit of the manifest is not synced
    EditNotSynced,
    /// `CURRENT` names a manifest whose own name is not durable
    ManifestNotNamed,
    /// `CURRENT` is renamed before it is synced
    CurrentNotSynced,
    /// the old manifest is deleted before the new `CURRENT` is durable
    CurrentNotNamed,
    /// tables are deleted before the edit that drops them is durable
    TablesDeletedEarly,
    /// what a failed edit would have added is deleted before it is known that it has failed
    DoubtfulDeletedEarly,
    /// a segment is dropped when it is closed, whatever of it is in tables
    SegmentDroppedEarly,
    /// the manifest says that one position more is in tables
    FlushedTooHigh,
    /// a table is not synced before the edit that adds it
    TableNotSynced,
    /// a table is added before its name is durable
    TableNotNamed,
    /// a tombstone is dropped although an older value lies below
    TombstoneDroppedEarly,
    /// a value that has expired is dropped, and an older one below comes back
    ExpiredUncovers,
    /// what a snapshot still shows is dropped
    SnapshotForgotten,
    /// a snapshot's position is read before the list of snapshots is locked
    SnapshotPositionEarly,
    /// a snapshot that is too old is marked after the floor has passed it
    ReleaseMarkedLate,
    /// a flush leaves out range tombstones
    RangesNotFlushed,
    /// a table is cut at its last key although a range tombstone begins there
    RangeCutAtLastKey,
    /// a table that begins with the last key of another is not merged with it
    OverlapMissed,
    /// a Bloom filter lacks the last key of its partition
    FilterWithoutLastKey,
    /// an index sends readers of a block's last key to the next block
    SeparatorTooSmall,
    /// of equal keys the oldest comes first out of a merge
    OldestFirstInMerge,
    /// a blob file goes with the first table that pointed into it
    BlobDeletedEarly,
    /// a block is not held against its checksum
    ChecksumIgnored,
    /// a block's checksum does not tell where the block belongs
    ChecksumWithoutPlace,
    /// a record of another file is taken for one of this
    SaltIgnored,
    /// tables of level 0 are searched oldest first
    OldestFirstInLevel0,
    /// a memtable that waits to be flushed is not searched
    SealedNotSearched,
    /// a table is not searched for its first key
    FirstKeyNotSearched,
    /// a value lives a millisecond longer than it should
    ExpiryLate,
    /// replies do not wait for what they tell of
    ReplyNotHeldBack,
    /// what a reply tells of is not looked up once more before it goes
    ReplyNotLookedUpAgain,
    /// history has a group a millisecond late
    HistoryLate,
    /// a table that a checkpoint has to copy is not synced
    CheckpointNotSynced,
    /// closing does not wait for a compaction that a caller runs
    CompactionOutlivesClose,
    /// a file that was still read when the database was closed is deleted afterwards
    DeletedAfterClose,
}

/// Whether the engine is to make this mistake.
#[cfg(not(feature = "seeded-defects"))]
#[inline(always)]
pub(crate) const fn seeded(_: Defect) -> bool {
    false
}

/// Whether the engine is to make this mistake: the one that `CHRONOS_DEFECT` names.
#[cfg(feature = "seeded-defects")]
pub(crate) fn seeded(defect: Defect) -> bool {
    static CHOSEN: std::sync::OnceLock<Option<Defect>> = std::sync::OnceLock::new();
    let choose = || {
        let name = std::env::var("CHRONOS_DEFECT").ok()?;
        let chosen = ALL.iter().find(|defect| format!("{defect:?}") == name);
        // A name that is none would make every test pass.
        Some(*chosen.expect("CHRONOS_DEFECT is the name of a defect"))
    };
    *CHOSEN.get_or_init(choose) == Some(defect)
}
