//! The engine in a program of your own: open, write, read, change on a condition, walk, look back, copy.
//!
//! ```text
//! cargo run --example embed [DIRECTORY]
//! ```

use std::error::Error;
use std::path::PathBuf;

use chronos::{Options, WriteBatch};

fn main() -> Result<(), Box<dyn Error>> {
    let directory = std::env::args().nth(1).map_or_else(std::env::temp_dir, PathBuf::from);
    let home = directory.join(format!("chronos-embed-{}", std::process::id()));

    // Every write is on disk when its call returns; 64 MiB for memtables and cache.
    let db = Options::new().memory(64 << 20).open(home.join("data"))?;

    db.put(b"user:101", b"Venom")?;
    assert_eq!(db.get(b"user:101")?.as_deref(), Some(&b"Venom"[..]));

    // Several changes: all of them or none, whatever happens to the machine.
    let mut batch = WriteBatch::new();
    batch.put(b"user:102", b"Carnage");
    batch.put(b"user:103", b"Toxin");
    batch.put(b"users", b"3");
    db.write(&batch)?;

    // Read, decide, write, with nobody in between.
    let users = db.update(&[b"users"], |found, batch| {
        let text = found[0].as_ref().map_or("0".into(), |found| String::from_utf8_lossy(&found.value));
        let users = text.parse().unwrap_or(0) + 1;
        batch.put(b"users", users.to_string().as_bytes());
        batch.put(format!("user:{}", 100 + users).as_bytes(), b"Scream");
        users
    })?;
    println!("{users} users");
    assert!(!db.compare_and_set(b"user:104", Some(b"Agony"), None)?, "it is Scream");

    // A moment that stays as it was, however much is written.
    let before = db.snapshot();
    db.delete(b"user:101")?;
    for entry in before.prefix(b"user:") {
        let entry = entry?;
        println!("{} = {}", entry.key.escape_ascii(), entry.value.escape_ascii());
    }
    let last = db.range("user:".."user:~").next_back().transpose()?;
    assert_eq!(last.map(|entry| entry.key).as_deref(), Some(&b"user:104"[..]));
    assert_eq!(db.prefix(b"user:").rev().count(), 3);

    // A copy that is a database of its own.
    db.checkpoint(home.join("copy"))?;
    let stats = db.stats();
    println!("{} writes, all durable: {}", stats.last_seq, stats.durable_seq == stats.last_seq);

    drop(before);
    db.close()?;
    std::fs::remove_dir_all(home)?;
    Ok(())
}
