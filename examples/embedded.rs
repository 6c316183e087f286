//! Handlers in Rust, embedded: the earthquakes of `examples/quakes`, counted per country.
//!
//! `cargo run --release --example embedded`

use forebay::{Context, EntityRow, EntityTable, Handler, HandlerError, Numeric, Pipeline, Timestamp};

forebay::entity! {
    /// What is known of the earthquakes of one country.
    struct Country in "country" {
        quakes: i64,
        max_mag: f64,
        sum_mag: Numeric,
        last_at: Option<Timestamp>,
    }
    index quakes
}

/// An earthquake; serde takes these fields from the event and passes the others by.
#[derive(serde::Deserialize)]
struct Quake<'e> {
    #[serde(borrow)]
    country: Option<std::borrow::Cow<'e, str>>,
    mag: serde_json::Number,
    #[serde(borrow)]
    time: std::borrow::Cow<'e, str>,
}

struct Countries;

impl Handler for Countries {
    type Event<'e> = Quake<'e>;

    fn entities(&self) -> Vec<EntityTable> {
        vec![Country::table()]
    }

    fn on_event(&self, quake: Quake<'_>, ctx: &mut Context<'_>) -> Result<(), HandlerError> {
        let id = quake.country.as_deref().unwrap_or("none");
        let none = Country { quakes: 0, max_mag: f64::MIN, sum_mag: Numeric::ZERO, last_at: None };
        let mut country = ctx.get::<Country>(id)?.unwrap_or(none);
        country.quakes += 1;
        country.max_mag = country.max_mag.max(quake.mag.as_f64().unwrap_or(f64::MIN));
        country.sum_mag = country.sum_mag + quake.mag.to_string().parse()?;
        country.last_at = Some(quake.time.parse()?);
        ctx.set(id, country)
    }

    fn has_snapshots(&self) -> bool {
        true
    }

    fn on_snapshot(&self, ctx: &mut Context<'_>) -> Result<Option<serde_json::Value>, HandlerError> {
        Ok(Some(serde_json::json!({ "countries": ctx.count::<Country>()? })))
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let report = Pipeline::new("countries", Countries)?
        .source_path(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/quakes/quakes.ndjson.gz"))
        .store_url("sqlite:target/embedded.db")?
        .run()?;
    println!(
        "{} events up to block {:?}, {} rows written",
        report.events, report.checkpoint.block, report.entities_written
    );
    Ok(())
}
