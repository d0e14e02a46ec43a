//! The real chronos-admin on real directories. That `verify` notices whatever damage the database itself notices is part
//! of `tests/damage.rs`.

#![allow(clippy::unwrap_used, reason = "a test may")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc::{TryRecvError, channel};

use chronos::{Db, Options};

const KEYS: usize = 3_000;

/// Exit code, standard output, standard error.
fn admin(arguments: &[&str]) -> (i32, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_chronos-admin")).args(arguments).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

fn clean(arguments: &[&str]) -> String {
    let (code, out, err) = admin(arguments);
    assert_eq!((code, &*err), (0, ""), "{arguments:?}: {out}");
    out
}

fn damaged(arguments: &[&str]) -> String {
    let (code, out, err) = admin(arguments);
    assert_eq!((code, &*err), (1, ""), "{arguments:?}: {out}");
    out
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Tables in two levels, and changes in the log.
fn database(path: &Path) -> Db {
    let db = Options::new().table_bytes(40_000).open(path).unwrap();
    for n in 0..KEYS {
        db.put(format!("key{n:05}").as_bytes(), format!("value {n} {}", "x".repeat(30)).as_bytes()).unwrap();
        if n == KEYS / 2 {
            db.compact().unwrap();
        }
    }
    db.flush().unwrap();
    db.put(b"late", b"in the log only").unwrap();
    db.delete(b"key00007").unwrap();
    db
}

fn files(path: &Path, end: &str) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| text(path).ends_with(end));
    files.sort();
    files
}

fn flip(file: &Path, at: usize) {
    let mut bytes = fs::read(file).unwrap();
    bytes[at] ^= 1;
    fs::write(file, bytes).unwrap();
}

/// Every name with its bytes: nothing may change.
fn all(path: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    files(path, "").into_iter().map(|path| (path.clone(), fs::read(path).unwrap())).collect()
}

#[test]
fn verify_stats_and_dump_read_a_database_and_leave_it_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("data");
    // As it is when its server is killed: with changes in the log.
    let db = database(&dir.path().join("live"));
    fs::create_dir(&path).unwrap();
    for (file, bytes) in all(&dir.path().join("live")) {
        fs::write(path.join(file.file_name().unwrap()), bytes).unwrap();
    }
    drop(db);
    let before = all(&path);
    let verified = clean(&["verify", text(&path)]);
    for (file, _) in before.iter().filter(|(file, _)| !text(file).ends_with("LOCK")) {
        let name = file.file_name().unwrap().to_str().unwrap();
        assert!(verified.lines().any(|line| line.starts_with(name) && line.contains(" ok ")), "{name}: {verified}");
        clean(&["dump", text(file)]);
    }
    assert!(verified.ends_with(&format!("clean: {} files\n", before.len() - 1)), "{verified}");
    let stats = clean(&["stats", text(&path)]);
    let rows: Vec<Vec<&str>> = stats.lines().map(|line| line.split_whitespace().collect()).collect();
    let row = rows.iter().find(|row| row[0] == "all").unwrap();
    assert_eq!(row[1], files(&path, ".sst").len().to_string(), "{stats}");
    assert_eq!(row[3], KEYS.to_string(), "{stats}");
    assert!(stats.contains("\"key00000\" .. \"key02999\""), "{stats}");

    let shown = |end: &str, flags: &[&str]| -> String {
        files(&path, end).iter().map(|file| clean(&[&["dump", text(file)], flags].concat())).collect()
    };
    assert!(shown(".sst", &["--entries"]).contains(" \"key00042\" = \"value 42 xxx"));
    assert!(!shown(".sst", &[]).contains("value 42"));
    assert!(shown(".wal", &[]).contains(" \"late\" = \"in the log only\"\n"));
    assert!(shown(".wal", &[]).contains(" \"key00007\" deleted\n"));
    assert!(shown(".manifest", &[]).contains("  + level "));
    assert!(shown("CURRENT", &[]).contains(".manifest"));
    assert!(before == all(&path), "something was written");
}

#[test]
fn damage_is_told_with_file_place_and_keys_and_exit_status_1() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("data");
    drop(database(&path));
    let table = &files(&path, ".sst")[0];
    flip(table, 5_000);
    let name = table.file_name().unwrap().to_str().unwrap();
    let verified = damaged(&["verify", text(&path)]);
    assert!(verified.contains(&format!("{name}       DAMAGED")), "{verified}");
    let line = verified.lines().find(|line| line.starts_with(&format!("    {name}: "))).unwrap();
    assert!(line.contains(" at byte ") && line.contains("keys behind \"key"), "{line}");
    assert_eq!(verified.matches("DAMAGED").count(), 2, "one file and the summary: {verified}");
    let shown = damaged(&["dump", text(table)]);
    assert_eq!(shown.matches("DAMAGED").count(), 1, "{shown}");

    let current = path.join("CURRENT");
    flip(&current, 3);
    assert!(damaged(&["verify", text(&path)]).contains("CURRENT          DAMAGED"));
    assert!(damaged(&["dump", text(&current)]).contains("DAMAGED"));
    assert!(damaged(&["stats", text(&path)]).contains("DAMAGED: CURRENT"));
    fs::remove_file(table).unwrap();
    assert!(damaged(&["verify", text(&path)]).contains(&format!("{name}: it is missing")));
}

#[test]
fn a_database_in_use_is_checked_as_it_was_found_and_not_disturbed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("data");
    let db = database(&path);
    let warning = format!("is in use by process {}", std::process::id());
    std::thread::scope(|scope| {
        let (stop, stopped) = channel::<()>();
        let writer = scope.spawn(|| {
            let stopped = stopped;
            let mut rounds = 0;
            while stopped.try_recv() == Err(TryRecvError::Empty) {
                for n in 0..KEYS {
                    db.put(format!("key{:05}", n * 7 % KEYS).as_bytes(), &[b'y'; 60]).unwrap();
                }
                db.compact().unwrap();
                rounds += 1;
            }
            rounds
        });
        for _ in 0..6 {
            assert!(clean(&["verify", text(&path)]).contains(&warning));
            assert!(clean(&["stats", text(&path)]).contains(&warning));
        }
        drop(stop);
        assert!(writer.join().unwrap() > 0);
    });
    // A copy of files that change would be none.
    let (code, _, err) = admin(&["restore", text(&path), text(&dir.path().join("new"))]);
    assert_eq!(code, 1);
    assert!(err.contains(&warning), "{err}");
    assert!(!dir.path().join("new").exists());
}

#[test]
fn a_checkpoint_is_restored_by_copy_and_checked() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let db = database(&path("data"));
    db.checkpoint(path("copy")).unwrap();
    fs::create_dir(path("new")).unwrap();
    let out = clean(&["restore", text(&path("copy")), text(&path("new"))]);
    assert!(out.contains("clean: ") && out.contains("restored from"), "{out}");
    let all = |db: &Db| db.range::<&[u8]>(..).map(|entry| entry.unwrap().key.to_vec()).collect::<Vec<_>>();
    let new = Options::new().open(path("new")).unwrap();
    assert_eq!(all(&new), all(&db));
    assert_eq!(all(&new).len(), KEYS);

    // What has something in it is not replaced, and what is damaged is not restored.
    let (code, _, err) = admin(&["restore", text(&path("copy")), text(&path("new"))]);
    assert_eq!(code, 1);
    assert!(err.contains("new exists already"), "{err}");
    flip(&files(&path("copy"), ".sst")[0], 1_000);
    assert!(damaged(&["restore", text(&path("copy")), text(&path("other"))]).contains("not made"));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 3);
}

#[test]
fn repair_makes_a_new_database_or_takes_the_place_of_the_damaged_one() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let data = path("data");
    let db = database(&data);
    let (code, _, err) = admin(&["repair", text(&data), "--in-place"]);
    assert!(code == 1 && err.contains(&format!("is in use by process {}", std::process::id())), "{err}");
    drop(db);
    assert!(clean(&["repair", text(&data), "--to", text(&path("whole"))]).contains("3000 keys in"));

    flip(&files(&data, ".sst")[0], 5_000);
    fs::remove_file(data.join("CURRENT")).unwrap();
    let before = all(&data);
    let out = damaged(&["repair", text(&data), "--to", text(&path("new"))]);
    let lost = out.lines().find(|line| line.starts_with("lost ")).unwrap();
    assert!(lost.contains(".sst: ") && lost.contains(" bytes at ") && lost.contains("keys \"key"), "{lost}");
    assert!(out.ends_with("; 1 places could not be read\n"), "{out}");
    assert!(before == all(&data), "the original was changed");
    let saved = |path: &Path| Options::new().open(path).unwrap().range::<&[u8]>(..).map(Result::unwrap).count();
    let count = saved(&path("new"));
    assert!((KEYS - 200..KEYS).contains(&count), "{count}");
    let (code, _, err) = admin(&["repair", text(&data), "--to", text(&path("new"))]);
    assert!(code == 1 && err.contains("new exists already"), "{err}");

    let out = damaged(&["repair", text(&data), "--in-place"]);
    assert!(out.contains("data.damaged is what was there"), "{out}");
    assert_eq!(saved(&data), count);
    let kept: Vec<_> = all(&path("data.damaged")).into_iter().map(|(_, bytes)| bytes).collect();
    assert!(before.into_iter().map(|(_, bytes)| bytes).eq(kept));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 4);
    // What is kept is not replaced by the next one.
    let (code, _, err) = admin(&["repair", text(&data), "--in-place"]);
    assert!(code == 1 && err.contains("data.damaged exists already"), "{err}");
    assert_eq!(admin(&["repair", text(&data)]).0, 2, "to where?");
    assert_eq!(admin(&["repair", text(&data), "--in-place", "--to", "x"]).0, 2);
}

#[test]
fn wrong_arguments_are_status_2_and_what_is_not_there_is_told() {
    for arguments in [&["verify"][..], &["frobnicate"], &["dump"], &[]] {
        assert_eq!(admin(arguments).0, 2, "{arguments:?}");
    }
    let (code, _, err) = admin(&["verify", "/nowhere/at/all"]);
    assert!(code == 1 && err.contains("/nowhere/at/all: open the directory"), "{err}");
    let dir = tempfile::tempdir().unwrap();
    assert!(damaged(&["verify", text(dir.path())]).contains("no database is here"));
    let foreign = dir.path().join("notes.txt");
    fs::write(&foreign, "x").unwrap();
    let (code, _, err) = admin(&["dump", text(&foreign)]);
    assert!(code == 1 && err.contains("notes.txt is none of"), "{err}");
    let help = clean(&["--help"]);
    for task in ["verify", "dump", "stats", "restore", "repair", "Examples:"] {
        assert!(help.contains(task), "{help}");
    }
}
