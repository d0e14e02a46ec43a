//! A damaged block while the database is open: its keys are an error that names the place, all others are served and
//! written, compaction leaves the table alone and goes on with the rest, and the statistics say so.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;
#[path = "common/server.rs"]
mod server;

use std::collections::BTreeSet;
use std::sync::Arc;

use chronos::codec::Rng;
use chronos::engine::Strategy;
use chronos::fs::{Fs, SimFs};
use chronos::{Db, Error, Options};
use common::{Model, apply, contents, encode, random_batch, tiny_options};
use server::Server;

const KEYS: u64 = 60;

/// Small blocks, nothing cached, and a strategy that merges.
fn options(seed: u64) -> Options {
    let strategy = if seed.is_multiple_of(3) { Strategy::Tiered } else { Strategy::Leveled };
    tiny_options(seed).block_bytes(64).cache_bytes(0).compaction(strategy)
}

fn grown(seed: u64) -> (SimFs, Db, Model, Rng) {
    let mut rng = Rng::new(seed);
    let disk = SimFs::new();
    let db = options(seed).open_on(Arc::new(disk.clone())).unwrap();
    let mut model = Model::new();
    write(&db, &mut model, &mut rng, 150);
    (disk, db, model, rng)
}

fn write(db: &Db, model: &mut Model, rng: &mut Rng, batches: usize) {
    for _ in 0..batches {
        let batch = random_batch(rng, KEYS);
        db.write(&encode(&batch)).unwrap();
        apply(model, &batch);
    }
}

/// Steps until nothing is to do: that must come.
fn settle(db: &Db) {
    let steps = (0..500).take_while(|_| db.step().unwrap()).count();
    assert!(steps < 500, "it goes round and round");
}

/// Every key is right, or an error that names the file. The keys that are errors.
fn check(db: &Db, model: &Model, table: &str, what: &str) -> BTreeSet<Vec<u8>> {
    let mut lost = BTreeSet::new();
    for key in (0..KEYS).map(|key| format!("key{key:04}").into_bytes()) {
        match db.get(&key) {
            Ok(found) => assert_eq!(found.as_deref(), model.get(&key).map(Vec::as_slice), "{what}: {key:?}"),
            Err(Error::Corrupt { file, .. }) => {
                assert_eq!(file, table, "{what}");
                lost.insert(key);
            }
            Err(error) => panic!("{what}: {error:?}"),
        }
    }
    match contents(db) {
        Ok(all) => assert_eq!(&all, model, "{what}"),
        Err(error) => assert!(matches!(&error, Error::Corrupt { file, .. } if file == table), "{what}: {error:?}"),
    }
    lost
}

#[test]
fn other_keys_serve_and_compaction_goes_round_it() {
    let (mut hit, mut shadowed, mut bounded) = (0, 0, 0);
    for seed in 0..60 {
        let (disk, db, mut model, mut rng) = grown(seed);
        db.flush().unwrap();
        if seed % 2 == 0 {
            settle(&db);
        }
        let flushed = db.stats().levels[0].tables;
        let tables: Vec<String> = disk.list().unwrap().into_iter().filter(|name| name.ends_with(".sst")).collect();
        let table = rng.pick(&tables).clone();
        let bytes = disk.read_file(&table).unwrap();
        // In the first blocks: the header and what opening reads stay whole.
        disk.corrupt(&table, 16 + rng.below(60).min(bytes.len() as u64 / 3) as usize, 1);
        let what = format!("seed {seed}, {table}");
        let lost = check(&db, &model, &table, &what);
        hit += usize::from(!lost.is_empty());

        // It goes on, whatever compaction meets.
        for round in 0..8 {
            write(&db, &mut model, &mut rng, 60);
            settle(&db);
            let now = check(&db, &model, &table, &format!("{what}, round {round}"));
            shadowed += usize::from(now.len() < lost.len());
        }
        let there = disk.list().unwrap().contains(&table);
        let result = db.compact();
        if there && contents(&db).is_err() {
            assert!(matches!(&result, Err(Error::Background(what)) if what.contains(&table)), "{what}: {result:?}");
            let stats = db.stats();
            assert_eq!(stats.damage.len(), 1, "{what}");
            assert!(stats.damage[0].starts_with(&table) && stats.damage[0].contains(" at byte "), "{:?}", stats.damage);
            // Level 0 does not grow with what is written, but for the logarithm of it.
            assert!(stats.levels[0].tables <= flushed + 6, "{what}: {flushed}, {:?}", stats.levels);
            bounded += 1;
            assert!(disk.list().unwrap().contains(&table), "{what}: a repair will want it");
        }
        check(&db, &model, &table, &what);
        // A new start meets it again, and no more.
        drop(db);
        let db = options(seed).open_on(Arc::new(disk.clone())).unwrap();
        check(&db, &model, &table, &what);
        settle(&db);
        check(&db, &model, &table, &what);
    }
    assert!(hit > 20 && shadowed > 20 && bounded > 20, "{hit} hit, {shadowed} shadowed, {bounded} bounded");
}

#[test]
fn the_server_tells_the_client_and_in_info() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &[]);
    let sets: String = (0..1000).map(|n| format!("SET key{n:04} value{n}{}\n", "x".repeat(40))).collect();
    assert_eq!(server.converse(&(sets + "SAVE\n")).lines().count(), 1001);
    assert!(server.converse("INFO persistence\n").contains("damaged_tables:0\n"));
    drop(server);
    let mut files = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path());
    let table = files.find(|path| path.extension().is_some_and(|end| end == "sst")).unwrap();
    let mut bytes = std::fs::read(&table).unwrap();
    bytes[100] ^= 1;
    std::fs::write(&table, bytes).unwrap();

    let server = Server::start(dir.path(), &[]);
    let name = table.file_name().unwrap().to_str().unwrap();
    let refused = server.converse("GET key0000\n");
    assert!(refused.starts_with(&format!("(error) ERR {name}: ")) && refused.contains("at byte"), "{refused}");
    assert!(server.converse("GET key0999\n").starts_with("value999x"));
    assert_eq!(server.converse("SET key0000 new\nGET key0000\n"), "OK\nnew\n");
    let info = server.converse("INFO\n");
    assert!(info.contains("damaged_tables:1\n") && info.contains(&format!("damage_0:{name}: ")), "{info}");
}
