//! `--on-publish`: a command for each region that was published.

use std::time::Duration;

use forebay::limits::DRAIN_TIMEOUT;
use forebay::publish::{OnPublish, Published};

use super::exit::{Code, Failure};
use super::usage;

/// How long `publish` and `seed` wait for the commands at their end.
const END_MAX: Duration = Duration::from_secs(600);

/// Starts what runs the command, if one is given.
pub(super) fn start(command: Option<&String>, pipeline: &str, timeout: Duration) -> Result<Option<OnPublish>, Failure> {
    let Some(command) = command else { return Ok(None) };
    if command.trim().is_empty() {
        return Err(usage("--on-publish: expected a command, such as 'curl -fsS https://example.org/$FOREBAY_REGION'"));
    }
    if timeout.is_zero() {
        return Err(usage("--on-publish-timeout: expected a duration above zero"));
    }
    let started = OnPublish::start(command, pipeline, timeout);
    started
        .map(Some)
        .map_err(|error| Failure::new(Code::Failed, format!("--on-publish: cannot start a thread: {error}")))
}

/// Notes what was published.
pub(super) fn tell(on_publish: Option<&OnPublish>, published: &Published) {
    if let Some(on_publish) = on_publish {
        published.receipts.iter().for_each(|receipt| on_publish.tell(receipt));
    }
}

/// Waits for the commands, each of which has its own time.
pub(super) fn finish(on_publish: Option<OnPublish>) {
    finish_within(on_publish, END_MAX);
}

/// Waits for the commands after a stop.
pub(super) fn finish_soon(on_publish: Option<OnPublish>) {
    finish_within(on_publish, DRAIN_TIMEOUT);
}

fn finish_within(on_publish: Option<OnPublish>, within: Duration) {
    if let Some(on_publish) = on_publish {
        on_publish.finish(within);
    }
}
