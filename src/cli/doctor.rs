//! `forebay doctor`: what stands in the way of a run, before it does. Looks at everything, changes nothing, and says of each
//! thing whether it is well and what to do if it is not.

use std::time::Duration;

use anstyle::{AnsiColor, Style};
use forebay::address::without_logins;
use forebay::config::{PublishConfig, SnapshotsConfig};
use forebay::publish::{self, TargetUrl};
use forebay::store::{self, StoreUrl};
use forebay::{Config, Finding, FindingState, Pipeline, PipelineError};
use serde_json::{Value as Json, json};

use super::addresses;
use super::args::{Doctor, Global};
use super::exit::{Code, Failure};
use super::out::{counted, is_terminal, plain, print_json, print_lines, shown_path, width};
use super::place::DEFAULT_PIPELINE;
use super::usage;

/// How long a source may be silent.
const SOURCE_PATIENCE: Duration = Duration::from_secs(10);

/// Columns before a finding's message: its state, and its name within its group.
const STATE_WIDTH: usize = 9;
const NAME_WIDTH: usize = 20;

/// The least that a line of a message holds, however narrow the terminal is.
const TEXT_WIDTH_MIN: usize = 30;

/// A region that is like others, where none is known.
const ANY_REGION: &str = "region";

/// What is to be looked at.
struct Patient {
    name: Option<String>,
    /// The whole pipeline, if a file has one.
    config: Option<Config>,
    snapshots: SnapshotsConfig,
    store: Option<StoreUrl>,
    target: Option<TargetUrl>,
}

/// Findings about one thing.
struct Group {
    /// What it is.
    title: String,
    /// Which one.
    subject: String,
    findings: Vec<Finding>,
}

pub(super) fn doctor(args: &Doctor, global: &Global) -> Result<Code, Failure> {
    let patient = Patient::of(args)?;
    let mut groups = Vec::new();
    let mut tell = |group: Group| -> Result<(), Failure> {
        if !args.json {
            print_lines(lines(&group, global))?;
        }
        groups.push(group);
        Ok(())
    };
    let (group, region) = patient.examine_pipeline(args)?;
    tell(group)?;
    if let Some(url) = &patient.store {
        let findings = store::examine(url, patient.name.as_deref());
        tell(Group { title: "store".to_owned(), subject: url.to_string(), findings })?;
    }
    if let Some(url) = &patient.target {
        let plan = patient.snapshots.publish_plan(patient.name.as_deref().unwrap_or(DEFAULT_PIPELINE), url.clone());
        let findings = publish::examine(&plan, &region);
        tell(Group { title: url.name().to_lowercase(), subject: url.to_string(), findings })?;
    }
    let findings: Vec<&Finding> = groups.iter().flat_map(|group| &group.findings).collect();
    let count = |state: FindingState| findings.iter().filter(|finding| finding.state == state).count() as u64;
    let is_healthy = count(FindingState::Problem) == 0;
    if args.json {
        let checks: Vec<Json> = findings.iter().map(|finding| as_json(finding)).collect();
        print_json([json!({ "pipeline": patient.name, "healthy": is_healthy, "checks": checks })])?;
    } else if !global.quiet {
        let (problems, warnings) = (count(FindingState::Problem), count(FindingState::Warning));
        print_lines([format!(
            "{}, {}, {} ok; nothing was changed",
            counted(problems, "problem", "problems"),
            counted(warnings, "warning", "warnings"),
            count(FindingState::Ok)
        )])?;
    }
    Ok(if is_healthy { Code::Done } else { Code::Failed })
}

impl Patient {
    fn of(args: &Doctor) -> Result<Self, Failure> {
        let (store, target) = (args.servers.store.as_ref(), args.servers.snapshots.as_ref());
        let Some(file) = &args.pipeline else {
            let found = Self {
                name: None,
                config: None,
                snapshots: SnapshotsConfig::default(),
                store: addresses::any_store(store)?,
                target: addresses::any_target(target, None)?,
            };
            if found.store.is_none() && found.target.is_none() {
                return Err(usage(
                    "what is to be looked at? give PIPELINE.toml, or --store URL or --snapshots URL, or set DATABASE_URL or REDIS_URL",
                ));
            }
            return Ok(found);
        };
        let published = PublishConfig::read(file)?;
        if published.store.is_none() {
            return Ok(Self {
                target: addresses::any_target(target, Some((&published).into()))?,
                name: Some(published.name),
                config: None,
                snapshots: published.snapshots,
                store: addresses::of_option(store, "--store").map(|given| given.store()).transpose()?,
            });
        }
        let config = Config::read(file)?;
        addresses::tell_unused_variable(target, &config);
        Ok(Self {
            name: Some(config.name.clone()),
            snapshots: config.snapshots.clone(),
            store: Some(addresses::store(store, &config)?),
            target: addresses::target(target, &config)?,
            config: Some(config),
        })
    }

    /// What is found of the program, and of handlers and source; and a region to ask about.
    fn examine_pipeline(&self, args: &Doctor) -> Result<(Group, String), Failure> {
        let mut findings = vec![Finding::ok("version", format!("forebay {}", env!("CARGO_PKG_VERSION")))];
        let mut regions = Vec::new();
        if let Some(config) = &self.config {
            regions.extend(config.regions.ids.iter().flatten().cloned());
            if config.source.path.as_deref() == Some("-") {
                findings.push(Finding::ok("source", "not looked at: standard input is for the run"));
            } else {
                let store = self.store.clone();
                match store.into_iter().fold(Pipeline::from_config(config), |made, url| Ok(made?.store_at(url))) {
                    Ok(pipeline) => {
                        let examined = pipeline.examine(SOURCE_PATIENCE);
                        findings.extend(examined.findings);
                        regions.extend(examined.regions);
                    }
                    Err(error @ PipelineError::Lane { .. }) => {
                        findings.push(Finding::of_error("handlers", &error.to_string(), "look at [handlers] script"));
                    }
                    Err(error) => return Err(error.into()),
                }
            }
        }
        if self.name.is_some() {
            findings.push(self.snapshots.examine());
        }
        let subject = match (&self.name, &args.pipeline) {
            (Some(name), Some(file)) => format!("{name} ({})", shown_path(file)),
            _ => "none given; the servers alone are looked at".to_owned(),
        };
        let region = regions.into_iter().next().unwrap_or_else(|| ANY_REGION.to_owned());
        Ok((Group { title: "pipeline".to_owned(), subject, findings }, region))
    }
}

/// A text of a finding, as a person or a program gets it: in one line, without a login.
fn shown(text: &str) -> String {
    plain(&without_logins(text)).into_owned()
}

fn as_json(finding: &Finding) -> Json {
    json!({
        "name": finding.name,
        "state": finding.state.name(),
        "message": shown(&finding.message),
        "advice": finding.advice.as_deref().map(shown),
        // A thousandth of a millisecond is more than a clock knows.
        "value": finding.millis.map(|millis| (millis * 1000.0).round() / 1000.0),
        "unit": finding.millis.map(|_| "ms"),
    })
}

/// A group as it is printed: its title, and below it a line for each finding, with what to do below that.
fn lines(group: &Group, global: &Global) -> Vec<String> {
    let is_coloured = global.is_coloured(&std::io::stdout());
    let style = |style: Style| if is_coloured { style } else { Style::new() };
    let shown_of = |finding: &&Finding| !global.quiet || finding.state != FindingState::Ok;
    let findings: Vec<&Finding> = group.findings.iter().filter(shown_of).collect();
    if findings.is_empty() {
        return Vec::new();
    }
    let (bold, dim) = (style(Style::new().bold()), style(Style::new().dimmed()));
    let mut lines = vec![format!("{bold}{}{bold:#}  {}", group.title, shown(&group.subject))];
    let indent = 2 + STATE_WIDTH + NAME_WIDTH;
    let room = if is_terminal() { width().saturating_sub(indent).max(TEXT_WIDTH_MIN) } else { usize::MAX };
    for finding in findings {
        let colour = style(colour_of(finding.state));
        let state = format!("{colour}{:<STATE_WIDTH$}{colour:#}", finding.state.name());
        // Names say what they are of, and here the title says it.
        let name = finding.name.strip_prefix(&*group.title).and_then(|name| name.strip_prefix('_'));
        let name = name.unwrap_or(finding.name).replace('_', " ");
        for (at, line) in wrapped(&shown(&finding.message), room).into_iter().enumerate() {
            lines.push(match at {
                0 => format!("  {state}{name:<NAME_WIDTH$}{line}"),
                _ => format!("{:indent$}{line}", ""),
            });
        }
        for (at, line) in finding.advice.iter().flat_map(|advice| wrapped(&shown(advice), room - 2)).enumerate() {
            let mark = if at == 0 { "→ " } else { "  " };
            lines.push(format!("{:indent$}{dim}{mark}{line}{dim:#}", ""));
        }
    }
    lines.push(String::new());
    lines
}

fn colour_of(state: FindingState) -> Style {
    match state {
        FindingState::Ok => AnsiColor::Green.on_default(),
        FindingState::Warning => AnsiColor::Yellow.on_default().bold(),
        _ => AnsiColor::Red.on_default().bold(),
    }
}

/// A text in lines of so many characters, broken between words.
fn wrapped(text: &str, room: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    let mut left = 0;
    for word in text.split_whitespace() {
        let length = word.chars().count();
        match lines.last_mut().filter(|_| length < left) {
            Some(line) => {
                line.push(' ');
                line.push_str(word);
                left -= length + 1;
            }
            None => {
                lines.push(word.to_owned());
                left = room.saturating_sub(length);
            }
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_broken_between_words() {
        assert_eq!(wrapped("a bc def ghij", 6), ["a bc", "def", "ghij"]);
        assert_eq!(wrapped("a bc def", usize::MAX), ["a bc def"]);
        assert_eq!(wrapped("muchtoolong x", 3), ["muchtoolong", "x"]);
        assert!(wrapped("", 3).is_empty());
    }
}
