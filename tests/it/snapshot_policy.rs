//! The rules of snapshots, in every store as in the functions that say them: the same batches go to a store and to a model
//! that is those functions alone.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use forebay::store::batch::{Checkpoint, SealedBatch, SnapshotDraft};
use forebay::store::{
    self, NewestSnapshot, SnapshotPolicy, SnapshotReceipt, SnapshotVerdict, Store, StorePlan, StoreUrl, renumbered,
};
use forebay::{Entity, Schema, Timestamp};

use crate::support::project::Project;

const DEDUP: Duration = Duration::from_secs(900);
const TTL: Duration = Duration::from_secs(86_400);

/// What a region's snapshots say, one a batch: content, block, and how long before now it was computed. None has nothing
/// to say.
type Said = (Option<&'static str>, i64, Duration);

/// A region, what is said of it in each batch, and whether the last is stored.
struct Case {
    name: &'static str,
    said: &'static [Said],
    is_stored: bool,
}

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

const CASES: [Case; 11] = [
    Case { name: "the first", said: &[(Some("x"), 1, ms(0))], is_stored: true },
    Case { name: "nothing to say", said: &[(None, 1, ms(0))], is_stored: false },
    Case { name: "nothing to say any more", said: &[(Some("x"), 1, ms(5)), (None, 2, ms(0))], is_stored: true },
    Case { name: "the same", said: &[(Some("x"), 1, ms(5)), (Some("x"), 2, ms(0))], is_stored: false },
    Case { name: "the same block", said: &[(Some("x"), 1, ms(5)), (Some("x"), 1, ms(0))], is_stored: false },
    Case { name: "another", said: &[(Some("x"), 1, ms(5)), (Some("y"), 2, ms(0))], is_stored: true },
    Case { name: "rolled back", said: &[(Some("x"), 3, ms(5)), (Some("x"), 2, ms(0))], is_stored: true },
    Case { name: "young enough", said: &[(Some("x"), 1, ms(899_999)), (Some("x"), 2, ms(0))], is_stored: false },
    Case { name: "too old", said: &[(Some("x"), 1, ms(900_000)), (Some("x"), 2, ms(0))], is_stored: true },
    Case {
        name: "back again",
        said: &[(Some("x"), 1, ms(9)), (Some("y"), 2, ms(5)), (Some("x"), 3, ms(0))],
        is_stored: true,
    },
    Case {
        // Each is beyond its time to live; the newest stays.
        name: "expired",
        said: &[(Some("x"), 1, ms(90_000_000)), (Some("y"), 2, ms(89_000_000)), (Some("z"), 3, ms(88_000_000))],
        is_stored: true,
    },
];

/// What a store must hold: by the functions.
struct Model {
    policy: SnapshotPolicy,
    regions: BTreeMap<Arc<str>, Region>,
}

#[derive(Default)]
struct Region {
    seq: u64,
    /// By number: id and the rest.
    stored: BTreeMap<u64, (String, NewestSnapshot)>,
}

impl Model {
    fn commit(&mut self, batch: &SealedBatch, now: Timestamp) -> Vec<SnapshotReceipt> {
        let mut receipts = Vec::new();
        for draft in &batch.snapshots {
            let region = self.regions.entry(Arc::clone(&draft.region)).or_default();
            let newest = region.stored.last_entry().map(|newest| newest.get().1.clone());
            let verdict = self.policy.judge(draft, region.seq, newest.as_ref());
            let id = match &verdict {
                SnapshotVerdict::New { seq, id } => {
                    let SnapshotDraft { hash, block, generated_at, .. } = draft.clone();
                    region.stored.insert(*seq, (id.clone(), NewestSnapshot { hash, block, generated_at }));
                    region.seq = *seq;
                    Some(id.clone())
                }
                SnapshotVerdict::Nothing | SnapshotVerdict::Duplicate => None,
            };
            if verdict != SnapshotVerdict::Nothing {
                receipts.push(SnapshotReceipt::new(Arc::clone(&draft.region), id));
            }
        }
        for Region { seq, stored } in self.regions.values_mut() {
            stored.retain(|at, (_, one)| !self.policy.is_pruned(one.generated_at, *at, *seq, now));
        }
        receipts
    }

    fn renumber(&mut self, above: &[(Arc<str>, u64)]) {
        for (name, above) in above {
            let Some(region) = self.regions.get_mut(name) else { continue };
            let Some(next) = renumbered(region.seq, *above) else { continue };
            if let Some((_, newest)) = region.stored.remove(&region.seq) {
                let id = forebay::snapshot::snapshot_id(name, next, &newest.hash);
                region.stored.insert(next, (id, newest));
            }
            region.seq = next;
        }
    }

    /// Ids of what is held, the newest first.
    fn ids(&self, region: &str) -> Vec<String> {
        self.regions[region].stored.values().rev().map(|(id, _)| id.clone()).collect()
    }
}

/// The batches of the cases: in each the next snapshot of every region that has one more.
fn batches(now: Timestamp) -> Vec<Vec<SnapshotDraft>> {
    let longest = CASES.iter().map(|case| case.said.len()).max().unwrap_or(0);
    let mut regions: Vec<&Case> = CASES.iter().collect();
    regions.sort_by_key(|case| case.name);
    let draft = |case: &&Case, at: usize| {
        // The last of each comes in the last batch.
        let at = (at + case.said.len()).checked_sub(longest)?;
        let (content, block, before) = case.said[at];
        let hash = content.map_or_else(String::new, |content| content.repeat(64));
        let doc = content.map(|content| format!("\"{content}\"").into());
        let generated_at = now.saturating_sub(before);
        let mut draft = SnapshotDraft::new(case.name, block, generated_at, hash, "".into());
        draft.doc = doc;
        Some(draft)
    };
    (0..longest).map(|at| regions.iter().filter_map(|case| draft(case, at)).collect()).collect()
}

fn sealed(before: Checkpoint, snapshots: Vec<SnapshotDraft>) -> Arc<SealedBatch> {
    let mut after = before;
    (after.batch, after.block) = (before.batch + 1, Some(before.batch as i64 + 1));
    let mut batch = SealedBatch::new(before, after);
    batch.first_block = after.block;
    batch.changes = vec![Vec::new()];
    batch.snapshots = snapshots;
    Arc::new(batch)
}

fn open(url: &StoreUrl, policy: SnapshotPolicy) -> Box<dyn Store> {
    let schema = Schema::new([Entity::new("thing", [])]).expect("a schema");
    let plan = StorePlan::new("p", Arc::new(schema)).expect("a plan").with_snapshots(true).with_dedup(policy.dedup);
    let plan = plan.with_ttl(policy.ttl).expect("a plan");
    store::open(url, plan).expect("a store")
}

crate::both_stores! {
    fn a_store_decides_as_the_functions_do() {
        for dedup in [DEDUP, Duration::ZERO] {
            let project = Project::new();
            let url = StoreUrl::parse(&project.store("p.db"), Path::new("")).expect("an address");
            let mut model = Model { policy: SnapshotPolicy { dedup, ttl: TTL }, regions: BTreeMap::new() };
            let mut store = open(&url, model.policy);
            // Stores keep milliseconds at least.
            let now = Timestamp::from_micros(Timestamp::now().as_micros() / 1000 * 1000).expect("a time");
            let mut checkpoint = store.checkpoint().expect("a checkpoint");
            let mut last = Vec::new();
            for drafts in batches(now) {
                let batch = sealed(checkpoint, drafts);
                last = store.commit(&batch).expect("committed").snapshots;
                assert_eq!(last, model.commit(&batch, now), "dedup {dedup:?}, batch {}", batch.after.batch);
                checkpoint = batch.after;
            }
            for case in CASES.iter().filter(|_| dedup == DEDUP) {
                let is_stored = last.iter().any(|receipt| *receipt.region == *case.name && receipt.id.is_some());
                assert_eq!(is_stored, case.is_stored, "{}", case.name);
            }
            // "back again" has 3, "another" 2; what nobody knows is left alone.
            let above = [("back again", 2), ("another", 2), ("the first", 7), ("nothing to say", 4), ("no such", 4)];
            let above = above.map(|(region, above)| (Arc::from(region), above));
            store.renumber(&above).expect("renumbered");
            model.renumber(&above);
            let mut reader = store::open_snapshots(&url).expect("a reader");
            for region in CASES.iter().map(|case| case.name) {
                let held = reader.history("p", region, 100, None).expect("snapshots");
                let ids: Vec<String> = held.into_iter().map(|one| one.id).collect();
                assert_eq!(ids, model.ids(region), "dedup {dedup:?}: {region}");
            }
            assert_eq!(model.ids("the first"), ["the first.8.xxxxxxxxxxxxxxxx"]);
            // What comes next counts on from there.
            let drafts = batches(now).pop().unwrap_or_default();
            let batch = sealed(checkpoint, drafts);
            assert_eq!(store.commit(&batch).expect("committed").snapshots, model.commit(&batch, now), "dedup {dedup:?}");
        }
    }
}
