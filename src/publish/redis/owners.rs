//! Whose key a name is.
//!
//! Regions and ids are data, so with some templates a key of one region reads as a key of another: with `s:<region>` and
//! `s:<region>:doc:<id>` the newest of region `a:doc:7` and the document 7 of region `a` would be one key. Such a key has
//! one owner, whoever comes first: the template with more text of its own, as `s:<region>:doc:<id>` here. Everyone else is
//! refused when his names come. So no template takes all keys of another.
//!
//! Documents of two regions under one template are told apart in Redis, by the indexes (`publish.lua`).

use std::cmp::Reverse;

use super::keys::{Keys, SEQ_STORE};
use crate::model::limits::REGION_BYTES_MAX;

/// Characters of a hash.
const HASH_CHARS: usize = 64;

/// A part of a template.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Region,
    Id,
    Hash,
    Timestamp,
}

/// A template, as what a key is compared with.
#[derive(Debug)]
struct Pattern {
    name: &'static str,
    parts: Vec<Part>,
}

/// What all keys of a pipeline look like.
#[derive(Debug)]
pub(super) struct Owners<'k> {
    keys: &'k Keys,
    pipeline: &'k str,
    /// How the keys of a snapshot are called.
    names: Vec<&'static str>,
    patterns: Vec<Pattern>,
}

/// A key, what it is to be, and what it is by right.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Clash {
    key: String,
    name: &'static str,
    owner: String,
}

impl std::fmt::Display for Clash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { key, name, owner } = self;
        write!(
            f,
            "its key {key:?} ({name}) could also be {owner}: give it another name, or templates in [snapshots.keys] that \
             keep regions apart"
        )
    }
}

impl<'k> Owners<'k> {
    pub(super) fn new(keys: &'k Keys, pipeline: &'k str) -> Self {
        let pattern = |(name, template): (&'static str, String)| Pattern::new(name, &template, pipeline);
        Self { keys, pipeline, names: keys.names(), patterns: keys.ranked().into_iter().map(pattern).collect() }
    }

    /// A key of this region that is another's by right, if there is one; `filled` are those of a snapshot.
    pub(super) fn clash(&self, region: &str, filled: &[String]) -> Option<Clash> {
        let store = self.keys.of_store(self.pipeline, region);
        let named = self.names.iter().copied().zip(filled.iter().map(String::as_str));
        named.chain([(SEQ_STORE, store.as_str())]).find_map(|(name, key)| {
            let (rank, ours) = self.patterns.iter().enumerate().find(|(_, pattern)| pattern.name == name)?;
            let us = (ours.claim(Some(region)), rank);
            let found = |(at, pattern): (usize, &Pattern)| {
                if at == rank && ours.holds(&Part::Id) {
                    return None;
                }
                let mut owner = None;
                pattern.read(key, &mut |found| {
                    owner = ((pattern.claim(found), at) < us).then(|| owner_text(pattern.name, found));
                    owner.is_some()
                });
                owner
            };
            let owner = self.patterns.iter().enumerate().find_map(found)?;
            Some(Clash { key: key.to_owned(), name, owner })
        })
    }
}

fn owner_text(name: &str, region: Option<&str>) -> String {
    match region {
        Some(region) => format!("{name} of region {region:?}"),
        None => name.to_owned(),
    }
}

/// Who has a key by right: the least.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Claim<'r> {
    /// The summary.
    Pipeline,
    /// By how much text the template has; then whoever has the shorter name.
    Text(Reverse<usize>, Name<'r>),
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Name<'r> {
    Region(usize, &'r str),
    /// A document without a region in its key.
    None,
}

impl Pattern {
    fn new(name: &'static str, template: &str, pipeline: &str) -> Self {
        let mut parts = Vec::new();
        let mut text = String::new();
        let mut rest = template;
        while let Some((before, from)) = rest.split_once('<') {
            text.push_str(before);
            let place = from.split_once('>').and_then(|(place, after)| Some((place_of(place)?, after)));
            match place {
                Some((Place::Pipeline, after)) => {
                    text.push_str(pipeline);
                    rest = after;
                }
                Some((Place::Part(part), after)) => {
                    parts.extend([Part::Text(std::mem::take(&mut text)), part]);
                    rest = after;
                }
                None => {
                    text.push('<');
                    rest = from;
                }
            }
        }
        text.push_str(rest);
        parts.push(Part::Text(text));
        parts.retain(|part| *part != Part::Text(String::new()));
        Self { name, parts }
    }

    fn holds(&self, part: &Part) -> bool {
        self.parts.contains(part)
    }

    fn claim<'r>(&self, region: Option<&'r str>) -> Claim<'r> {
        let name = match region.filter(|_| self.holds(&Part::Region)) {
            Some(region) => Name::Region(region.len(), region),
            None if self.holds(&Part::Id) => Name::None,
            None => return Claim::Pipeline,
        };
        let bytes = |part: &Part| if let Part::Text(text) = part { text.len() } else { 0 };
        Claim::Text(Reverse(self.parts.iter().map(bytes).sum()), name)
    }

    /// Calls `found` with the region of each way to read a key by this template, until it says that this is enough.
    fn read<'k>(&self, key: &'k str, found: &mut impl FnMut(Option<&'k str>) -> bool) {
        // Nearly every key differs at its end.
        match self.parts.last() {
            Some(Part::Text(end)) if !key.ends_with(end.as_str()) => {}
            _ => drop(read_parts(&self.parts, key, None, found)),
        }
    }
}

/// Reads a key by the rest of a template; says whether to end.
fn read_parts<'k>(
    parts: &[Part],
    key: &'k str,
    region: Option<&'k str>,
    found: &mut impl FnMut(Option<&'k str>) -> bool,
) -> bool {
    let Some((part, rest)) = parts.split_first() else { return key.is_empty() && found(region) };
    match (part, region) {
        (Part::Text(text), _) => {
            key.strip_prefix(text.as_str()).is_some_and(|key| read_parts(rest, key, region, found))
        }
        (Part::Region, Some(known)) => key.strip_prefix(known).is_some_and(|key| read_parts(rest, key, region, found)),
        (Part::Region, None) => {
            ends(key, rest, REGION_BYTES_MAX).any(|end| read_parts(rest, &key[end..], Some(&key[..end]), found))
        }
        (Part::Id, _) => ends(key, rest, usize::MAX).any(|end| read_parts(rest, &key[end..], region, found)),
        (Part::Hash, _) => {
            let hash = key.get(..HASH_CHARS).filter(|hash| hash.bytes().all(|byte| byte.is_ascii_hexdigit()));
            hash.is_some_and(|_| read_parts(rest, &key[HASH_CHARS..], region, found))
        }
        (Part::Timestamp, _) => {
            let sign = usize::from(key.starts_with('-'));
            let digits = key[sign..].bytes().take_while(u8::is_ascii_digit).count();
            (1..=digits).any(|digits| read_parts(rest, &key[sign + digits..], region, found))
        }
    }
}

/// Where a name at the beginning of a text can end, if the rest of the template follows.
fn ends<'k>(key: &'k str, rest: &'k [Part], bytes_max: usize) -> impl Iterator<Item = usize> + 'k {
    let next = match rest.first() {
        Some(Part::Text(text)) => text.as_str(),
        _ => "",
    };
    let is_last = rest.is_empty();
    let step = move |before: &usize| {
        let from = before + key[*before..].chars().next()?.len_utf8();
        match is_last {
            true => (*before < key.len()).then_some(key.len()),
            false => key[from..].find(next).map(|at| from + at),
        }
    };
    std::iter::successors(step(&0), step).take_while(move |end| *end <= bytes_max)
}

enum Place {
    Pipeline,
    Part(Part),
}

fn place_of(name: &str) -> Option<Place> {
    Some(match name {
        "pipeline" => Place::Pipeline,
        "region" => Place::Part(Part::Region),
        "id" => Place::Part(Part::Id),
        "hash" => Place::Part(Part::Hash),
        "timestamp" => Place::Part(Part::Timestamp),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::timestamp::Timestamp;
    use crate::publish::Publication;

    /// What of a region's keys is another's, with these templates and this id.
    fn clash(templates: &[(&'static str, &'static str)], region: &str, id: &str) -> Option<String> {
        let keys = Keys::with(templates.iter().copied()).expect("keys");
        let mut item = Publication::new(region, 5, serde_json::json!({}));
        id.clone_into(&mut item.id);
        Owners::new(&keys, "p").clash(region, &keys.of("p", &item)).map(|clash| clash.owner)
    }

    #[test]
    fn of_two_keys_that_are_one_the_template_with_more_text_has_it() {
        let doc = &[("latest", "s:<region>"), ("doc", "s:<region>:doc:<id>")][..];
        let seq = &[("latest", "s:<region>"), ("seq", "s:<region>:seq")][..];
        let glued = &[("at", "at:<region><timestamp>")][..];
        let below = &[("latest", "s:<region>"), ("doc", "s:doc:<id>")][..];
        let by_id = &[("latest", "s:<region>:latest"), ("doc", "s:<id>")][..];
        for (templates, region, id, owner) in [
            (doc, "a", "7", None),
            (doc, "a:doc:7", "1", Some("doc of region \"a\"")),
            (doc, "a:doc:", "1", None),
            (seq, "a", "7", None),
            (seq, "a:seq", "7", Some("seq of region \"a\"")),
            (seq, "a:seq:store", "7", Some("seq:store of region \"a\"")),
            (seq, "seq:a", "7", None),
            (glued, "a", "7", None),
            (glued, "a1", "7", Some("at of region \"a\"")),
            (by_id, "a", "7", None),
            (by_id, "a", "b:latest", Some("latest of region \"b\"")),
            (by_id, "a", "a:latest", Some("latest of region \"a\"")),
            (below, "a", "7", None),
            (below, "doc:7", "1", Some("doc")),
            (&[("doc", "<id>")], "a", "forebay:p:summary", Some("summary")),
            (&[("doc", "s:<region>:<id>"), ("at", "s:<region>:<timestamp>")], "a", "77", Some("at of region \"a\"")),
            (&[("doc", "s:<region>:<id>")], "a:b", "7", None),
            (&[], "a}:doc:x", "7", Some("doc of region \"a\"")),
            (&[], "{a}:b<id>", "7", None),
            (&[], "é:doc:ü", "x}:latest", Some("latest of region \"é:doc:ü}:doc:x\"")),
            (&[], "é:doc:ü", "x:latest", None),
        ] {
            let found = clash(templates, region, id);
            assert_eq!(found.as_deref(), owner, "{templates:?} {region} {id}");
        }
    }

    #[test]
    fn every_clash_of_filled_keys_is_found() {
        let names = ["a", "a:", "a:b", "a:b:a", "b", "b:a", ":", "a:latest", "1", "a1"];
        let sets = [
            [("latest", "<region>:latest"), ("doc", "<region>:<id>"), ("at", "t:<region>:<timestamp>")],
            [("latest", "<region>"), ("doc", "a:<id>"), ("at", "<region><timestamp>")],
            [("latest", "a:<region>"), ("doc", "<region>:<id>"), ("at", "<region>:<timestamp>")],
        ];
        for templates in sets {
            let keys = Keys::with(templates).expect("keys");
            let all: Vec<_> = names.iter().flat_map(|region| names.iter().map(move |id| (*region, *id))).collect();
            let filled = |(region, id): (&'static str, &'static str)| {
                let mut item = Publication::new(region, 5, serde_json::json!({}));
                id.clone_into(&mut item.id);
                item.time = Timestamp::MIN;
                let of_item = keys.of("p", &item);
                keys.names().into_iter().zip(of_item).collect::<Vec<_>>()
            };
            for one in &all {
                for other in all.iter().filter(|other| other.0 != one.0) {
                    let (ours, theirs) = (filled(*one), filled(*other));
                    let is_shared = |(name, key): &(&str, String)| {
                        theirs.iter().any(|(its, there)| key == there && (*name, *its) != ("doc", "doc"))
                    };
                    if ours.iter().any(is_shared) {
                        let is_told =
                            clash(&templates, one.0, one.1).is_some() || clash(&templates, other.0, other.1).is_some();
                        assert!(is_told, "{templates:?}: {one:?} and {other:?}");
                    }
                }
            }
        }
    }
}
