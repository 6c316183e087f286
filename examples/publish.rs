//! Only the publishing: documents that a program has computed, to Redis, all regions in one round trip.
//!
//! `cargo run --example publish -- redis://localhost`

use forebay::publish::{Extent, Publication, PublishPlan, Publisher};
use serde_json::json;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url = std::env::args().nth(1).ok_or("expected the address of a Redis server, such as redis://localhost")?;
    let mut publisher = Publisher::new(PublishPlan::new("example", url.parse()?))?;
    let time = forebay::Timestamp::now();
    // It must grow from one publish to the next; the time does.
    let seq = u64::try_from(time.as_micros() / 1000)?;
    let items: Vec<Publication> = ["mena", "europe", "latam"]
        .into_iter()
        .map(|region| Publication::new(region, seq, json!({ "region": region, "risk": region.len() })).with_time(time))
        .collect();
    // Blocks. The publisher keeps its connections: the next publish takes one round trip.
    let published = publisher.publish(&items, Extent::Whole { is_clean: true });
    for receipt in &published.receipts {
        match &receipt.outcome {
            Ok(status) => println!("{}: {status:?}, {}", receipt.region, receipt.id),
            Err(error) => println!("{}: {error}", receipt.region),
        }
    }
    println!("{} round trips, {:?}", published.round_trips, published.wall);
    Ok(())
}
