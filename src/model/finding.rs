//! What an examination finds: one thing that was looked at, how well it is, and what to do. Data only.
//!
//! The names of findings are a contract (docs/reference.md, `doctor`): a monitor may look for them.

#[cfg(any(feature = "postgres", feature = "redis", feature = "sqlite", test))]
use std::time::Duration;

/// How well one thing is, from good to bad.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum FindingState {
    /// It is as it should be, or it could not be looked at; then the message says so.
    Ok,
    /// A run works, and something about it is slower, less safe or soon over.
    Warning,
    /// A run fails, or what it has written may be lost.
    Problem,
}

impl FindingState {
    /// Its name, as commands print it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Problem => "problem",
        }
    }
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Finding {
    /// What it is: a stable name in snake case.
    pub name: &'static str,
    /// How well it is.
    pub state: FindingState,
    /// What was found, in one line. It may hold a text of a server.
    pub message: String,
    /// What to do, in one line; none if it is well.
    pub advice: Option<String>,
    /// What was measured, in milliseconds; none if nothing was.
    pub millis: Option<f64>,
}

impl Finding {
    /// All is well, or it could not be looked at.
    pub fn ok(name: &'static str, message: impl Into<String>) -> Self {
        Self::of(name, FindingState::Ok, message, None)
    }

    /// A run works, but.
    pub fn warning(name: &'static str, message: impl Into<String>, advice: impl Into<String>) -> Self {
        Self::of(name, FindingState::Warning, message, Some(advice.into()))
    }

    /// A run fails.
    pub fn problem(name: &'static str, message: impl Into<String>, advice: impl Into<String>) -> Self {
        Self::of(name, FindingState::Problem, message, Some(advice.into()))
    }

    /// A problem, of an error whose text is a cause and, behind the first semicolon or line, what to do; `advice` where it
    /// has no such end.
    pub fn of_error(name: &'static str, error: &str, advice: &str) -> Self {
        let text = error.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("; ");
        match text.split_once("; ") {
            Some((cause, rest)) => Self::problem(name, cause, rest),
            None => Self::problem(name, text, advice),
        }
    }

    /// What was measured.
    #[must_use]
    pub fn with_millis(self, millis: f64) -> Self {
        Self { millis: Some(millis), ..self }
    }

    fn of(name: &'static str, state: FindingState, message: impl Into<String>, advice: Option<String>) -> Self {
        Self { name, state, message: message.into(), advice, millis: None }
    }
}

/// Of findings of several servers under the same names, the worst of each, in the order of the first server.
#[cfg(feature = "redis")]
pub(crate) fn worst(of_servers: impl IntoIterator<Item = Vec<Finding>>) -> Vec<Finding> {
    let mut kept: Vec<Finding> = Vec::new();
    for finding in of_servers.into_iter().flatten() {
        match kept.iter_mut().find(|known| known.name == finding.name) {
            None => kept.push(finding),
            Some(known) => {
                let is_slower = finding.state == known.state && finding.millis > known.millis;
                if finding.state > known.state || is_slower {
                    *known = finding;
                }
            }
        }
    }
    kept
}

/// The middle of what was measured, in milliseconds; none of nothing.
#[cfg(any(feature = "postgres", feature = "redis", feature = "sqlite", test))]
pub(crate) fn median_millis(mut measured: Vec<Duration>) -> Option<f64> {
    measured.sort_unstable();
    measured.get(measured.len() / 2).map(|span| span.as_secs_f64() * 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_a_cause_and_what_to_do() {
        for (text, message, advice) in [
            ("no way in", "no way in", "look"),
            ("no way in; knock", "no way in", "knock"),
            ("a:3: bad\n  mend it\n\n  or else; go", "a:3: bad", "mend it; or else; go"),
        ] {
            let found = Finding::of_error("x", text, "look");
            assert_eq!((&*found.message, found.advice.as_deref()), (message, Some(advice)));
        }
    }

    #[test]
    fn medians_are_the_middle() {
        let millis = |list: &[u64]| median_millis(list.iter().map(|one| Duration::from_millis(*one)).collect());
        assert_eq!(millis(&[]), None);
        assert_eq!(millis(&[7]), Some(7.0));
        assert_eq!(millis(&[9, 1, 5]), Some(5.0));
    }

    #[cfg(feature = "redis")]
    #[test]
    fn of_several_servers_the_worst_is_kept() {
        let one = vec![Finding::ok("a", "1").with_millis(1.0), Finding::warning("b", "1", "x"), Finding::ok("c", "1")];
        let two = vec![Finding::ok("a", "2").with_millis(2.0), Finding::ok("b", "2"), Finding::problem("c", "2", "x")];
        let kept = worst([one, two]);
        let said: Vec<(&str, &str)> = kept.iter().map(|found| (found.name, found.message.as_str())).collect();
        assert_eq!(said, [("a", "2"), ("b", "1"), ("c", "2")]);
    }
}
