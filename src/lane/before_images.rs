//! Before-images on their way from the lanes into the undo record of their batch.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::Arc;

use super::{Ask, LaneError, Loader, Wanted};
use crate::model::ids::{BlockNo, EntityNo};
use crate::model::schema::Schema;
use crate::rows::codec::Decoder;
use crate::undo::{BeforeImages, push_absent, push_row};

/// A row that was written without being cached. Its before-image is what is committed, since no uncommitted batch has
/// changed it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct UnseenWrite {
    pub(super) entity: EntityNo,
    pub(super) region: Arc<str>,
    pub(super) id: Box<str>,
    /// The first block of the batch that wrote it.
    pub(super) block: BlockNo,
}

/// Reads from the store the before-images of rows that were written without being read, with one query per table. Must
/// be called before their batch is handed over.
pub(super) fn read_unseen(
    loader: &mut Loader,
    schema: &Schema,
    mut unknown: Vec<UnseenWrite>,
) -> Result<Vec<(EntityNo, BeforeImages)>, LaneError> {
    unknown.sort_unstable();
    let mut found = Vec::new();
    for of_entity in unknown.chunk_by(|a, b| a.entity == b.entity) {
        let Some(entity) = of_entity.first().map(|first| first.entity) else { continue };
        let described = &schema[entity];
        let regions: Vec<&[UnseenWrite]> = of_entity.chunk_by(|a, b| a.region == b.region).collect();
        let mut wanted = Vec::with_capacity(regions.len());
        for of_region in &regions {
            let mut ids: Vec<&str> = of_region.iter().map(|unknown| &*unknown.id).collect();
            ids.dedup();
            wanted.push(Wanted { region: &of_region[0].region, ids, ask: Ask::Ids });
        }
        for (of_region, loaded) in regions.iter().zip(loader.load(entity, &wanted)?) {
            let mut rows: HashMap<&str, Range<usize>> = HashMap::new();
            let mut decoder = Decoder::new(described, &loaded.packed, 0);
            while !decoder.is_at_end() {
                let start = decoder.at();
                let head = decoder.skip()?;
                rows.insert(head.id, start..decoder.at());
            }
            let mut entries = Vec::new();
            for UnseenWrite { id, block, .. } in *of_region {
                match rows.get(&**id) {
                    Some(row) => push_row(*block, &loaded.packed[row.clone()], &mut entries),
                    None => push_absent(*block, id, &mut entries),
                }
            }
            found.push((entity, BeforeImages { region: Arc::clone(&of_region[0].region), entries }));
        }
    }
    Ok(found)
}

/// What a batch changed, and the before-images.
#[derive(Debug, Default)]
pub(crate) struct SealedRows {
    /// The rows that changed: entity, and rows of one region. In any order.
    pub(crate) changes: Vec<(EntityNo, crate::rows::changes::RegionChanges)>,
    /// Before-images; of the same row, the one read from the store comes first.
    pub(crate) history: Vec<(EntityNo, BeforeImages)>,
}

/// Gathers entries by table and region.
#[derive(Debug, Default)]
pub(super) struct Gathered(BTreeMap<(EntityNo, Arc<str>), Vec<u8>>);

impl Gathered {
    pub(super) fn entries(&mut self, entity: EntityNo, region: &Arc<str>) -> &mut Vec<u8> {
        self.0.entry((entity, Arc::clone(region))).or_default()
    }

    pub(super) fn into_images(self) -> impl Iterator<Item = (EntityNo, BeforeImages)> {
        self.0.into_iter().map(|((entity, region), entries)| (entity, BeforeImages { region, entries }))
    }
}
