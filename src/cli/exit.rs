//! Exit codes, and how a failure is told.

use std::fmt::Display;
use std::process::ExitCode;

use forebay::{PipelineError, store::StoreError};

use super::args::Global;
use super::log;

/// How a command ended. What each code means stands in [`Code::meaning`], which the help, the man pages and the reference
/// are made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Code {
    Done = 0,
    Failed = 1,
    Usage = 2,
    Unpublished = 3,
    /// As `EX_TEMPFAIL` of `sysexits.h`.
    Locked = 75,
    Stopped = 130,
}

impl Code {
    /// From the smallest.
    pub(super) const ALL: [Self; 6] =
        [Self::Done, Self::Failed, Self::Usage, Self::Unpublished, Self::Locked, Self::Stopped];

    /// What it means, for people; commands stand in backticks.
    pub(super) const fn meaning(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Failed => {
                "failed at run time; of `status`: something is stale, missing, unpublished or another store's; of `doctor`: \
                 there is a problem"
            }
            Self::Usage => "wrong usage, configuration or input",
            Self::Unpublished => {
                "done, but at least one region's snapshot was not published, or there was nothing to publish"
            }
            Self::Locked => "of `seed --lock-fail`: another one has the lock; try again later",
            Self::Stopped => "stopped by a signal: before the run had begun, or after what had begun was finished",
        }
    }

    /// All of them, for the end of a help text.
    pub(super) fn help() -> String {
        let line = |code: &Self| format!("  {:<3}  {}", *code as u8, code.meaning().replace('`', ""));
        format!("Exit codes:\n{}", Self::ALL.iter().map(line).collect::<Vec<_>>().join("\n"))
    }
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

    /// Has the message among the warnings that whoever watches is shown, where the program goes on.
    #[cfg(feature = "serve")]
    pub(super) fn note(&self) {
        log::note_error(&self.message);
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
