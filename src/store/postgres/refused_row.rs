//! Which row of a batch the database does not take.
//!
//! A batch is one transaction, and the server does not say which of its rows broke a rule. So the rows are written once
//! more, in halves under savepoints, until one is left; then all of it is rolled back.

use postgres::types::Type;

use super::fault::{Fault, Remedy};
use super::session::{Link, Param};
use super::write::{Layout, tuple};
use crate::batch::SealedBatch;
use crate::model::ids::EntityNo;
use crate::rows::codec::{Change, Writer};

/// A row of a batch: table, region in it, place in that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct RowPlace {
    entity: EntityNo,
    region: usize,
    row: usize,
}

/// The row that is to blame.
#[derive(Debug)]
pub(super) struct Blamed {
    pub(super) entity: EntityNo,
    pub(super) region: String,
    pub(super) id: String,
    pub(super) writer: Writer,
    pub(super) fault: Fault,
}

/// Looks for the first row that the database does not take; none if it takes all of them, so that the fault lies
/// elsewhere. Leaves nothing behind.
pub(super) fn find(link: &mut Link, layouts: &[Layout], batch: &SealedBatch) -> Result<Option<Blamed>, Fault> {
    let mut places = Vec::new();
    for (entity, regions) in EntityNo::in_order().zip(&batch.changes) {
        for (region, changes) in regions.iter().enumerate() {
            places.extend((0..changes.rows.len()).map(|row| RowPlace { entity, region, row }));
        }
    }
    // What is checked only at the end of a transaction is checked at once.
    link.run("ROLLBACK; BEGIN; SET CONSTRAINTS ALL IMMEDIATE")?;
    let found = search(link, layouts, batch, &places);
    link.run("ROLLBACK")?;
    let Some((place, fault)) = found? else { return Ok(None) };
    let changes = &batch.changes[place.entity.index()][place.region];
    let id =
        super::binary::fields(tuple(changes, place.row)).nth(1).and_then(|field| field.get(4..)).unwrap_or_default();
    Ok(Some(Blamed {
        entity: place.entity,
        region: changes.region.to_string(),
        id: String::from_utf8_lossy(id).into_owned(),
        writer: changes.rows[place.row].writer,
        fault,
    }))
}

/// The first row of some that is not taken. What comes before it stays written, so that the rest meets it.
fn search(
    link: &mut Link,
    layouts: &[Layout],
    batch: &SealedBatch,
    places: &[RowPlace],
) -> Result<Option<(RowPlace, Fault)>, Fault> {
    let mut rest = places;
    let mut last = None;
    while !rest.is_empty() {
        let half = rest.len().div_ceil(2);
        // A part that was refused whole, and whose first half was not, has it in the second.
        let part = &rest[..half];
        link.run("SAVEPOINT part")?;
        match write(link, layouts, batch, part) {
            Ok(()) => {
                link.run("RELEASE part")?;
                rest = &rest[half..];
            }
            Err(fault) if fault.remedy() == Remedy::Retry => return Err(fault),
            Err(fault) => {
                link.run("ROLLBACK TO part; RELEASE part")?;
                if let [place] = part {
                    return Ok(Some((*place, fault)));
                }
                last = Some(fault);
                rest = part;
            }
        }
    }
    // Rows that are refused together and taken one by one break a rule between them.
    last.map_or(Ok(None), Err)
}

fn write(link: &mut Link, layouts: &[Layout], batch: &SealedBatch, places: &[RowPlace]) -> Result<(), Fault> {
    for part in places.chunk_by(|a, b| a.entity == b.entity) {
        let Some(first) = part.first() else { continue };
        let layout = &layouts[first.entity.index()];
        let of = |is_deleted: bool| {
            let regions = &batch.changes[first.entity.index()];
            let wanted = part
                .iter()
                .filter(move |place| (regions[place.region].rows[place.row].change == Change::Deleted) == is_deleted);
            wanted.map(move |place| tuple(&regions[place.region], place.row))
        };
        if of(false).next().is_some() {
            let arrays = layout.arrays(of(false));
            let places: Vec<String> = (1..=arrays.len()).map(|at| format!("${at}")).collect();
            let params: Vec<Param<'_>> =
                arrays.iter().enumerate().map(|(at, array)| (array as _, layout.array_type(at))).collect();
            link.query(&layout.upsert_from_arrays(&places.join(", "), ""), &params)?;
        }
        if of(true).next().is_some() {
            let [region, id] = Layout::keys(of(true));
            let params = [(&region as _, Type::TEXT_ARRAY), (&id as _, Type::TEXT_ARRAY)];
            link.query(&layout.delete_by_arrays("$1, $2", ""), &params)?;
        }
    }
    Ok(())
}
