//! The head of a request, read within bounds.
//!
//! No request has a body here: one that announces any is refused, and its connection ends.

/// Headers of a request.
const HEADERS_MAX: usize = 64;

/// Bytes of the head of a request.
pub(super) const HEAD_BYTES_MAX: usize = 16 * 1024;

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Request {
    /// Only the head of the answer is wanted.
    pub(super) is_head: bool,
    /// As it came, without the query.
    pub(super) path: String,
    /// Behind the question mark, as it came.
    pub(super) query: String,
    pub(super) host: Option<String>,
    pub(super) authorization: Option<String>,
    pub(super) if_none_match: Option<String>,
    /// Whether the connection may be used again.
    pub(super) keeps_alive: bool,
}

/// What came of reading.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Read {
    /// A request, and how many bytes its head has.
    Whole(Box<Request>, usize),
    /// More has to come.
    Partial,
    /// It is refused, and nothing behind it can be trusted.
    Refused(Refusal),
}

/// Why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// It is no HTTP of ours.
    Malformed,
    /// Its head is too long.
    TooLong,
    /// It has a body.
    Body,
    /// It is another method than GET and HEAD.
    Method,
}

/// Reads the head that the bytes begin with.
pub(super) fn read(bytes: &[u8]) -> Read {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut parsed = httparse::Request::new(&mut headers);
    let len = match parsed.parse(bytes) {
        Ok(httparse::Status::Complete(len)) => len,
        Ok(httparse::Status::Partial) if bytes.len() >= HEAD_BYTES_MAX => return Read::Refused(Refusal::TooLong),
        Ok(httparse::Status::Partial) => return Read::Partial,
        Err(httparse::Error::TooManyHeaders) => return Read::Refused(Refusal::TooLong),
        Err(_) => return Read::Refused(Refusal::Malformed),
    };
    if len > HEAD_BYTES_MAX {
        return Read::Refused(Refusal::TooLong);
    }
    let (method, target) = (parsed.method.unwrap_or_default(), parsed.path.unwrap_or_default());
    let is_new = parsed.version == Some(1);
    match request_of(method, target, is_new, parsed.headers) {
        Ok(request) => Read::Whole(Box::new(request), len),
        Err(refusal) => Read::Refused(refusal),
    }
}

fn request_of(method: &str, target: &str, is_new: bool, headers: &[httparse::Header<'_>]) -> Result<Request, Refusal> {
    let mut request = Request { keeps_alive: is_new, ..Request::default() };
    for header in headers {
        let text = std::str::from_utf8(header.value).ok();
        let is = |name: &str| header.name.eq_ignore_ascii_case(name);
        let once = |slot: &mut Option<String>| match (&slot, text) {
            (None, Some(text)) => {
                *slot = Some(text.trim().to_owned());
                Ok(())
            }
            // Twice, or no text: whoever reads it next may take another one.
            _ => Err(Refusal::Malformed),
        };
        if is("host") {
            once(&mut request.host)?;
        } else if is("authorization") {
            once(&mut request.authorization)?;
        } else if is("if-none-match") {
            let all = request.if_none_match.get_or_insert_default();
            all.push(',');
            all.push_str(text.unwrap_or_default());
        } else if is("transfer-encoding") || (is("content-length") && text.map(str::trim) != Some("0")) {
            return Err(Refusal::Body);
        } else if is("connection") {
            let names = |name: &str| {
                text.is_some_and(|text| text.split(',').any(|word| word.trim().eq_ignore_ascii_case(name)))
            };
            request.keeps_alive = !names("close") && (is_new || names("keep-alive"));
        }
    }
    if is_new && request.host.is_none() {
        return Err(Refusal::Malformed);
    }
    match method {
        "GET" => {}
        "HEAD" => request.is_head = true,
        _ => return Err(Refusal::Method),
    }
    let target = without_authority(target).ok_or(Refusal::Malformed)?;
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    (request.path, request.query) = (path.to_owned(), query.split('#').next().unwrap_or_default().to_owned());
    Ok(request)
}

/// The path of a target: a proxy may give the whole address.
fn without_authority(target: &str) -> Option<&str> {
    if target.starts_with('/') {
        return Some(target);
    }
    let rest = target.strip_prefix("http://")?;
    Some(rest.find(['/', '?']).map_or("/", |at| &rest[at..]))
}

impl Request {
    /// A value of the query, by its name.
    pub(super) fn param(&self, name: &str) -> Option<String> {
        let pairs = self.query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        let mut values = pairs.filter(|(key, _)| *key == name).map(|(_, value)| value);
        decoded(&values.next()?.replace('+', " "))
    }
}

/// A text without its percent signs; none if that is no UTF-8.
pub(super) fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || char::from(rest.next()?).to_digit(16);
        let (high, low) = (digit()?, digit()?);
        bytes.push(u8::try_from(high << 4 | low).ok()?);
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(head: &str) -> Request {
        match read(head.as_bytes()) {
            Read::Whole(request, len) => {
                assert_eq!(len, head.len());
                *request
            }
            other => panic!("{head:?}: {other:?}"),
        }
    }

    #[test]
    fn a_request_is_read_however_it_comes() {
        let head = "GET /a%2Fb?x=1&y=a+b HTTP/1.1\r\nhost: localhost:1\r\nIf-None-Match: \"1\"\r\nAUTHORIZATION: Bearer t\r\n\r\n";
        let request = whole(head);
        assert_eq!((request.path.as_str(), request.param("y").as_deref()), ("/a%2Fb", Some("a b")));
        assert_eq!(request.param("z"), None);
        assert_eq!(request.if_none_match.as_deref(), Some(",\"1\""));
        assert!(request.keeps_alive && !request.is_head);
        for end in 0..head.len() {
            assert_eq!(read(&head.as_bytes()[..end]), Read::Partial, "{end}");
        }
        assert!(!whole("GET / HTTP/1.0\r\n\r\n").keeps_alive);
        assert!(whole("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n").keeps_alive);
        assert!(!whole("HEAD / HTTP/1.1\r\nHost: a\r\nConnection: x, close\r\n\r\n").keeps_alive);
        assert_eq!(whole("GET http://h:1/p?q HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n").path, "/p");
        assert_eq!(whole("GET http://h HTTP/1.1\r\nHost: h\r\n\r\n").path, "/");
    }

    #[test]
    fn what_is_no_request_of_ours_is_refused() {
        let host = "Host: a\r\n";
        for (head, refusal) in [
            (format!("POST / HTTP/1.1\r\n{host}\r\n"), Refusal::Method),
            (format!("BREW / HTTP/1.1\r\n{host}\r\n"), Refusal::Method),
            (format!("GET / HTTP/1.1\r\n{host}Transfer-Encoding: chunked\r\n\r\n"), Refusal::Body),
            (format!("GET / HTTP/1.1\r\n{host}Content-Length: 5\r\n\r\n"), Refusal::Body),
            (format!("GET / HTTP/1.1\r\n{host}{host}\r\n"), Refusal::Malformed),
            ("GET / HTTP/1.1\r\n\r\n".to_owned(), Refusal::Malformed),
            ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(), Refusal::Malformed),
            ("\u{16}\u{3}\u{1}".to_owned(), Refusal::Malformed),
            (format!("GET * HTTP/1.1\r\n{host}\r\n"), Refusal::Malformed),
            (format!("GET / HTTP/1.1\r\n{host}X: {}", "x".repeat(HEAD_BYTES_MAX)), Refusal::TooLong),
            (format!("GET / HTTP/1.1\r\n{host}{}\r\n", "X: y\r\n".repeat(HEADERS_MAX)), Refusal::TooLong),
        ] {
            assert_eq!(read(head.as_bytes()), Read::Refused(refusal), "{head:.60}");
        }
    }

    #[test]
    fn percent_signs_are_taken_out_or_refused() {
        assert_eq!(decoded("a%2Fb%20%C3%A9%00+").as_deref(), Some("a/b é\0+"));
        for wrong in ["%", "%2", "%zz", "%ff"] {
            assert_eq!(decoded(wrong), None, "{wrong}");
        }
    }
}
