//! Reads everything back and holds it against the journals.
//!
//! For each client some number of requests, from the first on, must explain its own keys exactly: those that are
//! *present*. Then the shared keys, where the requests of all meet, must follow from what is present of each.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use crate::client::{Client, Keys, SHARED, Sent, Shared, Stored, shared_key};
use crate::wire::{Connection, Dialect, words};

/// What an acknowledgement was worth.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Promise {
    /// Whatever was acknowledged is there.
    All,
    /// The newest may be missing: what was acknowledged this long before the end is there.
    AllBut(Duration),
}

/// What the shared keys held when the journals began.
#[derive(Default)]
pub struct Base {
    counters: [u64; SHARED],
    values: [Option<Vec<u8>>; SHARED],
    /// The list was deleted then.
    list: Vec<u8>,
}

/// What an audit counted.
#[derive(Default)]
pub struct Counts {
    pub acknowledged: usize,
    /// What of that had to be there.
    #[allow(dead_code, reason = "not every test asks")]
    pub owed: usize,
    /// Present although not acknowledged: allowed, and a sign that the end came in the middle.
    pub unacknowledged: usize,
    /// Acknowledged and not present: with an interval.
    pub lost: usize,
}

/// A client's requests that are present: at least so many, at most so many. (Reads and shared keys leave no trace in
/// the client's own.)
type Present = RangeInclusive<usize>;

/// Holds what is there against the journals, and begins new ones.
pub fn audit(addr: &str, clients: &mut [Client], base: &mut Base, promise: Promise, ended: Instant) -> Counts {
    let mut connection = Connection::open(addr, Dialect::Resp).unwrap();
    let found = read_all(&mut connection, clients);
    let mut counts = Counts::default();
    let mut present = Vec::new();
    for (client, keys) in clients.iter().zip(&found.own) {
        let owed = owed(client, promise, ended);
        let there = find_prefix(client, keys, owed);
        let acknowledged = client.acknowledged();
        counts.acknowledged += acknowledged;
        counts.owed += owed;
        counts.unacknowledged += there.end().saturating_sub(acknowledged);
        counts.lost += acknowledged.saturating_sub(*there.end());
        present.push(there);
    }
    nothing_newer_than_what_is_missing(clients, &present);
    for key in 0..SHARED {
        check_counter(clients, &present, key, base.counters[key], found.counters[key], promise);
        check_value(clients, &present, key, &base.values[key], &found.values[key], promise);
    }
    if promise != Promise::All && !found.list.is_empty() && found.list == base.list {
        // It was not even deleted: all that came later must be missing too.
        assert!(present.iter().all(|there| *there.start() == 0), "a hole: present are {present:?}");
    } else {
        check_list(clients, &present, &found.list);
    }

    for (client, keys) in clients.iter_mut().zip(found.own) {
        client.settle(keys);
    }
    connection.ask(&[vec![b"DEL".to_vec(), shared_key('a', 0)]]);
    *base = Base { counters: found.counters, values: found.values, list: found.list };
    counts
}

struct Found {
    own: Vec<Keys>,
    counters: [u64; SHARED],
    values: [Option<Vec<u8>>; SHARED],
    list: Vec<u8>,
}

/// Everything, by a scan; and every key there may be, one by one, which must give the same.
fn read_all(connection: &mut Connection, clients: &[Client]) -> Found {
    let scan = connection.ask(&[words("RANGE - +")]).remove(0).many();
    let mut all: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
    for pair in scan.chunks(2) {
        assert!(all.last().is_none_or(|(last, _)| *last < pair[0]), "out of order: {}", pair[0].escape_ascii());
        all.push((pair[0].clone(), pair[1].clone()));
    }

    let shared = ['n', 's', 'a'].into_iter().flat_map(|kind| (0..SHARED).map(move |at| shared_key(kind, at)));
    let known: BTreeSet<Vec<u8>> = clients.iter().flat_map(Client::own_keys).chain(shared).collect();
    let foreign = all.iter().find(|(key, _)| !known.contains(key));
    assert!(foreign.is_none(), "nobody wrote this: {foreign:?}");
    let gets: Vec<_> = known.iter().map(|key| vec![b"GET".to_vec(), key.clone()]).collect();
    let times: Vec<_> = known.iter().map(|key| vec![b"EXPIRETIME".to_vec(), key.clone()]).collect();
    let mut rest = all.into_iter().peekable();
    let mut found: Keys = Keys::new();
    for ((key, got), time) in known.into_iter().zip(connection.ask(&gets)).zip(connection.ask(&times)) {
        let scanned = rest.next_if(|(scanned, _)| *scanned == key).map(|(_, value)| value);
        let (got, time) = (got.one(), time.one());
        let shown = key.escape_ascii().to_string();
        assert!(scanned.as_deref().unwrap_or(b"(nil)") == got, "{shown}: a scan and a get do not agree");
        let Some(value) = scanned else {
            assert_eq!(time, b"-2", "{shown} is not there and cannot expire");
            continue;
        };
        found.insert(key, Stored { value, expires: time != b"-1" });
    }

    let mut take = |key: Vec<u8>| found.remove(&key).map(|stored| stored.value);
    let counters = std::array::from_fn(|at| {
        take(shared_key('n', at)).map_or(0, |value| value.escape_ascii().to_string().parse().unwrap())
    });
    let values = std::array::from_fn(|at| take(shared_key('s', at)));
    let list = take(shared_key('a', 0)).unwrap_or_default();
    let own = clients.iter().map(|client| {
        let prefix = format!("c{}:", client.id).into_bytes();
        let (own, rest) = std::mem::take(&mut found).into_iter().partition(|(key, _)| key.starts_with(&prefix));
        found = rest;
        own
    });
    let own = own.collect();
    assert!(found.is_empty(), "nobody wrote these: {:?}", found.keys());
    Found { own, counters, values, list }
}

/// How many of a client's requests must be there.
fn owed(client: &Client, promise: Promise, ended: Instant) -> usize {
    match promise {
        Promise::All => client.acknowledged(),
        Promise::AllBut(time) => {
            let old = |sent: &&Sent| sent.acknowledged.is_some_and(|at| at + time < ended);
            client.journal.iter().take_while(old).count()
        }
    }
}

/// Looks for the number of requests that explains what is there; at least `owed`.
fn find_prefix(client: &Client, found: &Keys, owed: usize) -> Present {
    let mut model = client.before.clone();
    let differs = |model: &Keys, key: &[u8]| model.get(key) != found.get(key);
    let mut different: BTreeSet<Vec<u8>> =
        model.keys().chain(found.keys()).filter(|key| differs(&model, key)).cloned().collect();
    let mut present: Option<Present> = None;
    let mut too_few: Option<usize> = None;
    let mut nearest: Option<(usize, BTreeSet<Vec<u8>>, Keys)> = None;
    for count in 0..=client.journal.len() {
        if let Some(sent) = count.checked_sub(1).map(|last| &client.journal[last]) {
            for (key, new) in &sent.changes {
                match new {
                    Some(new) => model.insert(key.clone(), new.clone()),
                    None => model.remove(key),
                };
                if differs(&model, key) {
                    different.insert(key.clone())
                } else {
                    different.remove(key)
                };
            }
        }
        if different.is_empty() && count < owed {
            too_few = Some(count);
        } else if count < owed {
            continue;
        } else if different.is_empty() {
            present = Some(present.map_or(count, |present| *present.start())..=count);
        } else if nearest.as_ref().is_none_or(|(_, nearest, _)| different.len() < nearest.len()) {
            nearest = Some((count, different.clone(), model.clone()));
        }
    }
    present.unwrap_or_else(|| {
        let (sent, id) = (client.journal.len(), client.id);
        if let Some(count) = too_few {
            panic!("client {id}: of {sent} requests {owed} must be there, but only {count} are");
        }
        let (count, different, model) = nearest.unwrap();
        let show = |stored: Option<&Stored>| match stored {
            None => "nothing".to_owned(),
            Some(Stored { value, expires }) => {
                format!("{}.. ({} bytes, expires: {expires})", value[..value.len().min(24)].escape_ascii(), value.len())
            }
        };
        let differences = different.iter().take(5).map(|key| {
            let (wanted, is) = (show(model.get(key)), show(found.get(key)));
            format!("\n  {}: {is}, where {wanted} should be", key.escape_ascii())
        });
        panic!(
            "client {id}: of {sent} requests {owed} must be there, but no number of them explains what is. With {count}, \
             {} keys differ:{}",
            different.len(),
            differences.collect::<String>()
        )
    })
}

/// What is missing is a suffix of all that was written: no request is there that was sent after a missing one had been
/// acknowledged.
fn nothing_newer_than_what_is_missing(clients: &[Client], present: &[Present]) {
    for (client, there) in clients.iter().zip(present) {
        let Some(missing) = client.journal.get(*there.end()).and_then(|sent| sent.acknowledged) else { continue };
        for (other, there) in clients.iter().zip(present) {
            let newest = there.start().checked_sub(1).map(|last| other.journal[last].at);
            assert!(
                newest.is_none_or(|newest| newest <= missing),
                "a hole: what client {} was told is missing, but what client {} sent later is there",
                client.id,
                other.id
            );
        }
    }
}

fn check_counter(clients: &[Client], present: &[Present], key: usize, base: u64, found: u64, promise: Promise) {
    let added = |sent: &&Sent| matches!(sent.shared, Shared::Count { key: of, added: true, .. } if of == key);
    let count = |client: &Client, upto: usize| client.journal[..upto].iter().filter(added).count() as u64;
    let sum = |end: fn(&Present) -> usize| -> u64 {
        base + clients.iter().zip(present).map(|(client, there)| count(client, end(there))).sum::<u64>()
    };
    let (least, most) = (sum(|there| *there.start()), sum(|there| *there.end()));
    assert!((least..=most).contains(&found), "shared counter {key} is {found}, not {least} to {most}");
    if promise == Promise::All {
        let seen = clients.iter().flat_map(|client| &client.journal).filter_map(|sent| match sent.shared {
            Shared::Count { key: of, seen, .. } if of == key => Some(seen),
            _ => None,
        });
        let seen = seen.max().unwrap_or(0);
        assert!(seen <= found, "shared counter {key} is {found}, but a client was told {seen}");
    }
}

/// The last value of a shared key must be there: one that no other surely followed.
fn check_value(
    clients: &[Client],
    present: &[Present],
    key: usize,
    base: &Option<Vec<u8>>,
    found: &Option<Vec<u8>>,
    promise: Promise,
) {
    let sets = |client: usize| {
        let all = clients[client].journal[..*present[client].start()].iter();
        all.filter(move |sent| matches!(sent.shared, Shared::Set { key: of } if of == key))
    };
    if promise == Promise::All {
        // What a client was shown is there.
        let shown = clients.iter().flat_map(|client| &client.journal).filter_map(|sent| match &sent.shared {
            Shared::Read { key: of, seen } if *of == key && sent.acknowledged.is_some() && seen != b"(nil)" => {
                Some(seen)
            }
            _ => None,
        });
        for seen in shown {
            let _ = writer_of(clients, present, seen);
        }
    }
    let wrote = match found {
        Some(value) if Some(value) != base.as_ref() => writer_of(clients, present, value),
        _ => None,
    };
    let Some((writer, at)) = wrote else {
        let lost = (0..clients.len()).find(|&client| sets(client).next().is_some());
        assert!(lost.is_none() && found == base, "shared value {key} is {found:?}, but client {lost:?} has set it");
        return;
    };
    let own_later = clients[writer].journal[at + 1..*present[writer].start().max(&(at + 1))]
        .iter()
        .any(|sent| matches!(sent.shared, Shared::Set { key: of } if of == key));
    assert!(!own_later, "shared value {key}: client {writer} has set it again later");
    if let Some(done) = clients[writer].journal[at].acknowledged {
        let later = (0..clients.len()).find(|&client| sets(client).any(|sent| sent.at > done));
        assert!(later.is_none(), "shared value {key} is client {writer}'s, but client {later:?} has set it later");
    }
}

/// Who wrote a shared value, and with which request of the journal; `None` if that was before the journal. It must be
/// one that is present.
fn writer_of(clients: &[Client], present: &[Present], value: &[u8]) -> Option<(usize, usize)> {
    let text = value.escape_ascii().to_string();
    let parse = || text.split_once('-').and_then(|(id, at)| Some((id.parse().ok()?, at.parse().ok()?)));
    let (id, number): (usize, u64) = parse().unwrap_or_else(|| panic!("nobody wrote {text}"));
    let at = number.checked_sub(clients[id].first)? as usize;
    assert!(at < *present[id].end(), "{text} was seen, but only {:?} of client {id} are present", present[id]);
    Some((id, at))
}

/// The list that all append to has each client's requests in their order, and as many as are present of it.
fn check_list(clients: &[Client], present: &[Present], list: &[u8]) {
    let list = list.escape_ascii().to_string();
    assert!(list.is_empty() || list.ends_with(';'), "torn: {list}");
    for (client, there) in clients.iter().zip(present) {
        let prefix = format!("{}-", client.id);
        let got: Vec<&str> = list.split(';').filter(|name| name.starts_with(&prefix)).collect();
        let appended = |upto: usize| {
            let all = client.journal[..upto].iter().zip(client.first..);
            all.filter(|(sent, _)| sent.shared == Shared::Append).map(|(_, number)| format!("{prefix}{number}"))
        };
        let (least, most) = (appended(*there.start()).count(), appended(*there.end()).count());
        assert!(
            (least..=most).contains(&got.len()) && appended(*there.end()).take(got.len()).eq(got.iter().copied()),
            "the shared list has {got:?} of client {}, which should be the first {least} to {most} of {:?}",
            client.id,
            appended(*there.end()).collect::<Vec<_>>()
        );
    }
}
