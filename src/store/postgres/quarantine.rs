//! Events that were put aside, as parameters of their batch's statement and back.

use postgres::types::Type;

use super::binary::{Moment, RawArray};
use super::fault::Fault;
use super::home::Home;
use super::session::Link;
use crate::batch::{QuarantineStage, Quarantined};
use crate::store::sql::{signed, unsigned};

/// The columns of some events: number, file, line, block, place, region, stage, error, event, time.
pub(super) fn arrays(events: &[Quarantined]) -> [(RawArray, Type); 10] {
    let texts = |text: fn(&Quarantined) -> &str| (RawArray::of_texts(events.iter().map(text)), Type::TEXT_ARRAY);
    let numbers = |number: fn(&Quarantined) -> i64| (RawArray::of_int8s(events.iter().map(number)), Type::INT8_ARRAY);
    let (mut places, mut regions) = (RawArray::new(Type::INT8), RawArray::new(Type::TEXT));
    for event in events {
        match event.place {
            Some(place) => places.push_int8(place),
            None => places.push_null(),
        }
        match &event.region {
            Some(region) => regions.push_text(region),
            None => regions.push_null(),
        }
    }
    [
        (RawArray::of_int8s(1..=signed(events.len() as u64)), Type::INT8_ARRAY),
        texts(|event| &event.file),
        numbers(|event| signed(event.line)),
        numbers(|event| event.block),
        (places, Type::INT8_ARRAY),
        (regions, Type::TEXT_ARRAY),
        texts(|event| event.stage.name()),
        texts(|event| &event.error),
        texts(|event| &event.event),
        (RawArray::of_times(events.iter().map(|event| event.time)), Type::TIMESTAMPTZ_ARRAY),
    ]
}

/// How many events of a pipeline were put aside. A database of an earlier version has none.
pub(super) fn count(link: &mut Link, home: &Home) -> Result<u64, Fault> {
    if !home.has("quarantine") {
        return Ok(0);
    }
    let rows = link.query(&format!("SELECT count(*) FROM {} q", home.table("quarantine")), &[])?;
    rows.first().map_or(Ok(0), |row| Ok(unsigned(row.try_get(0)?)))
}

/// The events of a pipeline that were put aside, in their order.
pub(super) fn read(link: &mut Link, home: &Home) -> Result<Vec<Quarantined>, Fault> {
    if !home.has("quarantine") {
        return Ok(Vec::new());
    }
    let sql = format!(
        "SELECT file, line, block, place, region, stage, error, event, time FROM {} q ORDER BY batch, number",
        home.table("quarantine")
    );
    let event = |row: &postgres::Row| {
        let Moment(time) = row.try_get(8)?;
        Ok(Quarantined {
            file: row.try_get::<_, String>(0)?.into(),
            line: unsigned(row.try_get(1)?),
            block: row.try_get(2)?,
            place: row.try_get(3)?,
            region: row.try_get::<_, Option<String>>(4)?.map(Into::into),
            stage: QuarantineStage::of_name(&row.try_get::<_, String>(5)?),
            error: row.try_get(6)?,
            event: row.try_get(7)?,
            time,
        })
    };
    link.query(&sql, &[])?.iter().map(event).collect()
}
