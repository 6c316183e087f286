//! `forebay run`: the main job.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use forebay::{Config, Pipeline};
use signal_hook::consts::{SIGINT, SIGTERM, SIGXFSZ};

use super::args::{Global, Run};
use super::bar::Bar;
use super::exit::{Code, Failure};
use super::out::{print_lines, set};
use super::summary;

pub(super) fn run(args: &Run, global: &Global) -> Result<Code, Failure> {
    let config = Config::read(&args.pipeline)?;
    let mut pipeline = Pipeline::from_config(&config)?.drain_timeout(args.drain_timeout);
    if let Some(source) = &args.source {
        pipeline = pipeline.source_path(source);
    }
    if let Some(store) = set(args.store.as_ref()) {
        pipeline =
            pipeline.store_url(store).map_err(|error| super::usage(format!("--store or DATABASE_URL: {error}")))?;
    }
    if let Some(until) = args.until {
        pipeline = pipeline.until(until);
    }
    stop_on_signals(&pipeline.stop_handle().flag())
        .map_err(|error| Failure::new(Code::Failed, format!("cannot watch for signals: {error}")))?;
    let bar = Bar::new(global);
    let shown = bar.clone();
    let result = pipeline.on_progress(move |progress| shown.show(progress)).run();
    bar.clear();
    let report = result?;
    let lines = if args.json { vec![summary::json(&report).to_string()] } else { summary::lines(&report, global) };
    if args.json || !global.quiet {
        print_lines(lines)?;
    }
    Ok(if report.was_stopped { Code::Stopped } else { Code::Done })
}

/// The first signal asks the run to stop; a second one ends the process at once.
fn stop_on_signals(flag: &Arc<AtomicBool>) -> std::io::Result<()> {
    for signal in [SIGINT, SIGTERM] {
        // In this order: at the second signal the flag is set already.
        signal_hook::flag::register_conditional_shutdown(signal, Code::Stopped as i32, Arc::clone(flag))?;
        signal_hook::flag::register(signal, Arc::clone(flag))?;
    }
    // A limit on the size of files is then an error of the write, and not the end of the process.
    signal_hook::flag::register(SIGXFSZ, Arc::new(AtomicBool::new(false)))?;
    Ok(())
}
