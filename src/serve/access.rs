//! Who may ask for what: the token, and the name under which the server was asked for.
//!
//! A page of another site that a browser on this machine shows may reach a loopback address under a name of its own (DNS
//! rebinding). So on loopback only the names of this machine are answered. A token is compared in a time that does not
//! depend on it.

use super::request::Request;

/// Who may ask.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Access {
    /// Whoever is on this machine. Refused for any other address than loopback.
    Local,
    /// Whoever reaches the address.
    Open,
    /// Whoever has this token.
    Token(String),
}

impl std::fmt::Debug for Access {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Local => "Local",
            Self::Open => "Open",
            Self::Token(_) => "Token",
        })
    }
}

/// What a request may see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sight {
    /// Everything.
    All,
    /// Nothing but whether a probe is well: it lacks the token.
    Probes,
}

/// Why a request is not answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Barred {
    /// It names another host.
    Host,
}

/// Decides who may ask.
pub(super) struct Gate {
    token: Option<Vec<u8>>,
    /// The host that was given, where only names of this machine are answered.
    local: Option<String>,
}

impl std::fmt::Debug for Gate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gate").field("has_token", &self.token.is_some()).field("local", &self.local).finish()
    }
}

impl Gate {
    pub(super) fn new(access: Access, local: Option<String>) -> Self {
        let token = match access {
            Access::Token(token) => Some(token.into_bytes()),
            Access::Local | Access::Open => None,
        };
        Self { token, local }
    }

    /// What a request may see.
    pub(super) fn admit(&self, request: &Request) -> Result<Sight, Barred> {
        if let Some(given) = &self.local
            && !request.host.as_deref().is_none_or(|host| is_of_this_machine(host, given))
        {
            return Err(Barred::Host);
        }
        let Some(token) = &self.token else { return Ok(Sight::All) };
        let given = request.authorization.as_deref().and_then(token_of);
        Ok(if given.is_some_and(|given| is_same(&given, token)) { Sight::All } else { Sight::Probes })
    }
}

/// Whether a `Host` names this machine, with any port: a tunnel may have another.
fn is_of_this_machine(host: &str, given: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let name = name.strip_suffix('.').unwrap_or(name);
    ["localhost", "127.0.0.1", "[::1]", given].iter().any(|known| name.eq_ignore_ascii_case(known))
}

/// The token of an `Authorization`: as a bearer's, or as the password of a browser's or a scraper's basic one.
fn token_of(authorization: &str) -> Option<Vec<u8>> {
    let (scheme, rest) = authorization.trim().split_once(' ')?;
    let rest = rest.trim();
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(rest.as_bytes().to_vec());
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let pair = from_base64(rest)?;
    let colon = pair.iter().position(|byte| *byte == b':')?;
    Some(pair[colon + 1..].to_vec())
}

/// Compares in a time that depends on the lengths only.
fn is_same(given: &[u8], token: &[u8]) -> bool {
    let differing = given.iter().zip(token).fold(0, |differing, (a, b)| differing | (a ^ b));
    given.len() == token.len() && std::hint::black_box(differing) == 0
}

const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// The bytes that a text in Base64 stands for.
fn from_base64(text: &str) -> Option<Vec<u8>> {
    let text = text.trim_end_matches('=');
    let mut bytes = Vec::with_capacity(text.len() * 3 / 4);
    let (mut held, mut bits) = (0_u32, 0);
    for character in text.bytes() {
        let digit = BASE64.iter().position(|known| *known == character)?;
        held = held << 6 | u32::try_from(digit).ok()?;
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            bytes.push((held >> bits & 0xff) as u8);
        }
    }
    Some(bytes)
}

/// Bytes as a text in Base64.
pub(super) fn to_base64(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for three in bytes.chunks(3) {
        let held = three.iter().fold(0_u32, |held, byte| held << 8 | u32::from(*byte)) << (8 * (3 - three.len()));
        for at in 0..4 {
            let digit = BASE64[(held >> (18 - 6 * at) & 0x3f) as usize];
            text.push(if at <= three.len() { char::from(digit) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(host: Option<&str>, authorization: Option<&str>) -> Request {
        let (host, authorization) = (host.map(str::to_owned), authorization.map(str::to_owned));
        Request { host, authorization, ..Request::default() }
    }

    #[test]
    fn base64_goes_both_ways() {
        for (bytes, text) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")] {
            assert_eq!(to_base64(bytes.as_bytes()), text);
            assert_eq!(from_base64(text).as_deref(), Some(bytes.as_bytes()));
        }
        assert_eq!(from_base64("Zm9*"), None);
    }

    #[test]
    fn the_token_is_taken_in_two_forms_and_compared_whole() {
        let gate = Gate::new(Access::Token("0123456789abcdef".into()), None);
        let basic = |pair: &str| format!("Basic {}", to_base64(pair.as_bytes()));
        for (authorization, sight) in [
            (None, Sight::Probes),
            (Some("Bearer 0123456789abcdef".to_owned()), Sight::All),
            (Some("bearer  0123456789abcdef ".to_owned()), Sight::All),
            (Some("Bearer 0123456789abcde".to_owned()), Sight::Probes),
            (Some("Bearer 0123456789abcdefg".to_owned()), Sight::Probes),
            (Some("Bearer".to_owned()), Sight::Probes),
            (Some("Digest 0123456789abcdef".to_owned()), Sight::Probes),
            (Some(basic("any:0123456789abcdef")), Sight::All),
            (Some(basic(":0123456789abcdef")), Sight::All),
            (Some(basic("0123456789abcdef")), Sight::Probes),
            (Some("Basic ???".to_owned()), Sight::Probes),
        ] {
            let seen = gate.admit(&request(None, authorization.as_deref()));
            assert_eq!(seen, Ok(sight), "{authorization:?}");
        }
    }

    #[test]
    fn on_loopback_only_names_of_this_machine_are_answered() {
        let gate = Gate::new(Access::Local, Some("127.8.0.1".into()));
        for host in
            ["localhost", "LOCALHOST:9464", "127.0.0.1:1", "[::1]:9464", "[::1]", "127.8.0.1:9464", "localhost."]
        {
            assert_eq!(gate.admit(&request(Some(host), None)), Ok(Sight::All), "{host}");
        }
        for host in ["evil.example", "localhost.evil.example:9464", "127.0.0.1.evil.example", "", "10.0.0.1:9464"] {
            assert_eq!(gate.admit(&request(Some(host), None)), Err(Barred::Host), "{host}");
        }
        assert_eq!(gate.admit(&request(None, None)), Ok(Sight::All), "an old client gives none");
        let open = Gate::new(Access::Open, None);
        assert_eq!(open.admit(&request(Some("any.example"), None)), Ok(Sight::All));
    }
}
