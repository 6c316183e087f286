//! Sealing the engines: collects what a batch changed, and computes the snapshots as of its end.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::engines::{EnginePool, Job};
use crate::batch::SnapshotDraft;
use crate::batch::open::BatchContents;
use crate::lane::{Assignment, Engine, LaneError, RegionDue, SealedRows};
use crate::model::ids::{BatchClock, BlockNo, EntityNo};
use crate::model::schema::Schema;
use crate::model::timestamp::Timestamp;
use crate::rows::changes::RegionChanges;
use crate::snapshot::{Integers, NOTHING, hash_of_canonical};
use crate::store::RowEncoder;
use crate::undo::push_section;

/// What is to be taken out.
#[derive(Debug)]
pub(super) struct SealRequest {
    /// Regions of which a snapshot is computed, each with its last block, which is what handlers see.
    pub(super) snapshots: Vec<RegionDue>,
    /// Regions that have no event any more, which no handler is asked about: there is nothing to say of them.
    pub(super) without_events: Vec<Arc<str>>,
    /// The block as of which they hold.
    pub(super) block: BlockNo,
    /// What readers have of them was rolled back, so a region without a document has to be reported too.
    pub(super) is_again: bool,
    /// The block behind which before-images are kept; none if none are.
    pub(super) undo_floor: Option<BlockNo>,
}

/// Seals engines: the same way for each batch of a run.
#[derive(Clone)]
pub(super) struct Sealer {
    pub(super) schema: Arc<Schema>,
    /// What brings sealed rows into the store's form.
    pub(super) encoder: Option<Arc<dyn RowEncoder>>,
    /// Top-level fields that do not count when documents are compared.
    pub(super) dedup_ignore: Arc<[String]>,
    /// How integers beyond 2^53 stand in documents.
    pub(super) integers: Integers,
}

/// What one engine hands out: snapshots, rows, before-images.
type FromEngine = (Vec<SnapshotDraft>, Changes, Vec<u8>);

/// Changed rows, by entity.
type Changes = Vec<(EntityNo, RegionChanges)>;

impl Sealer {
    /// Lets every engine compute its snapshots and hand out its changes.
    ///
    /// # Errors
    /// A handler failed, or rows could not be read.
    pub(super) fn seal(
        &self,
        engines: &mut EnginePool,
        clock: BatchClock,
        assignment: &mut Assignment,
        request: SealRequest,
    ) -> Result<BatchContents, LaneError> {
        let SealRequest { snapshots, without_events, block, is_again, undo_floor } = request;
        let mut regions_of: BTreeMap<usize, Vec<RegionDue>> =
            engines.made().into_iter().map(|at| (at, Vec::new())).collect();
        for due in snapshots {
            let engine = assignment.engine_for(due.0, 0);
            regions_of.entry(engine).or_default().push(due);
        }
        let job = |(engine, regions): (usize, Vec<RegionDue>)| {
            let sealer = self.clone();
            let seal = move |engine: &mut dyn Engine| {
                let documents = engine.snapshots(&regions)?;
                let named = regions.iter().map(|(_, name, _)| name).zip(documents);
                let drafts = named.map(|(name, document)| sealer.draft(name, document, block, is_again)).collect();
                let (changes, before_images) = sealer.rows(engine, undo_floor)?;
                Ok((drafts, changes, before_images))
            };
            (engine, Box::new(seal) as Job<_>)
        };
        let jobs = regions_of.into_iter().map(job).collect();
        let sealed = engines.each::<FromEngine>(clock, jobs)?;
        let nothing = without_events.iter().map(|name| self.draft(name, None, block, false)).collect();
        let rest = (nothing, Changes::new(), Vec::new());
        Ok(self.gather(sealed.into_iter().map(|(_, sealed)| sealed).chain([rest])))
    }

    fn draft(&self, name: &Arc<str>, document: Option<String>, block: BlockNo, is_again: bool) -> SnapshotDraft {
        let document = document.or(is_again.then(|| NOTHING.to_owned()));
        let doc = document.map(|document| self.integers.written(document));
        let hash = hash_of_canonical(doc.as_deref().unwrap_or(NOTHING), &self.dedup_ignore);
        SnapshotDraft {
            region: Arc::clone(name),
            block: block.get(),
            generated_at: Timestamp::now(),
            hash,
            doc: doc.map(Arc::from),
        }
    }

    fn rows(&self, engine: &mut dyn Engine, undo_floor: Option<BlockNo>) -> Result<(Changes, Vec<u8>), LaneError> {
        let SealedRows { mut changes, history } = engine.seal(undo_floor)?;
        if let Some(encoder) = &self.encoder {
            let encode = |(entity, rows)| Ok::<_, LaneError>((entity, encoder.encode(entity, rows)?));
            changes = changes.into_iter().map(encode).collect::<Result<_, _>>()?;
        }
        let mut before_images = Vec::new();
        for (entity, region) in history {
            push_section(&self.schema[entity], &region, &mut before_images);
        }
        Ok((changes, before_images))
    }

    /// Puts together what engines hand out, ordered by region.
    fn gather(&self, sealed: impl Iterator<Item = FromEngine>) -> BatchContents {
        let mut contents =
            BatchContents { changes: vec![Vec::new(); self.schema.entities().len()], ..BatchContents::default() };
        for (drafts, changes, before_images) in sealed {
            contents.snapshots.extend(drafts);
            contents.before_images.extend(before_images);
            for (entity, region) in changes {
                contents.changes[entity.index()].push(region);
            }
        }
        contents.snapshots.sort_by(|a, b| a.region.cmp(&b.region));
        for regions in &mut contents.changes {
            regions.sort_by(|a, b| a.region.cmp(&b.region));
        }
        contents
    }
}
