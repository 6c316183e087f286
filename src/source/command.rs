//! A program whose output is the stream.
//!
//! It is told where to go on, and started again from there after an outage. A program that knows no positions begins at
//! its beginning each time: then what it gave before is left out, if it is the same.

use std::io::BufReader;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::digest::{EventDigest, chain};
use super::fields::Fields;
use super::format::{CutError, Cutter, Format};
use super::growing::{Piped, Unfinished, WholeLines};
use super::{Next, Position, Resumed, Source, SourceError, SourceEvent};
use crate::model::setting::SettingError;
use crate::model::source_progress::SourceDigest;
use crate::model::text::plain;
use crate::program::{Program, told};

/// Where the last position stands in an argument.
const PLACEHOLDER: &str = "{position}";
/// The longest pause between two starts.
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// How long outages may last, one after another.
const OUTAGE_MAX: Duration = Duration::from_secs(300);
/// How long is waited at a time.
const WAIT: Duration = Duration::from_millis(20);
/// What a shell ends with if it cannot start the program.
const NOT_STARTED: [i32; 2] = [126, 127];

/// Which program, and how it is started.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CommandPlan {
    /// The program and its arguments. `{position}` in them is the last position, and so is the variable
    /// `FOREBAY_POSITION`.
    pub command: Vec<String>,
    /// What stands there as long as there is no position.
    pub start: String,
    /// How long is waited until a program that has ended is started again, if it is followed; and after its first outage.
    pub restart: Duration,
}

impl CommandPlan {
    /// The pause that there is unless another is given.
    pub const RESTART: Duration = Duration::from_secs(1);

    /// That program with its arguments.
    ///
    /// # Errors
    /// There is none.
    pub fn new(command: Vec<String>) -> Result<Self, SettingError> {
        match command.first() {
            Some(name) if !name.is_empty() => Ok(Self { command, start: String::new(), restart: Self::RESTART }),
            _ => Err(SettingError::new("command: expected a program and its arguments, such as [\"kcat\", \"-C\"]")),
        }
    }

    /// The command with that position.
    fn at(&self, position: &str) -> Vec<String> {
        self.command.iter().map(|part| part.replace(PLACEHOLDER, position)).collect()
    }
}

/// Events that a program writes.
pub struct CommandSource {
    plan: CommandPlan,
    follows: bool,
    origin: Arc<str>,
    cutter: Cutter,
    running: Option<Running>,
    /// The position after the last event.
    position: Option<Position>,
    /// Whether events have positions.
    has_positions: bool,
    /// Lines that were given since the last position, or of all.
    given: Given,
    /// What of it the program has given again.
    again: Given,
    pause: Pause,
}

/// A program that runs, and what it writes.
struct Running {
    program: Program,
    lines: BufReader<WholeLines<Piped>>,
    unfinished: Arc<Unfinished>,
    /// How the program has ended, while its last line is read.
    ended_with: Option<ExitStatus>,
}

/// Events by their number, and what they were.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Given {
    events: u64,
    content: SourceDigest,
}

impl Given {
    fn add(&mut self, event: &SourceEvent) {
        self.events += 1;
        self.content = chain(self.content, EventDigest::of_line(event));
    }
}

/// When the program is started.
#[derive(Debug, Default)]
struct Pause {
    until: Option<Instant>,
    /// Since when nothing but outages have come.
    out_since: Option<Instant>,
    last: Duration,
}

impl CommandSource {
    /// A source over a program. With `follows` the program is started again whenever it has ended.
    pub fn new(plan: CommandPlan, format: Format, fields: Fields, follows: bool) -> Self {
        let origin = plan.command.first().map_or_else(|| Arc::from("command"), |name| Arc::from(&*plain(name)));
        Self {
            has_positions: fields.position.is_some(),
            plan,
            follows,
            origin,
            cutter: Cutter::new(format, fields),
            running: None,
            position: None,
            given: Given::default(),
            again: Given::default(),
            pause: Pause::default(),
        }
    }

    fn start(&mut self) -> Result<(), SourceError> {
        let position = self.position.as_ref().map_or(self.plan.start.as_str(), Position::as_str);
        let cannot = |cause: std::io::Error| SourceError::Other(format!("cannot run {}: {cause}", self.origin));
        let variables = [("FOREBAY_POSITION", position)];
        let (program, stdout) = Program::read(&self.plan.at(position), &variables).map_err(cannot)?;
        let unfinished: Arc<Unfinished> = Arc::default();
        let piped = Piped::start(stdout).map_err(cannot)?;
        let lines = BufReader::new(WholeLines::new(piped, Arc::clone(&unfinished)));
        self.running = Some(Running { program, lines, unfinished, ended_with: None });
        self.cutter.begin();
        self.again = Given::default();
        Ok(())
    }

    /// Reads the next event, none for now, or of a program that has written all.
    fn read(&mut self, event: &mut SourceEvent) -> Result<Option<Next>, SourceError> {
        let Some(running) = &mut self.running else { return Ok(None) };
        let cut = self.cutter.next(&mut running.lines, event);
        let is_over = running.lines.get_ref().inner().is_over();
        match self.name(cut, event)? {
            true => Ok(Some(Next::Event)),
            false if is_over => Ok(None),
            false => Ok(Some(Next::Pending)),
        }
    }

    /// Says of an event, or of an error, that it is of the program.
    fn name(&self, cut: Result<bool, CutError>, event: &mut SourceEvent) -> Result<bool, SourceError> {
        let origin = Arc::clone(&self.origin);
        let is_event = cut.map_err(|error| match error {
            CutError::Input { line, message } => SourceError::Broken { origin, line, message },
            CutError::Read { cause, .. } => SourceError::Read { origin, cause },
        })?;
        if is_event && !Arc::ptr_eq(&event.origin, &self.origin) {
            event.origin = Arc::clone(&self.origin);
        }
        Ok(is_event)
    }

    /// The program has written all: says what comes next.
    fn ended(&mut self, event: &mut SourceEvent) -> Result<Option<Next>, SourceError> {
        let Some(running) = &mut self.running else { return Ok(Some(Next::Pending)) };
        let cannot = |cause: std::io::Error| SourceError::Other(format!("waiting for {}: {cause}", self.origin));
        let status = match running.ended_with.take() {
            Some(status) => status,
            None => running.program.wait().map_err(cannot)?,
        };
        if status.success() {
            // What has no line end is a line all the same.
            if running.unfinished.finish() {
                running.ended_with = Some(status);
                return Ok(None);
            }
            let cut = self.cutter.end(event);
            if self.name(cut, event)? {
                self.running.iter_mut().for_each(|running| running.ended_with = Some(status));
                return Ok(Some(Next::Event));
            }
        }
        self.running = None;
        if status.success() {
            self.all_again()?;
            if !self.follows {
                return Ok(Some(Next::End));
            }
            self.pause.begin(self.plan.restart);
            return Ok(Some(Next::Pending));
        }
        let (name, told) = (&self.origin, told(status));
        if status.code().is_some_and(|code| NOT_STARTED.contains(&code)) {
            return Err(SourceError::Other(format!("cannot run {name}: it {told}; expected a program that is there")));
        }
        match self.pause.outage(self.plan.restart) {
            Some(pause) => {
                tracing::warn!("{name} {told}; it is started again in {:.1} s, {}", pause.as_secs_f64(), self.place());
                Ok(Some(Next::Pending))
            }
            None => Err(SourceError::Other(format!(
                "{name} {told}, and so it went for {} minutes: it gives no event; what it gave before is committed",
                OUTAGE_MAX.as_secs() / 60
            ))),
        }
    }

    /// Where it goes on.
    fn place(&self) -> String {
        match &self.position {
            Some(position) => format!("from the position {:?}", plain(position.as_str())),
            None => "from its beginning".to_owned(),
        }
    }

    /// A program that ends well has given again all that it gave before.
    fn all_again(&self) -> Result<(), SourceError> {
        if self.again.events >= self.given.events {
            return Ok(());
        }
        Err(SourceError::Other(format!(
            "{} has ended after {} events, and it gave {} before: it is not the whole any more",
            self.origin, self.again.events, self.given.events
        )))
    }

    /// Whether the event was given before the program was started again.
    fn came_before(&mut self, event: &SourceEvent) -> Result<bool, SourceError> {
        if self.again.events == self.given.events {
            self.given.add(event);
            self.again = self.given;
            return Ok(false);
        }
        self.again.add(event);
        if self.again.events == self.given.events && self.again != self.given {
            let message = "the program was started again and gives other events than before; give each event a position \
                           ([source] position), so that it goes on behind the last one";
            return Err(SourceError::of_event(event, message));
        }
        Ok(true)
    }
}

impl Pause {
    /// Waits before the next start.
    fn begin(&mut self, pause: Duration) {
        self.until = Some(Instant::now() + pause);
    }

    /// An outage: waits longer each time; none if they have lasted too long.
    fn outage(&mut self, first: Duration) -> Option<Duration> {
        let since = *self.out_since.get_or_insert_with(Instant::now);
        self.last = if self.last.is_zero() { first } else { (self.last * 2).min(PAUSE_MAX.max(first)) };
        self.begin(self.last);
        (since.elapsed() < OUTAGE_MAX).then_some(self.last)
    }

    /// An event has come.
    fn end(&mut self) {
        (self.out_since, self.last) = (None, Duration::ZERO);
    }
}

impl Source for CommandSource {
    fn next(&mut self, event: &mut SourceEvent) -> Result<Next, SourceError> {
        loop {
            if self.running.is_none() {
                if let Some(until) = self.pause.until {
                    let left = until.saturating_duration_since(Instant::now());
                    if !left.is_zero() {
                        std::thread::park_timeout(left.min(WAIT));
                        return Ok(Next::Pending);
                    }
                }
                self.start()?;
            }
            let next = match self.read(event)? {
                Some(next) => next,
                None => match self.ended(event)? {
                    Some(next) => next,
                    None => continue,
                },
            };
            if next != Next::Event {
                return Ok(next);
            }
            if self.came_before(event)? {
                continue;
            }
            self.pause.end();
            if let Some(position) = event.position.as_ref().filter(|_| self.has_positions) {
                // It goes on behind this one.
                self.position = Some(position.clone());
                (self.given, self.again) = (Given::default(), Given::default());
            }
            return Ok(Next::Event);
        }
    }

    fn resume(&mut self, after: &Position) -> Result<Resumed, SourceError> {
        if !self.has_positions {
            return Ok(Resumed::FromStart);
        }
        self.position = Some(after.clone());
        Ok(Resumed::After)
    }

    fn trouble(&self) -> Option<String> {
        let is_out = self.pause.out_since.is_some();
        is_out.then(|| format!("{} has failed and is started again, {}", self.origin, self.place()))
    }

    fn is_ready(&self) -> bool {
        self.running.as_ref().is_none_or(|running| self.cutter.is_ready(running.lines.buffer()))
    }
}
