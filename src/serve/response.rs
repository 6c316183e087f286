//! An answer, and how it is written.

use std::fmt::Write as _;
use std::sync::Arc;

use serde_json::Value as Json;

/// An answer.
#[derive(Debug, Clone)]
pub(super) struct Response {
    pub(super) status: u16,
    kind: &'static str,
    /// Further lines of the head, each with its end.
    headers: String,
    pub(super) body: Arc<[u8]>,
    is_kept: bool,
}

impl Response {
    /// An answer of that type. Nobody keeps it.
    pub(super) fn new(status: u16, kind: &'static str, body: impl Into<Arc<[u8]>>) -> Self {
        Self { status, kind, headers: String::new(), body: body.into(), is_kept: false }
    }

    /// JSON, with a line end behind it: people read it in a terminal too. What is unprintable in its texts is escaped.
    pub(super) fn json(status: u16, value: &Json) -> Self {
        let text = format!("{}\n", crate::model::text::plain_json(&value.to_string()));
        Self::new(status, JSON, text.into_bytes())
    }

    /// Why something is not answered, and what to do.
    pub(super) fn refused(status: u16, error: &str) -> Self {
        Self::json(status, &serde_json::json!({ "error": error }))
    }

    /// With another line of the head. The value holds visible characters and blanks only.
    pub(super) fn with(mut self, name: &str, value: impl std::fmt::Display) -> Self {
        // Writing to a text cannot fail.
        let _ = write!(self.headers, "{name}: {value}\r\n");
        self
    }

    /// May be kept by whoever asks again whether it is still the same.
    pub(super) fn kept(self) -> Self {
        Self { is_kept: true, ..self }
    }

    /// The head of the answer.
    pub(super) fn head(&self, keeps_alive: bool) -> Vec<u8> {
        let mut head = format!("HTTP/1.1 {} {}\r\n", self.status, reason(self.status));
        // What has not changed has no body, and says nothing of one.
        if self.status != 304 {
            let _ = write!(head, "Content-Type: {}\r\nContent-Length: {}\r\n", self.kind, self.body.len());
        }
        let cached = if self.is_kept { "no-cache" } else { "no-store" };
        let _ = write!(head, "Cache-Control: {cached}\r\nX-Content-Type-Options: nosniff\r\n");
        head.push_str(&self.headers);
        head.push_str(if keeps_alive { "Connection: keep-alive\r\n\r\n" } else { "Connection: close\r\n\r\n" });
        head.into_bytes()
    }
}

pub(super) const JSON: &str = "application/json; charset=utf-8";

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        304 => "Not Modified",
        400 => "Bad Request",
        401 => "Unauthorized",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        413 => "Content Too Large",
        421 => "Misdirected Request",
        431 => "Request Header Fields Too Large",
        503 => "Service Unavailable",
        _ => "Error",
    }
}
