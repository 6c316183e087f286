//! The health key: what an existing health check reads of a publish.

use serde_json::{Map, Value as Json};

use crate::model::setting::SettingError;
use crate::model::text::nearest;
use crate::model::timestamp::Timestamp;

/// A value that is known when it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    NowMs,
    NowS,
    Now,
    Published,
    New,
    Stale,
    Kept,
    Failed,
    Status,
}

const NAMES: [(&str, Known); 9] = [
    ("now_ms", Known::NowMs),
    ("now_s", Known::NowS),
    ("now", Known::Now),
    ("published", Known::Published),
    ("new", Known::New),
    ("stale", Known::Stale),
    ("kept", Known::Kept),
    ("failed", Known::Failed),
    ("status", Known::Status),
];

#[derive(Debug, Clone, PartialEq, Eq)]
enum Field {
    Given(Json),
    Known(Known),
}

/// The fields of the health key's JSON object, in their order.
///
/// A text that begins with `@` stands for what is known when it is written: `@now_ms`, `@now_s` (numbers) and `@now` (a
/// text), the time; `@published`, how many regions have what was given: it was published, or was there already, since an
/// hour in which nothing changes is no failure; `@new`, how many of those were not there before; `@stale`, `@kept`,
/// `@failed`, so many regions; `@status`, one of `ok`, `partial`, `failed`. `@@` stands for one `@`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HealthFields(Vec<(String, Field)>);

/// What came of a publish, for the health key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Outcome {
    pub(super) published: usize,
    pub(super) duplicate: usize,
    pub(super) stale: usize,
    pub(super) kept: usize,
    pub(super) failed: usize,
    /// Something beside the regions went wrong: one was missing, or nothing came.
    pub(super) is_short: bool,
}

impl Outcome {
    /// Both together.
    pub(super) fn plus(self, other: Self) -> Self {
        Self {
            published: self.published + other.published,
            duplicate: self.duplicate + other.duplicate,
            stale: self.stale + other.stale,
            kept: self.kept + other.kept,
            failed: self.failed + other.failed,
            is_short: self.is_short || other.is_short,
        }
    }

    /// One of `ok`, `partial`, `failed`.
    pub(super) fn status(self) -> &'static str {
        let is_well = self.failed == 0 && self.stale == 0 && !self.is_short;
        match self.published + self.duplicate {
            0 => "failed",
            _ if is_well => "ok",
            _ => "partial",
        }
    }
}

/// What stands in the text where only Redis knows the number: of the regions that were published.
const PUBLISHED: &str = "<published>";

impl HealthFields {
    /// The fields by name: JSON values, or texts that begin with `@`.
    ///
    /// # Errors
    /// A text begins with `@` and names nothing that is known; or there is no field.
    pub fn new(fields: impl IntoIterator<Item = (String, Json)>) -> Result<Self, SettingError> {
        let field = |(name, value): (String, Json)| {
            let field = match value.as_str().and_then(|text| text.strip_prefix('@')) {
                None => Field::Given(value),
                Some(text) if text.starts_with('@') => Field::Given(text.into()),
                Some(text) => Field::Known(known(&name, text)?),
            };
            Ok((name, field))
        };
        let fields: Vec<(String, Field)> = fields.into_iter().map(field).collect::<Result<_, SettingError>>()?;
        match fields.is_empty() {
            true => Err(SettingError::new("health: expected at least one field, such as fetchedAt = \"@now_ms\"")),
            false => Ok(Self(fields)),
        }
    }

    /// The text after a publish. After one that failed the times are those of `before`, the text that was there: a check
    /// that looks at the time alone must not take it for well.
    pub(super) fn text(&self, outcome: Outcome, before: Option<&str>) -> String {
        let before: Map<String, Json> = before.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
        let is_failed = outcome.status() == "failed";
        self.write(|name, known| match known {
            Known::NowMs | Known::NowS | Known::Now if is_failed => {
                before.get(name).cloned().unwrap_or(Json::Null).to_string()
            }
            Known::Published => (outcome.published + outcome.duplicate).to_string(),
            Known::New => outcome.published.to_string(),
            Known::Stale => outcome.stale.to_string(),
            Known::Kept => outcome.kept.to_string(),
            Known::Failed => outcome.failed.to_string(),
            Known::Status => Json::from(outcome.status()).to_string(),
            time => now(time),
        })
    }

    /// The text after a publish of so many regions that is all well, in which Redis puts how many were published.
    pub(super) fn text_if_well(&self, regions: usize) -> String {
        let well = Outcome { published: regions, ..Outcome::default() };
        self.write(|_, known| match known {
            Known::Published => regions.to_string(),
            Known::New => PUBLISHED.to_owned(),
            Known::Stale | Known::Kept | Known::Failed => "0".to_owned(),
            Known::Status => Json::from(well.status()).to_string(),
            time => now(time),
        })
    }

    fn write(&self, value: impl Fn(&str, Known) -> String) -> String {
        // Between the fields stands nothing that could be taken for one of the places above.
        let plain = |value: &Json| value.to_string().replace('<', "\\u003c");
        let field = |(name, field): &(String, Field)| {
            let value = match field {
                Field::Given(given) => plain(given),
                Field::Known(known) => value(name, *known),
            };
            format!("{}:{value}", plain(&name.as_str().into()))
        };
        format!("{{{}}}", self.0.iter().map(field).collect::<Vec<_>>().join(","))
    }
}

fn known(name: &str, text: &str) -> Result<Known, SettingError> {
    NAMES.iter().find(|(known, _)| *known == text).map(|(_, known)| *known).ok_or_else(|| {
        let names = NAMES.map(|(name, _)| name);
        let known = names.map(|name| format!("@{name}")).join(", ");
        SettingError::new(format!("health.{name}: @{text} is not known{}; known are {known}", nearest(text, &names)))
    })
}

fn now(time: Known) -> String {
    let now = Timestamp::now();
    match time {
        Known::NowS => now.as_micros().div_euclid(1_000_000).to_string(),
        Known::Now => Json::from(now.to_millis_text()).to_string(),
        _ => now.as_micros().div_euclid(1000).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn fields(fields: &Json) -> Result<HealthFields, SettingError> {
        HealthFields::new(fields.as_object().expect("an object").clone())
    }

    #[test]
    fn times_stand_still_when_a_publish_fails() {
        let given = json!({ "at": "@now_ms", "n": "@new", "all": "@published", "s": "@status", "v": 1, "t": "@@<x>" });
        let health = fields(&given).expect("fields");
        let read = |text: &str| serde_json::from_str::<Json>(text).expect("json");
        let well = read(&health.text(Outcome { published: 2, duplicate: 1, ..Outcome::default() }, None));
        assert!(well["at"].as_i64().is_some_and(|at| at > 1_700_000_000_000), "{well}");
        assert_eq!(
            [&well["n"], &well["all"], &well["s"], &well["t"]],
            [&json!(2), &json!(3), &json!("ok"), &json!("@<x>")]
        );
        let before = r#"{"at":7,"n":8}"#;
        let failed = read(&health.text(Outcome { failed: 3, ..Outcome::default() }, Some(before)));
        assert_eq!([&failed["at"], &failed["n"], &failed["s"]], [&json!(7), &json!(0), &json!("failed")]);
        let partial = Outcome { published: 1, stale: 1, ..Outcome::default() };
        assert_eq!(partial.status(), "partial");
        let text = health.text_if_well(4).replace(PUBLISHED, "4");
        assert_eq!([&read(&text)["n"], &read(&text)["t"]], [&json!(4), &json!("@<x>")]);
    }

    #[test]
    fn what_is_not_known_is_refused() {
        let refused = fields(&json!({ "at": "@now_mz" })).expect_err("unknown").to_string();
        assert!(refused.starts_with("health.at: @now_mz is not known; did you mean \"now_ms\""), "{refused}");
        assert!(fields(&json!({})).is_err());
    }
}
