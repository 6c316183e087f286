//! `forebay check`: tries a pipeline and writes nothing.

use forebay::config::memory_limit_bytes;
use forebay::store::batch::Quarantined;
use forebay::{Config, Pipeline};

use super::args::{Check, Global};
use super::exit::{Code, Failure};
use super::out::{count, plain, print_text};
use super::run::with_format;

pub(super) fn check(args: &Check, global: &Global) -> Result<Code, Failure> {
    let config = Config::read(&args.pipeline)?;
    let mut pipeline = Pipeline::from_config(&config)?;
    if let Some(source) = &args.source {
        pipeline = pipeline.source_path(source);
    }
    pipeline = with_format(pipeline, args.format);
    // A handler that fails on the sample is what a check is there to find: it is input that is at fault.
    let checked = pipeline.check().map_err(super::usage)?;
    for event in &checked.quarantined {
        let Quarantined { file, line, block, error, .. } = event;
        tracing::warn!("{}", plain(&format!("{file}:{line} (block {block}) would be put aside: {error}")));
    }
    if global.quiet {
        return Ok(Code::Done);
    }
    let entities: Vec<String> =
        config.schema.entities().iter().map(|entity| format!("  entity      {entity}")).collect();
    let mut lines = vec![format!("{} is fine", args.pipeline.display())];
    lines.push(format!("  pipeline    {}", config.name));
    lines.extend(entities);
    lines.push(format!(
        "  handlers    {}{}",
        config.handlers.script.display(),
        if checked.has_snapshots { ", with snapshots" } else { "" }
    ));
    lines.push(memory_line(&config));
    lines.push(match checked.regions.len() {
        0 => "  source      no event was read".to_owned(),
        regions => format!(
            "  source      the first {} events, {} {}, were handled",
            count(checked.events),
            regions,
            if regions == 1 { "region" } else { "regions" }
        ),
    });
    print_text(lines)
}

/// `batch.memory`, and what made its default smaller.
fn memory_line(config: &Config) -> String {
    let mib = config.batch.memory_bytes >> 20;
    let limit = memory_limit_bytes().filter(|limit| *limit / 2 == config.batch.memory_bytes);
    let why = limit
        .map_or_else(String::new, |limit| format!(", a half of the {} MiB that the control group allows", limit >> 20));
    format!("  memory      {mib} MiB{why}")
}
