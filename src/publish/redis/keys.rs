//! The names of the keys in Redis, as templates.

use crate::model::text::nearest;
use crate::publish::Publication;
use crate::redis::tag_of;

/// What a template may hold.
const PLACES: [&str; 5] = ["pipeline", "region", "id", "hash", "timestamp"];

/// What stands behind the key of a region's number where the store signs, and how that key is called.
const STORE: &str = ":store";
pub(super) const SEQ_STORE: &str = "seq:store";

/// Templates that cannot be used, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{name}: {message}")]
#[non_exhaustive]
pub struct KeysError {
    /// Which template.
    pub name: &'static str,
    message: String,
}

/// A key of a region.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Key {
    Latest,
    Seq,
    Doc,
    Index,
    At,
}

/// The names of the keys: texts with `<pipeline>`, `<region>`, `<id>`, `<hash>` and `<timestamp>` (milliseconds since
/// 1970) in them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keys {
    latest: String,
    seq: String,
    doc: String,
    index: String,
    dedup: String,
    live: String,
    at: Option<String>,
    summary: String,
    health: Option<String>,
    lock: String,
}

impl Default for Keys {
    /// `forebay:{P:R}:latest` and so on: all keys of a region are in one slot of a cluster.
    fn default() -> Self {
        let of_region = |name: &str| format!("forebay:{{<pipeline>:<region>}}:{name}");
        Self {
            latest: of_region("latest"),
            seq: of_region("seq"),
            doc: of_region("doc:<id>"),
            index: of_region("index"),
            dedup: of_region("dedup:<hash>"),
            live: of_region("live"),
            at: None,
            summary: "forebay:<pipeline>:summary".into(),
            health: None,
            lock: "forebay:<pipeline>:lock".into(),
        }
    }
}

/// What a template must hold to tell apart what is different, and may hold besides the pipeline.
struct Rule {
    name: &'static str,
    must: &'static [&'static str],
    may: &'static [&'static str],
}

const RULES: [Rule; 10] = [
    Rule { name: "latest", must: &["region"], may: &[] },
    Rule { name: "seq", must: &["region"], may: &[] },
    Rule { name: "doc", must: &["id"], may: &["region"] },
    Rule { name: "index", must: &["region"], may: &[] },
    Rule { name: "dedup", must: &["region", "hash"], may: &[] },
    Rule { name: "live", must: &["region"], may: &[] },
    Rule { name: "at", must: &["region", "timestamp"], may: &["id"] },
    Rule { name: "summary", must: &[], may: &[] },
    Rule { name: "health", must: &[], may: &[] },
    Rule { name: "lock", must: &[], may: &[] },
];

/// Those of the pipeline, and not of a region.
const OF_PIPELINE: [&str; 3] = ["summary", "health", "lock"];

impl Keys {
    /// The names that templates are given under.
    pub const NAMES: [&'static str; 10] =
        ["latest", "seq", "doc", "index", "dedup", "live", "at", "summary", "health", "lock"];

    /// Replaces templates by name.
    ///
    /// # Errors
    /// A template lacks what it must hold, holds what is not known, or is the same as another.
    pub fn with<'t>(templates: impl IntoIterator<Item = (&'static str, &'t str)>) -> Result<Self, KeysError> {
        Self::default().and(templates)
    }

    /// Replaces more templates by name.
    ///
    /// # Errors
    /// As [`Keys::with`].
    pub fn and<'t>(mut self, templates: impl IntoIterator<Item = (&'static str, &'t str)>) -> Result<Self, KeysError> {
        for (name, template) in templates {
            self.set(name, template)?;
        }
        self.check_distinct()?;
        Ok(self)
    }

    fn set(&mut self, name: &'static str, template: &str) -> Result<(), KeysError> {
        let error = |message: String| KeysError { name, message };
        let Some(rule) = RULES.iter().find(|rule| rule.name == name) else {
            return Err(error(format!("there is no such key; known are {}", Self::NAMES.join(", "))));
        };
        check(template, rule).map_err(error)?;
        let template = template.to_owned();
        match name {
            "latest" => self.latest = template,
            "seq" => self.seq = template,
            "doc" => self.doc = template,
            "index" => self.index = template,
            "dedup" => self.dedup = template,
            "live" => self.live = template,
            "at" => self.at = Some(template),
            "health" => self.health = Some(template),
            "lock" => self.lock = template,
            _ => self.summary = template,
        }
        Ok(())
    }

    fn named(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let plain = [
            ("latest", &self.latest),
            ("seq", &self.seq),
            ("doc", &self.doc),
            ("index", &self.index),
            ("dedup", &self.dedup),
            ("live", &self.live),
            ("summary", &self.summary),
            ("lock", &self.lock),
        ];
        let at = self.at.as_ref().map(|at| ("at", at));
        let health = self.health.as_ref().map(|health| ("health", health));
        plain.into_iter().chain(at).chain(health).map(|(name, template)| (name, template.as_str()))
    }

    fn check_distinct(&self) -> Result<(), KeysError> {
        let named: Vec<(&'static str, &str)> = self.named().collect();
        for (at, (name, template)) in named.iter().enumerate() {
            if let Some((other, _)) = named[..at].iter().find(|(_, before)| before == template) {
                return Err(KeysError { name, message: format!("it is the same key as {other}; expected another") });
            }
            if template.strip_suffix(STORE) == Some(self.seq.as_str()) {
                let message = "the store signs there: beside seq, with :store behind it; expected another".into();
                return Err(KeysError { name, message });
            }
        }
        Ok(())
    }

    /// Refuses templates with which the keys of one region could be on different servers of a cluster.
    ///
    /// # Errors
    /// Which key, and why.
    pub fn check_cluster(&self) -> Result<(), KeysError> {
        // Two regions and two snapshots: what differs between the keys of one of them is not the same slot by design.
        let sample = |region: &str, id: &str| {
            let names = Names { pipeline: "p", region, id, hash: id, timestamp: if id == "i" { 1 } else { 2 } };
            let of_region = self.named().filter(|(name, _)| !OF_PIPELINE.contains(name));
            of_region.map(|(name, template)| (name, tag_of(&fill(template, &names)).to_owned())).collect::<Vec<_>>()
        };
        for (one, other) in [(sample("r", "i"), sample("r", "j")), (sample("s", "i"), sample("s", "j"))] {
            let expected = &one[0].1;
            for (name, tag) in one.iter().chain(&other) {
                if tag != expected {
                    return Err(KeysError {
                        name,
                        message: format!(
                            "on a cluster all keys of a region must be in one slot, and this one is not in that of latest: \
                             put the same part in braces in each of them, such as {{<region>}}, as in \"{}\"",
                            Self::default().latest
                        ),
                    });
                }
            }
        }
        Ok(())
    }

    pub(super) fn summary(&self, pipeline: &str) -> String {
        of_pipeline(&self.summary, pipeline)
    }

    /// Where a health check looks; none if no key is given.
    pub(super) fn health(&self, pipeline: &str) -> Option<String> {
        self.health.as_ref().map(|health| of_pipeline(health, pipeline))
    }

    /// Whether there is a key for a health check.
    pub fn has_health(&self) -> bool {
        self.health.is_some()
    }

    /// The lock of those who seed.
    pub(super) fn lock(&self, pipeline: &str) -> String {
        of_pipeline(&self.lock, pipeline)
    }

    /// The keys of a snapshot, in the order in which the script takes them.
    pub(super) fn of(&self, pipeline: &str, item: &Publication) -> Vec<String> {
        let names = Names {
            pipeline,
            region: &item.region,
            id: &item.id,
            hash: &item.hash,
            timestamp: item.time.as_micros().div_euclid(1000),
        };
        let mut templates = vec![&self.latest, &self.seq, &self.doc, &self.index, &self.dedup, &self.live];
        templates.extend(self.at.as_ref());
        templates.into_iter().map(|template| fill(template, &names)).collect()
    }

    /// What the keys of a snapshot are called, in the same order.
    pub(super) fn names(&self) -> Vec<&'static str> {
        let mut names = vec!["latest", "seq", "doc", "index", "dedup", "live"];
        names.extend(self.at.as_ref().map(|_| "at"));
        names
    }

    /// The key beside seq, where the store signs.
    pub(super) fn of_store(&self, pipeline: &str, region: &str) -> String {
        self.of_region(Key::Seq, pipeline, region) + STORE
    }

    /// All templates with their names, in the order in which a key that could be of two of them is the first one's.
    pub(super) fn ranked(&self) -> Vec<(&'static str, String)> {
        let mut ranked = vec![
            ("summary", self.summary.clone()),
            ("lock", self.lock.clone()),
            ("latest", self.latest.clone()),
            ("seq", self.seq.clone()),
            (SEQ_STORE, self.seq.clone() + STORE),
            ("index", self.index.clone()),
            ("dedup", self.dedup.clone()),
            ("live", self.live.clone()),
        ];
        ranked.extend(self.health.clone().map(|health| ("health", health)));
        ranked.extend(self.at.clone().map(|at| ("at", at)));
        ranked.push(("doc", self.doc.clone()));
        ranked
    }

    /// A key that depends on the region alone.
    pub(super) fn of_region(&self, key: Key, pipeline: &str, region: &str) -> String {
        fill(self.template(key), &Names { pipeline, region, id: "", hash: "", timestamp: 0 })
    }

    /// The key that holds the number of a region's newest snapshot.
    pub(in crate::publish) fn seq(&self, pipeline: &str, region: &str) -> String {
        self.of_region(Key::Seq, pipeline, region)
    }

    /// The key of a document.
    pub(super) fn doc(&self, pipeline: &str, region: &str, id: &str) -> String {
        fill(&self.doc, &Names { pipeline, region, id, hash: "", timestamp: 0 })
    }

    /// Whether a document's key can be told from its id alone.
    pub(super) fn doc_needs_region(&self) -> bool {
        self.doc.contains("<region>")
    }

    /// The template itself; empty if there is none.
    pub(super) fn template(&self, key: Key) -> &str {
        match key {
            Key::Latest => &self.latest,
            Key::Seq => &self.seq,
            Key::Doc => &self.doc,
            Key::Index => &self.index,
            Key::At => self.at.as_deref().unwrap_or(""),
        }
    }
}

struct Names<'n> {
    pipeline: &'n str,
    region: &'n str,
    id: &'n str,
    hash: &'n str,
    timestamp: i64,
}

/// The places of a template: what stands between `<` and `>`.
fn places(template: &str) -> Vec<&str> {
    template.split('<').skip(1).filter_map(|rest| rest.split_once('>').map(|(name, _)| name)).collect()
}

fn check(template: &str, rule: &Rule) -> Result<(), String> {
    if template.is_empty() {
        return Err("expected a text that is not empty".into());
    }
    let held = places(template);
    for name in &held {
        if !PLACES.contains(name) {
            let known: Vec<String> = PLACES.iter().map(|name| format!("<{name}>")).collect();
            return Err(format!("<{name}> is not known{}; known are {}", nearest(name, &PLACES), known.join(" ")));
        }
        if *name != "pipeline" && !rule.must.contains(name) && !rule.may.contains(name) {
            return Err(format!("<{name}> cannot be told where this key is needed; leave it out"));
        }
    }
    match rule.must.iter().find(|name| !held.contains(name)) {
        Some(name) => Err(format!("it must hold <{name}>, or different snapshots would share a key")),
        None => Ok(()),
    }
}

fn of_pipeline(template: &str, pipeline: &str) -> String {
    fill(template, &Names { pipeline, region: "", id: "", hash: "", timestamp: 0 })
}

fn fill(template: &str, names: &Names<'_>) -> String {
    let mut filled = String::with_capacity(template.len() + 64);
    let mut rest = template;
    while let Some((before, from)) = rest.split_once('<') {
        filled.push_str(before);
        let Some((name, after)) = from.split_once('>') else {
            filled.push('<');
            rest = from;
            continue;
        };
        match name {
            "pipeline" => filled.push_str(names.pipeline),
            "region" => filled.push_str(names.region),
            "id" => filled.push_str(names.id),
            "hash" => filled.push_str(names.hash),
            "timestamp" => filled.push_str(&names.timestamp.to_string()),
            _ => {
                filled.push('<');
                rest = from;
                continue;
            }
        }
        rest = after;
    }
    filled.push_str(rest);
    filled
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_are_filled_once() {
        let names = Names { pipeline: "p", region: "<id>", id: "i", hash: "h", timestamp: -5 };
        assert_eq!(fill("a<region>:<id><<x>:<timestamp><", &names), "a<id>:i<<x>:-5<");
    }

    #[test]
    fn templates_that_would_mix_snapshots_are_refused() {
        for (name, template, says) in [
            ("latest", "latest", "must hold <region>"),
            ("doc", "<region>", "must hold <id>"),
            ("dedup", "d:<region>", "must hold <hash>"),
            ("latest", "l:<region>:<id>", "cannot be told"),
            ("doc", "<regoin>:<id>", "did you mean \"region\""),
            ("live", "forebay:{<pipeline>:<region>}:seq", "the same key as seq"),
            ("live", "forebay:{<pipeline>:<region>}:seq:store", "the store signs there"),
            ("at", "", "not empty"),
        ] {
            let error = Keys::with([(name, template)]).expect_err(template).to_string();
            assert!(error.contains(says), "{error}");
        }
    }

    #[test]
    fn on_a_cluster_a_region_has_one_slot() {
        assert_eq!(Keys::default().check_cluster(), Ok(()));
        let apart = Keys::with([("latest", "snapshot:<region>:latest")]).expect("keys");
        assert!(apart.check_cluster().is_err());
        let by_id = Keys::with([("doc", "forebay:{<pipeline>:<region>:<id>}")]).expect("keys");
        assert_eq!(by_id.check_cluster().expect_err("another slot").name, "doc");
    }
}
