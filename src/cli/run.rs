//! `forebay run`: the main job.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use forebay::publish::{OnPublish, UnpublishedRegion};
use forebay::source::Format;
use forebay::{Config, Pipeline, Report};
use signal_hook::consts::{SIGINT, SIGTERM, SIGXFSZ};

use super::addresses;
use super::args::{Global, Run};
use super::bar::Bar;
use super::exit::{Code, Failure};
use super::log;
use super::out::{counted, plain, print_headed, print_json, print_text, shown_path};
use super::summary;
use super::watch::Watching;

/// Regions that are named for one cause; the others are counted.
const REGIONS_NAMED_MAX: usize = 100;

pub(super) fn run(args: &Run, global: &Global) -> Result<Code, Failure> {
    let config = Config::read(&args.pipeline)?;
    log::set_level(global, config.log_level);
    let mut pipeline = prepared(&config, args.store.as_ref(), args.snapshots.as_ref())?;
    pipeline = pipeline.drain_timeout(args.drain_timeout).serial(args.serial).take_over(args.take_over);
    if let Some(source) = &args.source {
        pipeline = pipeline.source_path(source);
    }
    if args.follow {
        pipeline = pipeline.follow(true);
    }
    pipeline = with_format(pipeline, args.format);
    if let Some(until) = args.until {
        pipeline = pipeline.until(until);
    }
    stop_on_signals(&pipeline.stop_handle().flag())?;
    if args.abort {
        return abort(&pipeline, args, global);
    }
    let mut pipeline = pipeline.fresh(args.fresh);
    #[cfg(feature = "serve")]
    let listening = super::serve::listen(&args.server)?;
    let on_publish = on_publish(args, &pipeline)?;
    if let Some(on_publish) = &on_publish {
        pipeline = pipeline.on_publish(on_publish.teller());
    }
    let pictures = Pictures::prepare(args)?;
    #[cfg(feature = "serve")]
    let serving = listening.map(|listening| super::serve::serve(listening, &pipeline, global)).transpose()?;
    let watching = Watching::start(&pipeline, config, global)?;
    let bar = Bar::new(global, pipeline.meter(), pipeline.watched().follows);
    let shown = bar.clone();
    let result = pipeline.on_progress(move |_| shown.show()).run();
    bar.clear();
    if let Some(on_publish) = on_publish {
        on_publish.finish(args.drain_timeout);
    }
    drop(watching);
    #[cfg(feature = "serve")]
    drop(serving);
    let report = match result {
        Ok(report) => report,
        Err(error) => {
            pictures.give_up();
            return Err(error.into());
        }
    };
    if args.json {
        print_json([summary::json(&report)])?;
    } else if !global.quiet {
        let bold =
            if global.is_coloured(&std::io::stdout()) { anstyle::Style::new().bold() } else { anstyle::Style::new() };
        print_headed(&report.pipeline, bold, summary::lines(&report))?;
    }
    if report.quarantined > 0 {
        let events = counted(report.quarantined, "event was", "events were");
        let file = shown_path(&args.pipeline);
        tracing::warn!("{events} put aside in this run; `forebay quarantine {file}` shows what is wrong with them");
    }
    let code = finish(&report);
    pictures.write(&report)?;
    Ok(code)
}

/// Gives up a fresh index that was begun.
fn abort(pipeline: &Pipeline, args: &Run, global: &Global) -> Result<Code, Failure> {
    let removed = pipeline.abort_fresh()?;
    if args.json {
        let removed = removed.map(|was| serde_json::json!({ "block": was.block, "events": was.events }));
        print_json([serde_json::json!({ "removed": removed })])?;
    } else if !global.quiet {
        print_text([match removed {
            None => "no fresh index stands beside: there is nothing to give up".to_owned(),
            Some(was) => format!(
                "removed the fresh index that stood beside: {}, {}",
                was.block.map_or_else(|| "no block".to_owned(), |block| format!("block {block}")),
                counted(was.events, "event", "events")
            ),
        }])?;
    }
    Ok(Code::Done)
}

/// The files that show a run.
struct Pictures<'a> {
    timeline: Option<&'a Path>,
    trace: Option<&'a Path>,
    /// Those that were not there before.
    made: Vec<&'a Path>,
}

impl<'a> Pictures<'a> {
    /// Sees that the files can be written, before the run and not after it. What is in them stays until then.
    fn prepare(args: &'a Run) -> Result<Self, Failure> {
        let mut pictures = Self { timeline: args.timeline.as_deref(), trace: args.trace.as_deref(), made: Vec::new() };
        match pictures.make() {
            Ok(()) => Ok(pictures),
            Err(failure) => {
                pictures.remove();
                Err(failure)
            }
        }
    }

    fn make(&mut self) -> Result<(), Failure> {
        for (option, file, begin) in self.each() {
            let is_new = !file.exists();
            let refused = |cause: String| super::usage(format!("{option} {}: {cause}", shown_path(file)));
            check_content(file, begin).map_err(refused)?;
            let opened = std::fs::OpenOptions::new().create(true).append(true).open(file);
            opened.map_err(|error| refused(error.to_string()))?;
            if is_new {
                self.made.push(file);
            }
        }
        let same =
            |(a, b): (&Path, &Path)| a.canonicalize().ok().zip(b.canonicalize().ok()).is_some_and(|(a, b)| a == b);
        if self.timeline.zip(self.trace).is_some_and(same) {
            return Err(super::usage("--timeline and --trace: expected two files, got one"));
        }
        Ok(())
    }

    /// The files that were asked for: the option, the file, and how such a file begins.
    fn each(&self) -> Vec<(&'static str, &'a Path, &'static str)> {
        let timeline = self.timeline.map(|file| ("--timeline", file, SVG_BEGIN));
        timeline.into_iter().chain(self.trace.map(|file| ("--trace", file, TRACE_BEGIN))).collect()
    }

    /// There is nothing to show.
    fn give_up(self) {
        self.remove();
        for (option, file, _) in self.each() {
            tracing::warn!("{option}: the run failed, so {} was not written", shown_path(file));
        }
    }

    fn remove(&self) {
        for file in &self.made {
            // It is empty, and was made by us.
            let _ = std::fs::remove_file(file);
        }
    }

    fn write(self, report: &Report) -> Result<(), Failure> {
        for (option, file, begin) in self.each() {
            let text = match begin {
                SVG_BEGIN => report.timeline.to_svg(&summary::title(report), &report.limit()),
                _ => report.timeline.to_trace(&report.pipeline).to_string(),
            };
            let written =
                check_content(file, begin).and_then(|()| std::fs::write(file, text).map_err(|error| error.to_string()));
            written.map_err(|cause| {
                let message = format!("{option} {}: {cause}; all of the run is committed", shown_path(file));
                Failure::new(Code::Failed, message)
            })?;
        }
        Ok(())
    }
}

/// How our files begin. Any other file is not written over: it may be the store that was just filled.
const SVG_BEGIN: &str = "<svg ";
const TRACE_BEGIN: &str = "{\"displayTimeUnit\"";

/// Refuses a file that is there and is none of ours.
fn check_content(file: &Path, begin: &str) -> Result<(), String> {
    if !file.is_file() {
        return Ok(());
    }
    let mut found = vec![0; begin.len()];
    let read =
        std::fs::File::open(file).and_then(|mut file| file.read(&mut found)).map_err(|error| error.to_string())?;
    if read == 0 || found == begin.as_bytes() {
        return Ok(());
    }
    Err("the file is there, and was not written by this option; it is left as it is".into())
}

/// What runs the command for each region that was published.
fn on_publish(args: &Run, pipeline: &Pipeline) -> Result<Option<OnPublish>, Failure> {
    if args.on_publish.is_some() && !pipeline.is_published() {
        return Err(super::usage(
            "--on-publish: nothing is published; give --snapshots, or [snapshots] url in the file",
        ));
    }
    super::on_publish::start(args.on_publish.as_ref(), pipeline.name(), args.on_publish_timeout)
}

/// The pipeline of a file, with store and target as they are given.
pub(super) fn prepare(file: &Path, store: Option<&String>, snapshots: Option<&String>) -> Result<Pipeline, Failure> {
    prepared(&Config::read(file)?, store, snapshots)
}

fn prepared(config: &Config, store: Option<&String>, snapshots: Option<&String>) -> Result<Pipeline, Failure> {
    let pipeline = Pipeline::from_config(config)?.store_at(addresses::store(store, config)?);
    addresses::tell_unused_variable(snapshots, config);
    Ok(match addresses::target(snapshots, config)? {
        Some(url) => pipeline.snapshots_url(url),
        None => pipeline,
    })
}

/// The pipeline with another format. CSV that is asked for once more keeps the delimiter of the file.
pub(super) fn with_format(pipeline: Pipeline, format: Option<Format>) -> Pipeline {
    match format.filter(|format| format.name() != pipeline.source_format().name()) {
        Some(format) => pipeline.format(format),
        None => pipeline,
    }
}

/// Tells what was not published; the exit code of a run that came to its end.
pub(super) fn finish(report: &Report) -> Code {
    tell_unpublished(&report.unpublished);
    match report.was_stopped {
        true => Code::Stopped,
        false if report.unpublished.is_empty() => Code::Done,
        false => Code::Unpublished,
    }
}

/// Names the regions whose snapshots are not published, those of one cause together.
fn tell_unpublished(unpublished: &[UnpublishedRegion]) {
    let mut of_cause: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for one in unpublished {
        of_cause.entry(&one.cause).or_default().push(&one.region);
    }
    for (cause, regions) in of_cause {
        let named = regions.len().min(REGIONS_NAMED_MAX);
        let more = match regions.len() - named {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        tracing::error!("not published: {}{more}: {cause}", plain(&regions[..named].join(", ")));
    }
}

/// The first signal asks the run to stop; a second one ends the process at once.
pub(super) fn stop_on_signals(flag: &Arc<AtomicBool>) -> Result<(), Failure> {
    watch_signals(flag).map_err(|error| Failure::new(Code::Failed, format!("cannot watch for signals: {error}")))
}

fn watch_signals(flag: &Arc<AtomicBool>) -> std::io::Result<()> {
    for signal in [SIGINT, SIGTERM] {
        // In this order: at the second signal the flag is set already.
        signal_hook::flag::register_conditional_shutdown(signal, Code::Stopped as i32, Arc::clone(flag))?;
        signal_hook::flag::register(signal, Arc::clone(flag))?;
    }
    // A limit on the size of files is then an error of the write, and not the end of the process.
    signal_hook::flag::register(SIGXFSZ, Arc::new(AtomicBool::new(false)))?;
    Ok(())
}
