//! `forebay init`: a working pipeline to start from.

use std::fs;
use std::path::Path;

use super::args::{Global, Init};
use super::exit::{Code, Failure};
use super::out::{print_text, shown_path};

/// The files of the starter.
const FILES: [(&str, &str); 3] = [
    ("pipeline.toml", include_str!("starter/pipeline.toml")),
    ("handlers.lua", include_str!("starter/handlers.lua")),
    ("events.ndjson", include_str!("starter/events.ndjson")),
];

pub(super) fn init(args: &Init, global: &Global) -> Result<Code, Failure> {
    let dir = &args.dir;
    // All or nothing: what is there already is never overwritten.
    if let Some((name, _)) = FILES.iter().find(|(name, _)| dir.join(name).exists()) {
        return Err(super::usage(format!("{} is there already; choose a new folder", shown_path(&dir.join(name)))));
    }
    write_all(dir).map_err(|error| Failure::new(Code::Failed, format!("cannot make {}: {error}", shown_path(dir))))?;
    if global.quiet {
        return Ok(Code::Done);
    }
    let pipeline = dir.join("pipeline.toml");
    let pipeline = shown_path(&pipeline);
    let mut lines: Vec<String> =
        FILES.iter().map(|(name, _)| format!("made {}", shown_path(&dir.join(name)))).collect();
    lines.push("next:".into());
    lines.push(format!("  forebay run {pipeline}"));
    lines.push(format!("  forebay latest --config {pipeline}"));
    print_text(lines)
}

fn write_all(dir: &Path) -> std::io::Result<()> {
    fs::create_dir_all(dir)?;
    FILES.iter().try_for_each(|(name, text)| fs::write(dir.join(name), text))
}
