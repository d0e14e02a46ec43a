//! Which tests find which seeded defect. The defects are those of `src/codec/defect.rs`; `tests/tidy.rs` holds the two, the
//! engine, and `docs/durability.md` together.

const CRASH: &str = "crash::every_crash_point_keeps_what_was_acknowledged";
const UNSYNCED: &str = "crash::without_a_sync_before_each_reply_a_crash_takes_only_the_newest";
const GROUPS: &str = "crash::of_groups_that_were_not_synced_none_is_there_without_those_before";
const BELIEVED: &str = "crash::what_a_killed_process_had_not_synced_is_durable_once_the_next_one_shows_it";
const FAULTS: &str = "faults::whatever_call_fails_nothing_acknowledged_is_lost_and_nothing_refused_appears";
const FULL_DISK: &str = "full_disk::a_start_on_a_disk_that_takes_no_writes_serves_reads_and_resumes";
const MODEL: &str = "model::random_operations_give_what_the_model_gives";
const FLIPS: &str = "damage::every_byte_flipped";
const CUTS: &str = "damage::every_file_cut_to_every_length";
const RESTARTED: &str = "damage::every_byte_of_the_log_flipped_and_every_length_after_a_restart";
const TOLD: &str = "damage::every_record_of_the_log_telling_of_a_later_position";
const ASTRAY: &str = "damage::every_block_in_the_place_of_another";
const OLDER: &str = "damage::every_older_copy_in_the_place_of_a_file";
const HISTORY: &str = "history::every_time_within_the_window_shows_what_was_there";
const CHECKPOINT: &str = "checkpoint::a_checkpoint_that_fails_leaves_nothing_and_one_that_cannot_link_copies";
const WRITERS: &str = "threads::when_the_log_fails_once_under_many_writers_exactly_the_acknowledged_writes_are_there";
const UPDATES: &str = "embed::an_update_sees_what_was_written_while_it_read";
const REPAIR: &str = "repair::every_byte_flipped_costs_no_more_than_its_block_or_record";
const QUARANTINE: &str = "quarantine::other_keys_serve_and_compaction_goes_round_it";
const LINEARIZABILITY: &str = "linearizability::every_history_has_an_explanation";
const TAKEN: &str = "schedules::snapshots::a_snapshot_that_is_taken_while_its_key_is_overwritten_shows_its_position";
const RELEASED: &str =
    "schedules::snapshots::a_snapshot_that_is_released_while_it_is_read_shows_its_position_or_nothing";
const REPLIES: &str = "schedules::replies::replies_come_once_in_order_and_true";
const COMPACTING: &str =
    "schedules::closing::who_compacts_while_another_closes_is_at_an_end_when_the_directory_is_free";
const STILL_READ: &str = "limits::what_is_still_read_when_a_database_is_closed_is_left_to_the_next_start";
const VALUES_STILL_READ: &str =
    "limits::blob_files_that_are_still_read_when_a_database_is_closed_are_left_to_the_next_start";

/// Each defect, and tests that must fail of it: every one of them.
pub const CAUGHT_BY: &[(&str, &[&str])] = &[
    ("LogNotSynced", &[CRASH]),
    ("AcknowledgedUnsynced", &[CRASH]),
    ("AcknowledgedUnwritten", &[WRITERS]),
    ("SyncRetried", &[FAULTS]),
    ("AppendedBehindFailure", &[FAULTS]),
    ("FailedGroupKept", &[FAULTS]),
    ("FailedSegmentOpen", &[FAULTS]),
    ("FailedSegmentTooLong", &[FAULTS]),
    ("FailureToldToOne", &[WRITERS]),
    ("OverwrittenForgotten", &[MODEL, HISTORY]),
    ("SegmentNotNamed", &[CRASH]),
    ("SegmentLeftUnsynced", &[GROUPS]),
    ("MarkerNotWritten", &[FLIPS]),
    ("WatermarkTooHigh", &[GROUPS]),
    ("UpdateByStaleRead", &[UPDATES]),
    ("ReplayNotSynced", &[BELIEVED]),
    ("TornTailRefused", &[CRASH]),
    ("HoleAccepted", &[FLIPS]),
    ("ShortSegmentAccepted", &[RESTARTED]),
    ("MissingPositionsAccepted", &[OLDER]),
    ("LostEndAccepted", &[TOLD]),
    ("UnlistedSegmentAccepted", &[CUTS]),
    ("FileNumberReused", &[CRASH]),
    ("FailedNumberReused", &[FAULTS]),
    ("LeftoversDeletedEarly", &[CRASH, FULL_DISK]),
    ("OldManifestNotSynced", &[FULL_DISK]),
    ("EditNotSynced", &[CRASH]),
    ("ManifestNotNamed", &[CRASH]),
    ("CurrentNotSynced", &[CRASH]),
    ("CurrentNotNamed", &[CRASH]),
    ("TablesDeletedEarly", &[CRASH]),
    ("DoubtfulDeletedEarly", &[FAULTS]),
    ("SegmentDroppedEarly", &[CRASH]),
    ("FlushedTooHigh", &[CRASH]),
    ("TableNotSynced", &[CRASH]),
    ("TableNotNamed", &[CRASH]),
    ("TombstoneDroppedEarly", &[MODEL]),
    ("ExpiredUncovers", &[MODEL]),
    ("SnapshotForgotten", &[MODEL, HISTORY]),
    ("SnapshotPositionEarly", &[TAKEN]),
    ("ReleaseMarkedLate", &[RELEASED]),
    ("RangesNotFlushed", &[MODEL]),
    ("RangeCutAtLastKey", &[MODEL]),
    ("OverlapMissed", &[MODEL]),
    ("FilterWithoutLastKey", &[MODEL]),
    ("SeparatorTooSmall", &[MODEL]),
    ("OldestFirstInMerge", &[MODEL]),
    ("BlobDeletedEarly", &[MODEL]),
    ("ChecksumIgnored", &[FLIPS, REPAIR, QUARANTINE]),
    ("ChecksumWithoutPlace", &[ASTRAY]),
    ("SaltIgnored", &[UNSYNCED]),
    ("OldestFirstInLevel0", &[MODEL]),
    ("SealedNotSearched", &[MODEL]),
    ("FirstKeyNotSearched", &[MODEL]),
    ("ExpiryLate", &[HISTORY]),
    ("ReplyNotHeldBack", &[LINEARIZABILITY]),
    ("ReplyNotLookedUpAgain", &[REPLIES]),
    ("HistoryLate", &[HISTORY]),
    ("CheckpointNotSynced", &[CHECKPOINT]),
    ("CompactionOutlivesClose", &[COMPACTING]),
    ("DeletedAfterClose", &[STILL_READ, VALUES_STILL_READ]),
];
