//! Which path gives what.
//!
//! | path | without the token |
//! |---|---|
//! | `/live`, `/ready`, `/health` | the status code, and nothing of the run |
//! | everything else | 401 |

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;
use sha2::{Digest, Sha256};

use super::access::{Barred, Gate, Sight, to_base64};
use super::prometheus;
use super::request::{Refusal, Request, decoded};
use super::response::{JSON, Response};
use super::stored::{Known, Stored};
use super::subject::{Asked, Subject};
use super::wanted::{Document, Found};
use super::warnings::Warnings;
use crate::model::timestamp::Timestamp;

/// An answer of `/status` is given again for so long: it costs, with many regions.
const STATUS_KEPT: Duration = Duration::from_millis(200);
const STATUS_KEPT_MAX: usize = 8;

/// Documents of one page of `/snapshots`.
const PAGE_DEFAULT: usize = 100;
const PAGE_MAX: usize = 1000;

/// What is answered from.
pub(super) struct Service {
    subject: Box<dyn Subject>,
    warnings: Warnings,
    gate: Gate,
    started_at: Timestamp,
    /// The page, and what it may run: named by its hash.
    page: Arc<[u8]>,
    policy: String,
    /// Answers of `/status` by their query.
    statuses: Vec<(String, Instant, Arc<[u8]>)>,
}

/// What an answer waits for.
pub(super) enum Answer {
    Ready(Response),
    /// The store is being read.
    Later,
}

impl From<Response> for Answer {
    fn from(response: Response) -> Self {
        Self::Ready(response)
    }
}

impl Service {
    pub(super) fn new(subject: Box<dyn Subject>, warnings: Warnings, gate: Gate) -> Self {
        let page = subject.page();
        Self {
            subject,
            warnings,
            gate,
            started_at: Timestamp::now(),
            policy: policy_of(&page),
            page: page.into_bytes().into(),
            statuses: Vec::new(),
        }
    }

    /// Takes a look at what is shown, if it is time.
    pub(super) fn look(&mut self, now: Instant) {
        self.subject.look(now);
    }

    /// When the next look is to be taken.
    pub(super) fn next_look(&self) -> Instant {
        self.subject.next_look()
    }

    /// The answer to a request. `is_late`: it has waited for the store for long enough.
    pub(super) fn answer(&mut self, request: &Request, now: Instant, is_late: bool) -> Answer {
        let sight = match self.gate.admit(request) {
            Ok(sight) => sight,
            Err(Barred::Host) => {
                let message = "this server answers to localhost, 127.0.0.1, [::1] and the address of --listen only";
                return Response::refused(421, message).into();
            }
        };
        let path = request.path.as_str();
        match path {
            "/live" | "/ready" | "/health" => self.probe(path, sight, now).into(),
            _ if sight == Sight::Probes => unauthorized().into(),
            "/" => self.page().into(),
            "/metrics" => {
                let is_ready = self.subject.health(now).unready.is_none();
                Response::new(200, prometheus::KIND, self.subject.metrics(is_ready, now).into_bytes()).into()
            }
            "/status" => self.status(request, now, is_late),
            "/snapshots" => match request.param("region") {
                None => self.snapshots(request, now, is_late),
                Some(region) => self.snapshot(&region, request, now, is_late),
            },
            _ => match path.strip_prefix("/snapshots/").map(decoded) {
                Some(Some(region)) => self.snapshot(&region, request, now, is_late),
                Some(None) => Response::refused(400, "the region's name is no UTF-8 behind its percent signs").into(),
                None => {
                    let paths = "/, /live, /ready, /health, /metrics, /status, /snapshots and /snapshots/REGION";
                    Response::refused(404, &format!("there is nothing here; there are {paths}")).into()
                }
            },
        }
    }

    fn probe(&self, path: &str, sight: Sight, now: Instant) -> Response {
        let health = self.subject.health(now);
        let is_well = match path {
            "/live" => health.is_live,
            "/ready" => health.unready.is_none(),
            _ => health.is_ok(),
        };
        let status = if is_well { 200 } else { 503 };
        let name = path.trim_start_matches('/');
        if sight == Sight::Probes {
            return Response::json(status, &json!({ name: is_well }));
        }
        let mut object = match path {
            "/live" => json!({ "live": is_well }),
            "/ready" => {
                let mut object = self.subject.progress();
                object["ready"] = is_well.into();
                object["reason"] = health.unready.into();
                object
            }
            _ => health.to_json(Timestamp::now()),
        };
        object["phase"] = self.subject.phase().name().into();
        Response::json(status, &object)
    }

    fn page(&self) -> Response {
        Response::new(200, "text/html; charset=utf-8", Arc::clone(&self.page))
            .with("Content-Security-Policy", &self.policy)
            .with("Referrer-Policy", "no-referrer")
            .with("X-Frame-Options", "DENY")
    }

    fn status(&mut self, request: &Request, now: Instant, is_late: bool) -> Answer {
        self.statuses.retain(|(_, at, _)| now.saturating_duration_since(*at) < STATUS_KEPT);
        if let Some((.., body)) = self.statuses.iter().find(|(query, ..)| *query == request.query) {
            return Response::new(200, JSON, Arc::clone(body)).into();
        }
        let regions = request.param("regions");
        let without = regions.as_deref() == Some("none");
        let since = regions.filter(|regions| regions == "changed").and_then(|_| request.param("since"));
        let after = since.and_then(|token| {
            let (epoch, version) = token.split_once('.')?;
            (u64::from_str_radix(epoch, 16).ok()? == self.epoch()).then(|| version.parse().ok())?
        });
        let asked = Asked {
            regions_after: (!without).then(|| after.unwrap_or(0)),
            timeline: request.param("timeline").as_deref() != Some("none"),
            quarantine: request.param("quarantine").as_deref() != Some("none"),
            is_late,
        };
        let Some(shown) = self.subject.status(&asked, now) else { return Answer::Later };
        let (mut object, health, wall) = (shown.object, self.subject.health(now), Timestamp::now());
        object["version"] = env!("CARGO_PKG_VERSION").into();
        object["now"] = wall.to_millis_text().into();
        object["started_at"] = self.started_at.to_millis_text().into();
        object["phase"] = self.subject.phase().name().into();
        object["ready"] = health.unready.is_none().into();
        object["health"] = health.to_json(wall);
        object["reason"] = health.unready.into();
        object["warnings"] = self.warnings.to_json();
        object["regions_token"] = shown.regions_version.map(|version| format!("{:x}.{version}", self.epoch())).into();
        let response = Response::json(200, &object);
        if self.statuses.len() < STATUS_KEPT_MAX {
            self.statuses.push((request.query.clone(), now, Arc::clone(&response.body)));
        }
        response.into()
    }

    /// Tells this server apart from the one before it.
    fn epoch(&self) -> u64 {
        self.started_at.as_micros().unsigned_abs()
    }

    fn snapshots(&mut self, request: &Request, now: Instant, is_late: bool) -> Answer {
        let limit = match request.param("limit").map(|limit| limit.parse::<usize>()) {
            None => PAGE_DEFAULT,
            Some(Ok(limit)) if (1..=PAGE_MAX).contains(&limit) => limit,
            Some(_) => return Response::refused(400, &format!("limit: expected a number from 1 to {PAGE_MAX}")).into(),
        };
        let after = request.param("after").unwrap_or_default();
        let (stored, moment) = match self.subject.stored(now) {
            Ok(stored) => stored,
            Err(cause) => return Response::refused(404, cause).into(),
        };
        let page = stored.page(after, limit, &moment);
        let shown = |page: Found<Arc<[u8]>>| aged(Response::new(200, JSON, Arc::clone(&page.what)), &page, now).into();
        match page {
            Known::Fresh(page) | Known::Failed(Some(page)) => shown(page),
            Known::Old(page) if is_late => shown(page),
            Known::Old(_) | Known::Awaited if !is_late => Answer::Later,
            _ => unread(stored).into(),
        }
    }

    fn snapshot(&mut self, region: &str, request: &Request, now: Instant, is_late: bool) -> Answer {
        let (stored, moment) = match self.subject.stored(now) {
            Ok(stored) => stored,
            Err(cause) => return Response::refused(404, cause).into(),
        };
        let found = match stored.document(region, &moment) {
            Known::Fresh(found) | Known::Failed(Some(found)) => found,
            Known::Old(found) if is_late => found,
            Known::Old(_) | Known::Awaited if !is_late => return Answer::Later,
            _ => return unread(stored).into(),
        };
        let Some(document) = &found.what else {
            return aged(Response::refused(404, "this region has no snapshot"), &found, now).into();
        };
        let is_known = request.if_none_match.as_deref().is_some_and(|tags| names(tags, &document.tag));
        let response = match is_known {
            true => Response::new(304, JSON, Vec::new()),
            false => Response::new(200, JSON, Arc::clone(&document.body)),
        };
        aged(of_document(response, document), &found, now).into()
    }
}

/// The store cannot be read now, and was not before.
fn unread(stored: &Stored) -> Response {
    let cause = stored.failure().unwrap_or_else(|| "it has not answered in time".into());
    Response::refused(503, &format!("the store cannot be read: {cause}")).with("Retry-After", 2)
}

/// The answer to what cannot be read, or is not served.
pub(super) fn refusal(refusal: Refusal) -> Response {
    match refusal {
        Refusal::Malformed => Response::refused(400, "expected a request of HTTP/1.0 or 1.1 with one Host"),
        Refusal::TooLong => {
            Response::refused(431, "the head of the request is longer than 16 KiB, or has over 64 lines")
        }
        Refusal::Body => Response::refused(413, "a request has no body here"),
        Refusal::Method => {
            Response::refused(405, "expected GET or HEAD: nothing can be changed here").with("Allow", "GET, HEAD")
        }
    }
}

fn unauthorized() -> Response {
    let message =
        "expected the token of --listen-token-file: Authorization: Bearer TOKEN, or as the password of any user";
    Response::refused(401, message)
        .with("WWW-Authenticate", "Bearer realm=\"forebay\"")
        .with("WWW-Authenticate", "Basic realm=\"forebay\", charset=\"UTF-8\"")
}

/// With how old it is, where it is older than what was asked for.
fn aged<T>(response: Response, found: &Found<T>, now: Instant) -> Response {
    match super::wanted::age(found, now).as_secs() {
        0..2 => response,
        seconds => response.with("Age", seconds),
    }
}

fn of_document(response: Response, document: &Document) -> Response {
    let mut response = response.kept().with("ETag", &document.tag);
    if let Some(seq) = document.seq {
        response = response.with("Forebay-Seq", seq);
    }
    if let Some(block) = document.block {
        response = response.with("Forebay-Block", block);
    }
    match &document.generated_at {
        Some(time) if time.bytes().all(|byte| byte.is_ascii_graphic()) => response.with("Forebay-Generated-At", time),
        _ => response,
    }
}

/// Whether a list of tags names that one.
fn names(tags: &str, tag: &str) -> bool {
    tags.split(',').map(str::trim).any(|one| one == "*" || one.strip_prefix("W/").unwrap_or(one) == tag)
}

/// What a page may do: run its own scripts, and ask this server.
fn policy_of(page: &str) -> String {
    let scripts = page.split("<script").skip(1).filter_map(|rest| rest.split("</script>").next()?.split_once('>'));
    let hash = |script: &str| format!(" 'sha256-{}'", to_base64(&Sha256::digest(script.as_bytes())));
    let hashes: String = scripts.map(|(_, script)| hash(script)).collect();
    let scripts = if hashes.is_empty() { " 'none'".to_owned() } else { hashes };
    format!(
        "default-src 'none'; script-src{scripts}; style-src 'unsafe-inline'; img-src 'self' data:; connect-src 'self'; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_found_in_any_list() {
        for tags in [",\"1.a\"", ",\"0\", \"1.a\"", ",W/\"1.a\"", ",*", ",\"0\",\"1.a\""] {
            assert!(names(tags, "\"1.a\""), "{tags}");
        }
        for tags in ["", ",\"1\"", ",1.a", ",\"11.a\""] {
            assert!(!names(tags, "\"1.a\""), "{tags}");
        }
    }

    #[test]
    fn only_the_page_s_own_scripts_run() {
        let policy = policy_of("<html><script type=\"module\">alert(1)</script></html>");
        // printf 'alert(1)' | openssl dgst -sha256 -binary | base64
        assert!(policy.contains("script-src 'sha256-bhHHL3z2vDgxUt0W3dWQOrprscmda2Y5pLsLg4GF+pI=';"), "{policy}");
        assert!(policy_of("").contains("script-src 'none';"));
    }
}
