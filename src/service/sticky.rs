//! Affinity by cookie: Traefik's names, values and attributes, so that sessions survive a change
//! of proxy.
//!
//! The cookie holds a hash and nothing that was not configured; a value that names nobody here
//! means a new choice and a new cookie.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::net::Ipv4Addr;

use http::header::{COOKIE, HeaderMap, HeaderValue, SET_COOKIE};
use sha1::Sha1;
use sha2::{Digest, Sha256};

use super::{StickyConfig, StickyCookieConfig};
use crate::exchange::{Request, Response};
use crate::values::{BuildError, Profile, hex};

/// The cookie of one balancer, and whom its values name.
pub(super) struct Sticky {
    name: Box<str>,
    holders: HashMap<Box<str>, Holder>,
    set_cookie: Box<[HeaderValue]>,
}

/// In the extensions of an attempt that a service above sent here although the client's cookie names
/// another, which is up: nobody below gives the client a cookie for it.
#[derive(Clone, Copy)]
pub(super) struct Visit;

impl Visit {
    /// Whether this attempt is one.
    pub(super) fn is(request: &Request) -> bool {
        request.extensions().get::<Self>().is_some()
    }
}

/// Whom a cookie names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Holder {
    /// Index among the names that the cookie was made for.
    pub(super) index: usize,
    /// The value is one of earlier releases and is to be replaced.
    pub(super) outdated: bool,
}

impl Sticky {
    /// A cookie of `service` for members with these names; `None` in place of a name leaves a
    /// member out.
    pub(super) fn new<'a>(
        config: &StickyCookieConfig,
        service: &str,
        profile: Profile,
        names: impl Iterator<Item = Option<&'a str>>,
    ) -> Result<Self, BuildError> {
        let cookie = cookie_name(&config.name, service);
        let attributes = attributes(config, profile);
        let mut holders = HashMap::new();
        let mut set_cookie = Vec::new();
        for (index, name) in names.enumerate() {
            let name = name.unwrap_or_default();
            let value = sha256(name);
            let line = format!("{cookie}={value}{attributes}");
            let line = HeaderValue::from_str(&line).map_err(|_| {
                BuildError::at("sticky.cookie", "`sticky.cookie` cannot be sent as a header")
            })?;
            set_cookie.push(line);
            if name.is_empty() {
                continue;
            }
            // Traefik hashed URLs once, and then names that were hashed already.
            let once = fnv(name);
            let twice = fnv(&once);
            for old in [name, once.as_str(), twice.as_str()] {
                holders.entry(old.into()).or_insert(Holder { index, outdated: true });
            }
            holders.insert(value.into_boxed_str(), Holder { index, outdated: false });
        }
        Ok(Self { name: cookie.into(), holders, set_cookie: set_cookie.into() })
    }

    /// Whom the request's cookie names. The first cookie of the name counts.
    pub(super) fn holder(&self, headers: &HeaderMap) -> Option<Holder> {
        let value = cookie_value(headers, &self.name)?;
        self.holders.get(value).copied()
    }

    /// Adds the cookie that names `index`, in front of those of the backend: as in Traefik, where
    /// it is written before the request goes out, the backend has the last word.
    pub(super) fn attach(&self, index: usize, response: &mut Response) {
        let Some(line) = self.set_cookie.get(index) else { return };
        let headers = response.headers_mut();
        let theirs: Vec<HeaderValue> = headers.get_all(SET_COOKIE).iter().cloned().collect();
        headers.insert(SET_COOKIE, line.clone());
        for line in theirs {
            headers.append(SET_COOKIE, line);
        }
    }
}

/// Says which attributes of `sticky` are left out because no browser would know their value.
pub(super) fn warn(sticky: Option<&StickyConfig>, warnings: &mut Vec<BuildError>) {
    let Some(cookie) = sticky.and_then(|sticky| sticky.cookie.as_ref()) else { return };
    let (site, domain) = (&cookie.same_site, &cookie.domain);
    if !matches!(&*site.to_lowercase(), "" | "none" | "lax" | "strict") {
        let message = format!(
            "`sticky.cookie.sameSite` is `{site}`: the attribute is left out; write `none`, `lax` \
             or `strict`"
        );
        warnings.push(BuildError::at("sticky.cookie.sameSite", message));
    }
    if !domain.is_empty() && !is_cookie_domain(domain) {
        let message = format!(
            "`sticky.cookie.domain` is `{domain}`, which is no domain: the attribute is left out"
        );
        warnings.push(BuildError::at("sticky.cookie.domain", message));
    }
}

/// The name: as configured, cleaned, or made of the service's name.
fn cookie_name(configured: &str, service: &str) -> String {
    if configured.is_empty() {
        let mut name = hex(&Sha1::digest(format!("_TRAEFIK_BACKEND_{service}")));
        name.truncate(5);
        return format!("_{name}");
    }
    configured.chars().map(|c| if is_token(c) { c } else { '_' }).collect()
}

/// What follows the value, in the order of Go's `Cookie.String`.
fn attributes(config: &StickyCookieConfig, profile: Profile) -> String {
    let mut text = String::new();
    let path: String = config
        .path
        .as_deref()
        .unwrap_or("/")
        .chars()
        .filter(|&c| matches!(c, ' '..='~') && c != ';')
        .collect();
    if !path.is_empty() {
        let _ = write!(text, "; Path={path}");
    }
    if is_cookie_domain(&config.domain) {
        let domain = config.domain.strip_prefix('.').unwrap_or(&config.domain);
        let _ = write!(text, "; Domain={domain}");
    }
    if config.max_age != 0 {
        let _ = write!(text, "; Max-Age={}", config.max_age.max(0));
    }
    // No script has any business with it.
    if config.http_only || profile == Profile::Hardened {
        text.push_str("; HttpOnly");
    }
    if config.secure {
        text.push_str("; Secure");
    }
    match config.same_site.to_lowercase().as_str() {
        "none" => text.push_str("; SameSite=None"),
        "lax" => text.push_str("; SameSite=Lax"),
        "strict" => text.push_str("; SameSite=Strict"),
        _ => {}
    }
    text
}

fn is_token(c: char) -> bool {
    c.is_ascii_alphanumeric() || "!#$%&'*+-.^`|~_".contains(c)
}

/// Whether Go would send this as the domain of a cookie.
fn is_cookie_domain(domain: &str) -> bool {
    let name = domain.strip_prefix('.').unwrap_or(domain);
    let labels_are_valid = name.split('.').all(|label| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    });
    let is_name = domain.len() <= 255
        && labels_are_valid
        && name.bytes().any(|byte| byte.is_ascii_alphabetic());
    is_name || domain.parse::<Ipv4Addr>().is_ok()
}

/// The value of the first cookie called `name`, read as Go's `Request.Cookie` reads it: what is
/// malformed is no cookie, quotes around a value do not belong to it.
fn cookie_value<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get_all(COOKIE).iter().flat_map(|line| line.as_bytes().split(|&b| b == b';')).find_map(
        |part| {
            let part = part.trim_ascii();
            let equals = memchr::memchr(b'=', part).unwrap_or(part.len());
            let (found, value) = part.split_at(equals);
            if found.trim_ascii() != name.as_bytes() {
                return None;
            }
            let value = value.get(1..).unwrap_or_default();
            let value = match value {
                [b'"', inner @ .., b'"'] => inner,
                value => value,
            };
            let valid = |byte: &u8| {
                matches!(byte, b' '..=b'~') && *byte != b'"' && *byte != b';' && *byte != b'\\'
            };
            if value.iter().all(valid) { str::from_utf8(value).ok() } else { None }
        },
    )
}

fn sha256(name: &str) -> String {
    let mut text = hex(&Sha256::digest(name));
    text.truncate(16);
    text
}

/// FNV-1, 64 bits, as Go writes a number in hexadecimal.
fn fnv(text: &str) -> String {
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        hash.wrapping_mul(0x0100_0000_01b3) ^ u64::from(byte)
    });
    format!("{hash:x}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange::Body;

    fn sticky(config: &StickyCookieConfig) -> Sticky {
        let names = [Some("http://a:1"), None, Some("http://b:2")];
        Sticky::new(config, "backend", Profile::Safe, names.into_iter()).unwrap()
    }

    fn request(lines: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(COOKIE, line.parse().unwrap());
        }
        headers
    }

    fn line(config: &StickyCookieConfig) -> String {
        let mut response = Response::new(Body::empty());
        sticky(config).attach(0, &mut response);
        response.headers()[SET_COOKIE].to_str().unwrap().to_owned()
    }

    #[test]
    fn names_are_traefiks() {
        assert_eq!(cookie_name("", "backend"), "_76eb3");
        assert_eq!(cookie_name("a b=c;_é!", "x"), "a_b_c___!");
        assert_eq!(cookie_name("lvl1", "x"), "lvl1");
    }

    #[test]
    fn values_are_traefiks() {
        // The first digits of a published test vector of SHA-256, and of FNV-1.
        assert_eq!(sha256("abc"), "ba7816bf8f01cfea");
        assert_eq!(fnv(""), "cbf29ce484222325");
        assert_eq!(fnv("a"), "af63bd4c8601b7be");
    }

    #[test]
    fn attributes_come_in_gos_order() {
        let plain = StickyCookieConfig::default();
        let value = sha256("http://a:1");
        assert_eq!(line(&plain), format!("_76eb3={value}; Path=/"));
        let full = StickyCookieConfig {
            name: "odoo".to_owned(),
            secure: true,
            http_only: true,
            same_site: "STRICT".to_owned(),
            max_age: 42,
            path: Some("/web;x".to_owned()),
            domain: ".example.org".to_owned(),
        };
        assert_eq!(
            line(&full),
            format!(
                "odoo={value}; Path=/webx; Domain=example.org; Max-Age=42; HttpOnly; Secure; \
                 SameSite=Strict"
            )
        );
        let odd = StickyCookieConfig {
            max_age: -1,
            same_site: "whatever".to_owned(),
            domain: "bad domain".to_owned(),
            path: Some(String::new()),
            ..StickyCookieConfig::default()
        };
        assert_eq!(line(&odd), format!("_76eb3={value}; Max-Age=0"));
        assert_eq!(attributes(&plain, Profile::Hardened), "; Path=/; HttpOnly");
    }

    #[test]
    fn domains() {
        for domain in ["example.org", ".example.org", "10.0.0.1", "a-b.c"] {
            assert!(is_cookie_domain(domain), "{domain}");
        }
        for domain in ["", ".", "a..b", "-a.b", "a-.b", "a_b", "::1", "1.2.3"] {
            assert!(!is_cookie_domain(domain), "{domain}");
        }
    }

    #[test]
    fn current_and_outdated_values_name_a_member() {
        let sticky = sticky(&StickyCookieConfig::default());
        let holder = |value: &str| sticky.holder(&request(&[&format!("_76eb3={value}")]));
        let url = "http://b:2";
        assert_eq!(holder(&sha256(url)), Some(Holder { index: 2, outdated: false }));
        for old in [url.to_owned(), fnv(url), fnv(&fnv(url))] {
            assert_eq!(holder(&old), Some(Holder { index: 2, outdated: true }), "{old}");
        }
        for forged in ["", "x", "0", &sha256("http://c:3"), &sha256("")] {
            assert_eq!(holder(forged), None, "{forged}");
        }
    }

    #[test]
    fn cookies_are_read_as_go_reads_them() {
        for (lines, want) in [
            (&["n=1"][..], Some("1")),
            (&["a=0; n=1; n=2"][..], Some("1")),
            (&["a=0", "n=1"][..], Some("1")),
            (&["n=\"1\""][..], Some("1")),
            (&["n=\""][..], None),
            (&["n=a\\b; n=2"][..], Some("2")),
            (&["n=a=b"][..], Some("a=b")),
            (&["n"][..], Some("")),
            (&[" n = 1"][..], Some(" 1")),
            (&["N=1", "nn=1", "x"][..], None),
            (&[][..], None),
        ] {
            assert_eq!(cookie_value(&request(lines), "n"), want, "{lines:?}");
        }
    }

    #[test]
    fn the_backends_cookies_stay_and_come_after_ours() {
        let mut response = Response::new(Body::empty());
        response.headers_mut().append(SET_COOKIE, "session=1".parse().unwrap());
        response.headers_mut().append(SET_COOKIE, "lang=de".parse().unwrap());
        sticky(&StickyCookieConfig::default()).attach(2, &mut response);
        let lines: Vec<_> = response.headers().get_all(SET_COOKIE).iter().collect();
        assert!(lines[0].to_str().unwrap().starts_with("_76eb3="));
        assert_eq!(lines[1..], ["session=1", "lang=de"]);
    }
}
