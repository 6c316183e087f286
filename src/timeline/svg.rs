//! The picture of a run: one row per stage, one bar per batch, waits as thin lines.

use std::fmt::Write as _;
use std::time::Duration;

use super::{Activity, Span, Stage, Timeline};

const WIDTH: f64 = 960.0;
const LEFT: f64 = 84.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 64.0;
const ROW: f64 = 44.0;
const BAR: f64 = 26.0;
/// Bars that would be narrower are drawn with their neighbours as one.
const BAR_WIDTH_MIN: f64 = 2.5;
/// Bars from this width on carry the number of their batch.
const LABEL_WIDTH_MIN: f64 = 18.0;

/// The rows from top to bottom; staged batches have one of their own.
const ROWS: [(&str, Option<Stage>); 5] = [
    ("read", Some(Stage::Read)),
    ("handlers", Some(Stage::Handlers)),
    ("staged", None),
    ("commit", Some(Stage::Commit)),
    ("publish", Some(Stage::Publish)),
];

const STYLE: &str = "text{font:12px system-ui,-apple-system,'Segoe UI',sans-serif;fill:#1f2328}
.ground{fill:#fff}.title{font-size:14px;font-weight:600}.soft{fill:#59636e}.grid{stroke:#d1d9e0}.in{fill:#fff;text-anchor:middle;font-size:11px}
.work{fill:#2563a8}.work.odd{fill:#4a90d9}.seal{fill:#a8620a}.staged{fill:url(#shade);stroke:#8c959f}.wait{stroke:#c2410c;stroke-width:2}.read{fill:#6e7781}
@media(prefers-color-scheme:dark){text{fill:#e6edf3}.ground{fill:#0d1117}.soft{fill:#9198a1}.grid{stroke:#30363d}
.work{fill:#3b82c4}.work.odd{fill:#1d5a96}.seal{fill:#d99a35}.staged{stroke:#6e7681}.wait{stroke:#f0883e}.read{fill:#6e7681}.in{fill:#fff}}";

pub(super) fn draw(timeline: &Timeline, title: &str, note: &str) -> String {
    let scale = Scale { end: timeline.end().max(Duration::from_micros(1)) };
    let rows: Vec<&(&str, Option<Stage>)> = ROWS
        .iter()
        .filter(|(_, stage)| stage.is_none_or(|stage| stage != Stage::Publish || !timeline.spans(stage).is_empty()))
        .collect();
    let bottom = TOP + ROW * rows.len() as f64;
    let notes = wrapped(note, 130);
    let height = bottom + 62.0 + 17.0 * notes.len() as f64;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height:.0}\" role=\"img\" aria-label=\"{}\">\n<style>{STYLE}</style>\n\
         <defs><pattern id=\"shade\" width=\"6\" height=\"6\" patternUnits=\"userSpaceOnUse\" patternTransform=\"rotate(45)\">\
         <rect width=\"6\" height=\"6\" fill=\"#8c959f\" fill-opacity=\".15\"/><rect width=\"2\" height=\"6\" fill=\"#8c959f\" fill-opacity=\".55\"/></pattern></defs>\n\
         <rect class=\"ground\" width=\"{WIDTH}\" height=\"{height:.0}\"/>\n<text class=\"title\" x=\"16\" y=\"26\">{}</text>\n",
        escaped(title),
        escaped(title)
    );
    legend(&mut svg);
    scale.draw(&mut svg, bottom);
    for (at, (name, stage)) in rows.iter().enumerate() {
        let y = TOP + ROW * at as f64;
        let _ = writeln!(svg, "<text x=\"16\" y=\"{:.1}\">{name}</text>", y + BAR / 2.0 + 4.0);
        match stage {
            Some(stage) => row(&mut svg, &scale, *stage, timeline.spans(*stage), y),
            None => staged(&mut svg, &scale, timeline, y),
        }
    }
    for (at, line) in notes.iter().enumerate() {
        let y = bottom + 46.0 + 17.0 * at as f64;
        let _ = writeln!(svg, "<text class=\"soft\" x=\"16\" y=\"{y:.1}\">{}</text>", escaped(line));
    }
    svg.push_str("</svg>\n");
    svg
}

fn legend(svg: &mut String) {
    let mut x = 16.0;
    for (class, text) in [
        ("work", "one batch"),
        ("work odd", "the next"),
        ("seal", "sealing it"),
        ("staged", "staged: handled, not committed; handlers of the next see it"),
        ("wait", "waiting"),
    ] {
        let _ = match class {
            "wait" => writeln!(svg, "<path class=\"wait\" d=\"M{x:.0} 43h14\"/>"),
            _ => writeln!(svg, "<rect class=\"{class}\" x=\"{x:.0}\" y=\"37\" width=\"14\" height=\"12\" rx=\"2\"/>"),
        };
        let _ = writeln!(svg, "<text class=\"soft\" x=\"{:.0}\" y=\"47\">{text}</text>", x + 20.0);
        x += 38.0 + 6.3 * text.len() as f64;
    }
}

/// From time to place.
struct Scale {
    end: Duration,
}

impl Scale {
    fn x(&self, time: Duration) -> f64 {
        LEFT + (WIDTH - LEFT - RIGHT) * time.as_secs_f64() / self.end.as_secs_f64()
    }

    /// Lines at round times.
    fn draw(&self, svg: &mut String, bottom: f64) {
        let about = self.end.as_secs_f64() / 8.0;
        let power = 10_f64.powf(about.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|step| step * power).find(|step| *step >= about);
        let step = step.unwrap_or(about);
        for line in 0..=16 {
            let seconds = step * f64::from(line);
            if seconds > self.end.as_secs_f64() {
                break;
            }
            let x = self.x(Duration::from_secs_f64(seconds));
            let text = if step < 0.0005 {
                format!("{:.0} µs", seconds * 1e6)
            } else if step < 0.5 {
                format!("{:.0} ms", seconds * 1e3)
            } else if step < 1.0 {
                format!("{seconds:.1} s")
            } else {
                format!("{seconds:.0} s")
            };
            let _ = writeln!(
                svg,
                "<path class=\"grid\" d=\"M{x:.1} {:.1}V{bottom:.1}\"/><text class=\"soft\" x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{text}</text>",
                TOP - 6.0,
                bottom + 14.0
            );
        }
    }
}

fn row(svg: &mut String, scale: &Scale, stage: Stage, spans: &[Span], y: f64) {
    for Bar { x, width, span, spans } in bars(scale, spans) {
        let batches = match (span.first_batch, span.last_batch) {
            (0, _) => String::new(),
            (first, last) if first == last => format!(" batch {first},"),
            (first, last) => format!(" batches {first} to {last},"),
        };
        let what = if span.doing.is_work() { stage.name() } else { span.doing.name() };
        let what = if span.doing == Activity::Sealing { "sealing" } else { what };
        let tip = format!("{what}{batches} {} from {}", shown(span.len()), shown(span.start));
        let middle = y + BAR / 2.0;
        let _ = match span.doing {
            Activity::Working | Activity::Sealing => {
                let class = match (stage, span.doing) {
                    (_, Activity::Sealing) => "seal",
                    (Stage::Read, _) => "read",
                    _ if span.first_batch % 2 == 1 => "work",
                    _ => "work odd",
                };
                // Of bars that have become one, the height says how much of the time was work.
                let share = if spans > 1 { span.busy.as_secs_f64() / span.len().as_secs_f64().max(1e-9) } else { 1.0 };
                let high = BAR * share.clamp(0.08, 1.0);
                writeln!(
                    svg,
                    "<rect class=\"{class}\" x=\"{x:.2}\" y=\"{:.1}\" width=\"{width:.2}\" height=\"{high:.1}\" rx=\"1\"><title>{tip}</title></rect>",
                    y + BAR - high
                )
            }
            _ => writeln!(svg, "<path class=\"wait\" d=\"M{x:.2} {middle:.1}h{width:.2}\"><title>{tip}</title></path>"),
        };
        if span.doing == Activity::Working && width >= LABEL_WIDTH_MIN && span.first_batch > 0 && spans == 1 {
            let _ = writeln!(
                svg,
                "<text class=\"in\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
                x + width / 2.0,
                middle + 4.0,
                span.first_batch
            );
        }
    }
}

fn staged(svg: &mut String, scale: &Scale, timeline: &Timeline, y: f64) {
    let mut drawn_to = f64::MIN;
    for (batch, from, to) in timeline.staged() {
        let (x, end) = (scale.x(from).max(drawn_to), scale.x(to));
        // What is too short to be seen is left out.
        if end - x < BAR_WIDTH_MIN / 2.0 {
            continue;
        }
        drawn_to = end;
        let tip = format!("batch {batch} is staged, {} from {}", shown(to.saturating_sub(from)), shown(from));
        let _ = writeln!(
            svg,
            "<rect class=\"staged\" x=\"{x:.2}\" y=\"{y:.1}\" width=\"{:.2}\" height=\"{BAR}\" rx=\"1\"><title>{tip}</title></rect>",
            end - x
        );
    }
}

/// What is drawn as one.
struct Bar {
    x: f64,
    width: f64,
    span: Span,
    spans: usize,
}

/// Spans as bars; neighbours that are too narrow become one.
fn bars(scale: &Scale, spans: &[Span]) -> Vec<Bar> {
    let mut bars: Vec<Bar> = Vec::new();
    for span in spans {
        let (x, end) = (scale.x(span.start), scale.x(span.end));
        let width = end - x;
        match bars.last_mut() {
            Some(last) if width < BAR_WIDTH_MIN && end - last.x < 2.0 * BAR_WIDTH_MIN => {
                last.width = end - last.x;
                last.span.take_in(span);
                last.spans += 1;
                if span.doing.is_work() {
                    last.span.doing = Activity::Working;
                }
            }
            _ => bars.push(Bar { x, width: width.max(0.3), span: *span, spans: 1 }),
        }
    }
    bars
}

fn shown(time: Duration) -> String {
    if time < Duration::from_secs(1) {
        format!("{:.1} ms", time.as_secs_f64() * 1e3)
    } else {
        format!("{:.2} s", time.as_secs_f64())
    }
}

/// A text in lines of about so many characters.
fn wrapped(text: &str, chars_max: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + word.chars().count() < chars_max => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            char if char.is_control() => escaped.push(' '),
            char => escaped.push(char),
        }
    }
    escaped
}
