//! Numbers in the text format of Prometheus.
//!
//! Names, labels and units are promised (docs/reference.md). Written by hand: what is watched has counted its numbers, and a
//! library of metrics would count them a second time.

use std::fmt::{Display, Write};
use std::time::Duration;

use crate::model::durations::{BUCKET_MILLIS, Durations};
use crate::run::RunPhase;

/// The type of all of it.
pub(super) const KIND: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The text, and the label that all of it has.
pub(super) struct Text {
    out: String,
    pipeline: String,
}

impl Text {
    /// Begins with what is said of a run and of a seeder alike.
    pub(super) fn of(pipeline: &str, phase: RunPhase, is_ready: bool) -> Self {
        let mut text = Self { out: String::with_capacity(16 * 1024), pipeline: escaped(pipeline) };
        text.family("forebay_build_info", "gauge", "The program that runs; always 1.");
        text.sample("forebay_build_info", &[("version", env!("CARGO_PKG_VERSION"))], 1);
        text.family("forebay_phase", "gauge", "How far it has come: 1 for the phase that it is in.");
        for one in RunPhase::ALL {
            text.sample("forebay_phase", &[("phase", one.name())], u8::from(one == phase));
        }
        text.one("forebay_ready", "gauge", "1 when /ready is 200.", u8::from(is_ready));
        text
    }

    pub(super) fn out(self) -> String {
        self.out
    }

    pub(super) fn family(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a text cannot fail.
        let _ = write!(self.out, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }

    pub(super) fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        let _ = write!(self.out, "{name}{{pipeline=\"{}\"", self.pipeline);
        for (label, of) in labels {
            let _ = write!(self.out, ",{label}=\"{}\"", escaped(of));
        }
        let _ = writeln!(self.out, "}} {value}");
    }

    pub(super) fn one(&mut self, name: &str, kind: &str, help: &str, value: impl Display) {
        self.family(name, kind, help);
        self.sample(name, &[], value);
    }

    /// What is not known is left out: 0 would be a lie.
    pub(super) fn optional(&mut self, name: &str, kind: &str, help: &str, value: Option<impl Display>) {
        self.family(name, kind, help);
        if let Some(value) = value {
            self.sample(name, &[], value);
        }
    }

    pub(super) fn histogram(&mut self, name: &str, help: &str, durations: &Durations) {
        self.family(name, "histogram", help);
        let (bucket, mut below) = (format!("{name}_bucket"), 0);
        for (millis, number) in BUCKET_MILLIS.iter().zip(durations.buckets) {
            below += number;
            let bound = Duration::from_millis(*millis).as_secs_f64().to_string();
            self.sample(&bucket, &[("le", &bound)], below);
        }
        self.sample(&bucket, &[("le", "+Inf")], durations.count);
        self.sample(&format!("{name}_sum"), &[], durations.sum.as_secs_f64());
        self.sample(&format!("{name}_count"), &[], durations.count);
    }
}

/// The value of a label.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}
