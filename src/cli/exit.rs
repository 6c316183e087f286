//! Exit codes, and how a failure is told.

use std::fmt::Display;
use std::process::ExitCode;

use forebay::{PipelineError, store::StoreError};

use super::args::Global;
use super::log;

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Code {
    /// Done.
    Done = 0,
    /// Failed at run time; of `status`: not healthy.
    Failed = 1,
    /// Wrong usage, configuration or input.
    Usage = 2,
    /// Done, but at least one region's snapshot could not be published.
    Unpublished = 3,
    /// Another one has the lock. As `EX_TEMPFAIL` of `sysexits.h`: try again later.
    Locked = 75,
    /// Stopped by a signal, before the run had begun or after a clean drain.
    Stopped = 130,
}

impl From<Code> for ExitCode {
    fn from(code: Code) -> Self {
        Self::from(code as u8)
    }
}

/// Why a command did not do what it was asked.
#[derive(Debug)]
pub(super) struct Failure {
    code: Code,
    message: String,
}

impl Failure {
    pub(super) fn new(code: Code, message: impl Display) -> Self {
        Self { code, message: message.to_string() }
    }

    /// Prints the message and gives the exit code.
    pub(super) fn tell(&self, global: &Global) -> ExitCode {
        log::error(global, &self.message);
        self.code.into()
    }
}

impl From<PipelineError> for Failure {
    fn from(error: PipelineError) -> Self {
        let code = match &error {
            error if error.is_stopped_at_start() => Code::Stopped,
            error if error.is_input() => Code::Usage,
            _ => Code::Failed,
        };
        Self::new(code, error)
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::new(Code::Failed, error)
    }
}

impl From<forebay::publish::PublishError> for Failure {
    fn from(error: forebay::publish::PublishError) -> Self {
        Self::new(Code::Failed, error)
    }
}

impl From<forebay::ConfigError> for Failure {
    fn from(error: forebay::ConfigError) -> Self {
        Self::new(Code::Usage, error)
    }
}

impl From<std::io::Error> for Failure {
    /// Writing to stdout failed.
    fn from(error: std::io::Error) -> Self {
        Self::new(Code::Failed, format!("cannot write to stdout: {error}"))
    }
}
