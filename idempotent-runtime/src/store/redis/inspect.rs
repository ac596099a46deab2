//! Listing: a walk through the keys of each primary, by `SCAN`.
//!
//! 1. A page begins at a [`Place`]: a primary, named by its lowest slot, and where its `SCAN` goes on. `SCAN` returns each
//!    key that is there throughout, and some twice if the server's hash table shrinks meanwhile.
//! 2. `SCAN` may return more keys than were asked for. What has no room in a page is looked at in the next one: that
//!    begins before the batch, or, if the batch is the first of its page, with the keys that are left of it.
//! 3. A place means something to these servers only: another process has another order of its keys, and a slot that moves
//!    takes its records past the walk. So a cursor names the [servers](Primaries) of its walk, and each page makes sure
//!    that they are the same before it begins and when it has ended.
//! 4. A record is read by the script for `get`, which returns the size of the response in the place of its bytes.

use std::{collections::HashSet, time::SystemTime};

use futures_util::{StreamExt as _, stream};

use super::{NAME, RedisStore, error::store_error, reply};
use crate::{
    scope::StoreKey,
    store::{
        erased::Operation,
        error::StoreError,
        inspect::{Cursor, Entry, Inspectable, KeyPrefix, Page, Query, Stats},
    },
};

mod place;
mod primaries;

use place::Place;
use primaries::{Names, Primaries};

/// The most names that one `SCAN` is asked for.
const MAX_COUNT: usize = 1_000;

/// How many names a page may pass over at least, so that keys of others do not make pages of nothing.
const MIN_NAMES: usize = 10_000;

/// How many records are read at once.
const CONCURRENT: usize = 256;

impl Inspectable for RedisStore {
    fn list<'a>(&'a self, query: &'a Query) -> Operation<'a, Page> {
        Box::pin(async move {
            let prefix = query.prefix.as_ref();
            if let Some(key) = prefix.and_then(whole)
                && query.cursor.is_none()
            {
                let entry = self.entry(key).await?;
                let matching = entry.filter(|(entry, now)| query.matches(entry, *now));
                let entries = matching.map(|(entry, _)| entry).into_iter().collect();
                return Ok(Page::new(entries, None));
            }
            let bounds = Bounds {
                limit: query.limit(),
                max_scan: query.max_scan(),
                pattern: Some(self.0.names.pattern(prefix)),
            };
            let matches = |entry: &Entry, now| query.matches(entry, now);
            let walked = self.walk(query.cursor.as_ref(), &bounds, matches).await?;
            Ok(Page::new(walked.entries, walked.next))
        })
    }

    fn stats<'a>(&'a self, cursor: Option<&'a Cursor>, max_scan: usize) -> Operation<'a, Stats> {
        Box::pin(async move {
            let bounds = Bounds {
                limit: usize::MAX,
                max_scan: max_scan.clamp(1, Query::MAX_SCAN),
                // All names, so that their number says which share they are.
                pattern: None,
            };
            let walked = self.walk(cursor, &bounds, |_, _| true).await?;
            let mut stats = Stats::default();
            for entry in &walked.entries {
                stats.count(entry.state.kind(), entry.stored_bytes);
            }
            stats.share = match (cursor, &walked.next) {
                (None, None) => 1.0,
                _ => walked.share,
            };
            stats.next = walked.next;
            Ok(stats)
        })
    }
}

/// How far one page goes.
struct Bounds {
    /// The most entries.
    limit: usize,
    /// The most records that are looked at.
    max_scan: usize,
    /// What the names of keys match. `None`: all names are fetched.
    pattern: Option<String>,
}

/// What one page has found.
struct Walked {
    entries: Vec<Entry>,
    next: Option<Cursor>,
    /// The share of all names of all servers that was fetched.
    share: f64,
}

impl RedisStore {
    async fn walk(
        &self,
        cursor: Option<&Cursor>,
        bounds: &Bounds,
        keep: impl Fn(&Entry, SystemTime) -> bool,
    ) -> Result<Walked, StoreError> {
        let given = cursor.map(|cursor| Place::parse(cursor).map(|given| (cursor, given)));
        let given = given.transpose()?;
        let primaries = Primaries::read(&self.0.link).await?;
        let begin = match given {
            Some((cursor, (servers, _))) if servers != primaries.id() => {
                return Err(primaries::others(cursor));
            }
            Some((_, (_, place))) => place,
            None => Place::default(),
        };
        let mut page = Batches {
            store: self,
            primaries: &primaries,
            bounds,
            place: begin,
            seen: HashSet::new(),
            asked: 0,
            names: 0,
        };
        let entries = page.collect(keep).await?;
        let next = (!page.place.is_end()).then(|| page.place.cursor(primaries.id()));
        let share = primaries.share(page.names);
        primaries.still_the_same().await?;
        Ok(Walked {
            entries,
            next,
            share,
        })
    }

    /// What a list shows of this record, and the time by its server's clock.
    async fn entry(&self, key: StoreKey) -> Result<Option<(Entry, SystemTime)>, StoreError> {
        let record = self.record(&key);
        let call = self.0.scripts.get.call(&record, &[b"size"]);
        reply::entry(key, self.run(&call).await?)
    }
}

/// One page, batch by batch.
struct Batches<'a> {
    store: &'a RedisStore,
    primaries: &'a Primaries,
    bounds: &'a Bounds,
    /// Behind what was looked at.
    place: Place,
    /// The records that were looked at.
    seen: HashSet<StoreKey>,
    /// How many names `SCAN` was asked for.
    asked: usize,
    /// How many it returned.
    names: usize,
}

impl Batches<'_> {
    /// The entries of the page that are to be kept.
    async fn collect(
        &mut self,
        keep: impl Fn(&Entry, SystemTime) -> bool,
    ) -> Result<Vec<Entry>, StoreError> {
        let Bounds {
            limit, max_scan, ..
        } = *self.bounds;
        let mut entries = Vec::new();
        let mut count = limit.min(max_scan).min(MAX_COUNT);
        while !self.place.is_end() && entries.len() < limit && self.seen.len() < max_scan {
            if self.asked >= max_scan.max(MIN_NAMES) {
                break;
            }
            let (names, mut then) = self.batch(count).await?;
            let mut keys = names.keys;
            keys.retain(|key| !self.seen.contains(key));
            let first = self.seen.is_empty();
            let room = max_scan - self.seen.len();
            if keys.len() > room {
                if !first {
                    break;
                }
                then.left = keys.split_off(room);
            }
            let mut found = self.read(&keys).await?;
            found.retain(|(_, entry, now)| keep(entry, *now));
            let room = limit - entries.len();
            if found.len() > room {
                if !first {
                    break;
                }
                // Those behind the last entry that has room.
                let behind = found[room].0;
                then.left.splice(0..0, keys.split_off(behind));
                found.truncate(room);
            }
            entries.extend(found.into_iter().map(|(_, entry, _)| entry));
            self.names += names.fetched;
            self.seen.extend(keys);
            self.place = then;
            count = (count * 4).min(MAX_COUNT);
        }
        Ok(entries)
    }

    /// The next keys, and the place behind them.
    async fn batch(&mut self, count: usize) -> Result<(Names, Place), StoreError> {
        if !self.place.left.is_empty() {
            let names = Names {
                keys: self.place.left.clone(),
                fetched: 0,
            };
            let then = Place {
                left: Vec::new(),
                ..self.place
            };
            return Ok((names, then));
        }
        self.asked += count;
        let pattern = self.bounds.pattern.as_deref();
        let names = &self.store.0.names;
        let scanned = self.primaries.scan(&self.place, pattern, count, names);
        scanned.await.map_err(store_error)
    }

    /// The records with these keys that are there, each with the place of its key.
    async fn read(&self, keys: &[StoreKey]) -> Result<Vec<(usize, Entry, SystemTime)>, StoreError> {
        let reads = keys.iter().copied().map(|key| self.store.entry(key));
        // In order, and many in one message to the server.
        let mut reads = stream::iter(reads).buffered(CONCURRENT).enumerate();
        let mut found = Vec::with_capacity(keys.len());
        while let Some((at, read)) = reads.next().await {
            if let Some((entry, now)) = read? {
                found.push((at, entry, now));
            }
        }
        Ok(found)
    }
}

/// The key, if the prefix is a whole one.
fn whole(prefix: &KeyPrefix) -> Option<StoreKey> {
    (prefix.lowest() == prefix.highest()).then(|| prefix.lowest())
}
