//! INFO: what the server does, in Redis's sections and field names, since monitoring reads them by name.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};

use super::argument::is;
use super::refusal::Refusal;
use super::spec::Flag::{Loading, Stale};
use super::spec::{Answer, Spec};
use super::{Context, REDIS_VERSION};
use crate::engine::Waits;
use crate::protocol::{Reply, Request};

pub(super) const COMMANDS: &[Spec] = &[Spec {
    name: "INFO",
    arity: -1,
    flags: &[Loading, Stale],
    summary: "What the server is and does, section by section",
    syntax: "[section ...]",
    example: "INFO keyspace",
    ..Spec::new(info)
}];

type Section = fn(&mut Context<'_>, &mut String) -> Result<(), Refusal>;

const SECTIONS: &[(&str, Section)] = &[
    ("Server", server),
    ("Clients", clients),
    ("Memory", memory),
    ("Persistence", persistence),
    ("Stats", stats),
    ("Engine", engine),
    ("Replication", replication),
    ("Cluster", cluster),
    ("Keyspace", keyspace),
];

fn info(context: &mut Context<'_>, request: &Request<'_>) -> Answer {
    let mut text = String::new();
    let everything = request.len() == 1
        || request.args(1).any(|word| ["default", "all", "everything"].iter().any(|every| is(word, every)));
    for (name, section) in SECTIONS {
        if everything || request.args(1).any(|word| is(word, name)) {
            if !text.is_empty() {
                text += "\r\n";
            }
            line(&mut text, format_args!("# {name}"));
            section(context, &mut text)?;
        }
    }
    Ok(Reply::Lines(text))
}

fn line(text: &mut String, content: std::fmt::Arguments<'_>) {
    // Writing to a string does not fail.
    let _ = write!(text, "{content}\r\n");
}

fn field(text: &mut String, name: &str, value: impl std::fmt::Display) {
    line(text, format_args!("{name}:{value}"));
}

fn load(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

fn server(context: &mut Context<'_>, text: &mut String) -> Result<(), Refusal> {
    let environment = context.environment;
    let uptime = environment.started.elapsed().as_secs();
    field(text, "redis_version", REDIS_VERSION);
    field(text, "chronos_version", env!("CARGO_PKG_VERSION"));
    field(text, "redis_mode", "standalone");
    field(text, "os", std::env::consts::OS);
    field(text, "arch_bits", usize::BITS);
    field(text, "process_id", std::process::id());
    // One run of one server, as far as clients compare it.
    field(text, "run_id", format_args!("{:020x}{:020x}", environment.started_at_unix_ms, std::process::id()));
    field(text, "tcp_port", environment.port);
    field(text, "server_time_usec", context.keyspace.db.now() * 1000);
    field(text, "uptime_in_seconds", uptime);
    field(text, "uptime_in_days", uptime / (24 * 60 * 60));
    Ok(())
}

fn clients(context: &mut Context<'_>, text: &mut String) -> Result<(), Refusal> {
    field(text, "connected_clients", load(&context.environment.connected_clients));
    field(text, "blocked_clients", 0);
    Ok(())
}

fn memory(context: &mut Context<'_>, text: &mut String) -> Result<(), Refusal> {
    let resident = resident_bytes();
    field(text, "used_memory", resident);
    field(text, "used_memory_human", format_args!("{:.2}M", resident as f64 / f64::from(1 << 20)));
    field(text, "used_memory_rss", resident);
    let memory = context.keyspace.db.stats().memory;
    for (name, bytes) in [
        ("budget", memory.budget),
        ("accounted", memory.total()),
        ("memtables", memory.memtables),
        ("cached_blocks", memory.blocks),
        ("cached_indexes", memory.indexes),
        ("open_tables", memory.tables),
        ("scans", memory.scans),
        ("jobs", memory.jobs),
    ] {
        field(text, &format!("memory_{name}"), bytes);
    }
    field(text, "maxmemory", 0);
    field(text, "maxmemory_policy", "noeviction");
    Ok(())
}

/// What the process holds in memory; 0 where the system does not tell. Not a file of the database, so it does not come
/// through `fs`.
fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = resident.and_then(|text| text.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
    kib.unwrap_or(0) << 10
}

fn persistence(context: &mut Context<'_>, text: &mut String) -> Result<(), Refusal> {
    field(text, "loading", 0);
    field(text, "async_loading", 0);
    field(text, "rdb_changes_since_last_save", 0);
    field(text, "rdb_bgsave_in_progress", 0);
    field(text, "rdb_last_save_time", context.keyspace.flushed_at() / 1000);
    field(text, "rdb_last_bgsave_status", "ok");
    // The log is what an append-only file is to Redis.
    field(text, "aof_enabled", 1);
    field(text, "aof_rewrite_in_progress", 0);
    let stats = context.keyspace.db.stats();
    field(text, "aof_last_write_status", if stats.writes_refused.is_none() { "ok" } else { "err" });
    field(text, "writes_refused", stats.writes_refused.as_deref().unwrap_or("no"));
    field(text, "damaged_tables", stats.damage.len());
    stats.damage.iter().enumerate().for_each(|(n, damage)| field(text, &format!("damage_{n}"), damage));
    Ok(())
}

fn stats(context: &mut Context<'_>, text: &mut String) -> Result<(), Refusal> {
    let environment = context.environment;
    field(text, "total_connections_received", load(&environment.total_connections));
    field(text, "total_commands_processed", load(&environment.total_commands));
    field(text, "rejected_connections", load(&environment.rejected_connections));
    Ok(())
}

/// The tree: what it holds, what it writes, and whether it keeps up. No section of Redis's.
fn engine(context: &mut Context<'_>, text: &mut String) -> Result<(), Refusal> {
    let stats = context.keyspace.db.stats();
    for (level, is) in stats.levels.iter().enumerate() {
        let about = format_args!(
            "tables={},bytes={},entries={},tombstones={},range_tombstones={},written={}",
            is.tables, is.bytes, is.entries, is.tombstones, is.range_tombstones, is.written_bytes
        );
        field(text, &format!("level{level}"), about);
    }
    for (level, is) in stats.levels.iter().enumerate() {
        let reads = is.reads;
        let about = format_args!(
            "asked={},filtered={},false_positives={},cached_blocks={},read_blocks={},read_indexes={}",
            reads.asked,
            reads.filtered,
            reads.false_positives,
            reads.cached_blocks,
            reads.read_blocks,
            reads.read_indexes
        );
        field(text, &format!("reads{level}"), about);
    }
    let blobs = stats.blobs;
    let about = format_args!("files={},bytes={},garbage={}", blobs.files, blobs.bytes, blobs.garbage_bytes);
    field(text, "blobs", about);
    field(text, "memtable_bytes", stats.memtable_bytes);
    field(text, "sealed_memtables", stats.sealed_memtables);
    field(text, "log_bytes", stats.log_bytes);
    field(text, "log_groups", stats.log.groups());
    let sizes = stats.log.group_sizes.iter().enumerate().filter(|(_, count)| **count > 0);
    let sizes: Vec<String> = sizes.map(|(size, count)| format!("{}={count}", 1u64 << size)).collect();
    field(text, "log_group_sizes", sizes.join(","));
    field(text, "log_written_bytes", stats.log.written_bytes);
    let Waits { count, total_us, longest_us } = stats.log.syncs;
    field(text, "log_syncs", format_args!("syncs={count},us={total_us},longest_us={longest_us}"));
    field(text, "log_position", stats.log.position.0);
    field(text, "log_synced_position", stats.log.synced.0);
    field(text, "user_bytes", stats.user_bytes);
    field(text, "flushes", stats.flushes);
    field(text, "flushed_bytes", stats.flushed_bytes);
    field(text, "compaction_merges", stats.compactions);
    field(text, "compaction_moves", stats.moves);
    field(text, "compaction_drops", stats.drops);
    for (reason, count) in stats.compaction_reasons {
        field(text, &format!("compactions_for_{reason}"), count);
    }
    field(text, "compaction_read_bytes", stats.compaction_read_bytes);
    field(text, "compaction_written_bytes", stats.compaction_written_bytes);
    field(text, "write_amplification", format_args!("{:.2}", stats.write_amplification()));
    for level in 0..stats.levels.len() {
        let about = format_args!("{:.2}", stats.write_amplification_of(level));
        field(text, &format!("write_amplification{level}"), about);
    }
    for (name, waits) in [
        ("writes_delayed", stats.delays),
        ("writes_waited_for_flush", stats.flush_waits),
        ("writes_waited_for_log", stats.log_waits),
    ] {
        let about = format_args!("writes={},us={},longest_us={}", waits.count, waits.total_us, waits.longest_us);
        field(text, name, about);
    }
    field(text, "cache_bytes", stats.cache_bytes);
    field(text, "cache_hits", stats.cache_hits);
    field(text, "cache_misses", stats.cache_misses);
    field(text, "snapshots", stats.snapshots.len());
    if let Some(oldest) = stats.snapshots.iter().max_by_key(|snapshot| snapshot.age_ms) {
        let owner = if oldest.owner.is_empty() { "unknown" } else { &*oldest.owner };
        field(text, "oldest_snapshot_age_ms", oldest.age_ms);
        field(text, "oldest_snapshot_owner", owner);
        field(text, "oldest_snapshot_position", oldest.seq);
    }
    field(text, "history_window_ms", stats.history.map_or(0, |history| history.window_ms));
    if let Some(history) = stats.history {
        field(text, "history_oldest_ms", history.oldest_ms);
        field(text, "history_oldest_position", history.oldest_seq);
        field(text, "history_times", history.samples);
    }
    field(text, "background_error", stats.background_error.as_deref().unwrap_or("none"));
    Ok(())
}

fn replication(_: &mut Context<'_>, text: &mut String) -> Result<(), Refusal> {
    field(text, "role", "master");
    field(text, "connected_slaves", 0);
    Ok(())
}

fn cluster(_: &mut Context<'_>, text: &mut String) -> Result<(), Refusal> {
    field(text, "cluster_enabled", 0);
    Ok(())
}

fn keyspace(context: &mut Context<'_>, text: &mut String) -> Result<(), Refusal> {
    for number in 0..context.environment.databases {
        let census = match context.keyspace.database(number).census() {
            Ok(census) => context.settle(census),
            Err(error) => {
                // A damaged table is what somebody may be looking for here.
                line(text, format_args!("# db{number} cannot be counted: {error}"));
                continue;
            }
        };
        if census.keys > 0 {
            line(
                text,
                format_args!(
                    "db{number}:keys={},expires={},avg_ttl={}",
                    census.keys, census.expiring, census.average_ttl_ms
                ),
            );
        }
    }
    Ok(())
}
