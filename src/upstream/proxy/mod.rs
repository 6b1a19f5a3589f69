//! Proxies between us and the servers, as the environment names them: `HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY`,
//! read as Go's `httpproxy` package reads them.
//!
//! The environment is read once, at the start; whether a server is reached through a proxy is decided once, when its
//! origin is made. What cannot be read is an error that names the variable and never repeats a password.

mod exempt;
mod handshake;

use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;
use rustls_pki_types::ServerName;

use self::exempt::Exempt;
pub use self::handshake::{connect, socks5};
use super::target::{Target, TargetScheme};
use crate::values::{BuildError, Secret, unescaped};

/// The proxies that servers are reached through.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Proxies {
    http: Option<Arc<ForwardProxy>>,
    https: Option<Arc<ForwardProxy>>,
    exempt: Exempt,
}

/// One proxy.
#[derive(PartialEq, Eq)]
pub struct ForwardProxy {
    pub(super) kind: ProxyKind,
    pub(super) host: Box<str>,
    pub(super) port: u16,
    /// For the certificate of a proxy behind TLS.
    pub(super) server_name: Option<ServerName<'static>>,
    /// `Proxy-Authorization`, for a proxy that speaks HTTP.
    pub(super) authorization: Option<HeaderValue>,
    /// User and password, for SOCKS.
    pub(super) credentials: Option<(Secret, Secret)>,
}

/// How a proxy is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ProxyKind {
    Http,
    /// HTTP inside TLS.
    Https,
    Socks5,
}

/// What a request that goes to a proxy, and not into a tunnel, says besides (RFC 9112, 3.2.2).
#[derive(Debug)]
pub(super) struct AbsoluteForm {
    /// Scheme and authority of the server, for the front of the target.
    pub(super) origin: Box<str>,
    /// `Host`, which says the same (RFC 9112, 3.2): some proxies go by it, and clients must not choose.
    pub(super) host: HeaderValue,
    pub(super) authorization: Option<HeaderValue>,
}

const HTTP: [&str; 2] = ["HTTP_PROXY", "http_proxy"];
const HTTPS: [&str; 2] = ["HTTPS_PROXY", "https_proxy"];
const NO_PROXY: [&str; 2] = ["NO_PROXY", "no_proxy"];

impl Proxies {
    /// Reads the variables of an environment.
    pub fn read(variables: &[(String, String)]) -> Result<Self, BuildError> {
        let value = |wanted: &str| {
            let found = variables.iter().find(|(name, value)| name == wanted && !value.is_empty());
            found.map(|(_, value)| value.as_str())
        };
        // The first of the two spellings that is set.
        let set = |names: [&'static str; 2]| {
            names.into_iter().find_map(|name| Some((name, value(name)?)))
        };
        let proxy = |names| {
            set(names).map(|(name, url)| ForwardProxy::parse(name, url).map(Arc::new)).transpose()
        };
        let http = proxy(HTTP)?;
        if let (Some((name, _)), Some(_)) = (set(HTTP), value("REQUEST_METHOD")) {
            // https://golang.org/s/cgihttpproxy
            let message = format!(
                "`{name}` cannot be trusted where `REQUEST_METHOD` is set, because a CGI server sets it from a \
                 client's `Proxy` header; unset one of them"
            );
            return Err(BuildError::at(name, message));
        }
        let exempt = set(NO_PROXY).map(|(_, list)| Exempt::read(list)).unwrap_or_default();
        Ok(Self { http, https: proxy(HTTPS)?, exempt })
    }

    /// What the user should know: which servers are not reached directly. `None` without a proxy.
    pub fn notice(&self) -> Option<String> {
        let way = |scheme: &str, proxy: &Option<Arc<ForwardProxy>>| {
            proxy.as_ref().map(|proxy| format!("`{scheme}` servers through {proxy}"))
        };
        let ways = [way("http", &self.http), way("https", &self.https)];
        let ways: Vec<String> = ways.into_iter().flatten().collect();
        if ways.is_empty() || self.exempt.everything() {
            return None;
        }
        let exempt = if self.exempt.is_empty() {
            "; `NO_PROXY` exempts none"
        } else {
            ", but for those in `NO_PROXY`"
        };
        Some(format!(
            "the environment has proxies, as Traefik uses them: {}{exempt} and loopback addresses",
            ways.join(", ")
        ))
    }

    /// The proxy on the way to `target`.
    pub fn to(&self, target: &Target) -> Option<Arc<ForwardProxy>> {
        let proxy = match target.scheme() {
            TargetScheme::Https => &self.https,
            TargetScheme::Http | TargetScheme::H2c => &self.http,
        };
        let proxy = proxy.as_ref()?;
        (!self.exempt.covers(target.host(), target.port())).then(|| Arc::clone(proxy))
    }
}

impl ForwardProxy {
    fn parse(variable: &str, url: &str) -> Result<Self, BuildError> {
        let wrong = |why: &str| {
            BuildError::at(variable, format!("`{variable}` is no URL of a proxy: {why}"))
        };
        // As in Go, what has no scheme is taken for `http`.
        let (scheme, rest) = url.trim().split_once("://").unwrap_or(("http", url.trim()));
        let (kind, usual_port) = match scheme.to_ascii_lowercase().as_str() {
            "http" => (ProxyKind::Http, 80),
            "https" => (ProxyKind::Https, 443),
            "socks5" | "socks5h" => (ProxyKind::Socks5, 1080),
            _ => return Err(wrong("its scheme must be http, https or socks5")),
        };
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let (user, address) = match authority.rsplit_once('@') {
            None => (None, authority),
            Some((user, address)) => (Some(user), address),
        };
        let (host, port) = split_port(address);
        let port = match port {
            None | Some("") => usual_port,
            Some(port) => port.parse().map_err(|_| wrong("its port cannot be read"))?,
        };
        let usable = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':');
        if host.is_empty() || !host.chars().all(usable) {
            return Err(wrong("its host cannot be read"));
        }
        let credentials = match user {
            None => None,
            Some(user) => {
                let (name, password) = user.split_once(':').unwrap_or((user, ""));
                let plain = |text| unescaped(text).ok_or_else(|| wrong("its user cannot be read"));
                Some((plain(name)?, plain(password)?))
            }
        };
        let authorization = credentials.as_ref().map(|(name, password)| {
            let text = STANDARD.encode(format!("{name}:{password}"));
            let mut value = HeaderValue::from_str(&format!("Basic {text}"))
                .map_err(|_| wrong("its user cannot be sent"))?;
            value.set_sensitive(true);
            Ok(value)
        });
        let authorization = authorization.transpose()?;
        let short = |text: &str| (1..=255).contains(&text.len());
        if kind == ProxyKind::Socks5
            && credentials.as_ref().is_some_and(|(name, word)| !short(name) || !short(word))
        {
            return Err(wrong("user and password of a SOCKS proxy have 1 to 255 bytes"));
        }
        Ok(Self {
            kind,
            host: host.into(),
            port,
            server_name: ServerName::try_from(host.to_owned()).ok(),
            authorization,
            credentials: credentials.map(|(name, word)| (Secret::from(name), Secret::from(word))),
        })
    }
}

impl AbsoluteForm {
    /// What requests to `target` say to `proxy`, if they are not sent through a tunnel. The proxy is told the server
    /// of the configuration, where Go's client tells it the client's `Host` and so lets clients choose.
    pub(super) fn to(target: &Target, proxy: &ForwardProxy) -> Option<Self> {
        let tunnelled = target.scheme() != TargetScheme::Http || proxy.kind == ProxyKind::Socks5;
        (!tunnelled).then(|| Self {
            origin: format!("http://{}", target.authority()).into(),
            host: target.host_header().clone(),
            authorization: proxy.authorization.clone(),
        })
    }
}

/// Without user and password.
impl fmt::Display for ForwardProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match self.kind {
            ProxyKind::Http => "http",
            ProxyKind::Https => "https",
            ProxyKind::Socks5 => "socks5",
        };
        write!(f, "{scheme}://{}", Authority(&self.host, self.port))
    }
}

impl fmt::Debug for ForwardProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Host and port as they are written in a URL.
pub(super) struct Authority<'a>(pub(super) &'a str, pub(super) u16);

impl fmt::Display for Authority<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(host, port) = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

/// A host without its brackets, and what is written behind its colon.
fn split_port(address: &str) -> (&str, Option<&str>) {
    if let Some((host, behind)) = address.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        return (host, behind.strip_prefix(':'));
    }
    match address.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') => (host, Some(port)),
        _ => (address, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<Proxies, BuildError> {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        Proxies::read(&variables.iter().map(owned).collect::<Vec<_>>())
    }

    fn way(proxies: &Proxies, url: &str) -> Option<String> {
        proxies.to(&Target::parse(url).unwrap()).map(|proxy| proxy.to_string())
    }

    /// SIG-11, RP-6.2
    #[test]
    fn each_scheme_has_its_variable_in_two_spellings() {
        let proxies =
            read(&[("HTTP_PROXY", ""), ("http_proxy", "low:1"), ("HTTPS_PROXY", "https://up")]);
        let proxies = proxies.unwrap();
        for (url, want) in [
            ("http://a", Some("http://low:1")),
            ("h2c://a", Some("http://low:1")),
            ("https://a", Some("https://up:443")),
            ("http://localhost", None),
            ("https://127.0.0.9:8443", None),
            ("http://[::1]", None),
            ("http://10.0.0.1", Some("http://low:1")),
        ] {
            assert_eq!(way(&proxies, url).as_deref(), want, "{url}");
        }
        let both = read(&[("http_proxy", "low:1"), ("HTTP_PROXY", "up:2")]).unwrap();
        assert_eq!(way(&both, "http://a").unwrap(), "http://up:2");
        assert_eq!(way(&both, "https://a"), None);
        assert_eq!(way(&Proxies::default(), "http://a"), None);
    }

    #[test]
    fn urls_of_proxies() {
        for (url, want) in [
            ("proxy", "http://proxy:80"),
            ("proxy:3128", "http://proxy:3128"),
            ("HTTP://proxy:3128/", "http://proxy:3128"),
            ("https://u:p@proxy", "https://proxy:443"),
            ("socks5://proxy", "socks5://proxy:1080"),
            ("socks5h://u:p@proxy:1", "socks5://proxy:1"),
            ("http://[fd00::1]:3128", "http://[fd00::1]:3128"),
        ] {
            let proxies = read(&[("HTTP_PROXY", url)]).unwrap();
            assert_eq!(way(&proxies, "http://a").as_deref(), Some(want), "{url}");
        }
    }

    #[test]
    fn what_is_no_proxy_is_an_error_of_its_variable_without_its_password() {
        for url in [
            "ftp://proxy",
            "http://",
            "http://u:hunter2@",
            "http://u:hunter2@proxy:port",
            "http://u:hunter2@a b",
            "http://u:hunter%2@proxy",
            "socks5://u@proxy",
            "socks5://:hunter2@proxy",
        ] {
            let error = read(&[("https_proxy", url)]).unwrap_err();
            assert_eq!(error.option, "https_proxy", "{url}");
            assert!(error.message.contains("`https_proxy`"), "{error}");
            assert!(!error.message.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn credentials_are_sent_and_never_shown() {
        let proxies = read(&[("HTTP_PROXY", "http://us%40er:p%3Aw@proxy")]).unwrap();
        let proxy = proxies.to(&Target::parse("http://a").unwrap()).unwrap();
        let want = format!("Basic {}", STANDARD.encode("us@er:p:w"));
        assert_eq!(proxy.authorization.as_ref().unwrap(), &want);
        let shown = format!("{proxies:?} {proxy} {}", proxies.notice().unwrap());
        assert!(!shown.contains("p:w") && !shown.contains("p%3Aw"), "{shown}");
        assert!(!shown.contains(&STANDARD.encode("us@er:p:w")), "{shown}");
    }

    /// A CGI server would set `HTTP_PROXY` from a header of the client.
    #[test]
    fn http_proxy_is_not_trusted_under_cgi() {
        let error = read(&[("HTTP_PROXY", "p"), ("REQUEST_METHOD", "GET")]).unwrap_err();
        assert_eq!(error.option, "HTTP_PROXY");
        assert!(read(&[("HTTPS_PROXY", "p"), ("REQUEST_METHOD", "GET")]).is_ok());
    }

    #[test]
    fn the_user_is_told_which_servers_are_not_reached_directly() {
        assert_eq!(Proxies::default().notice(), None);
        assert_eq!(read(&[("HTTP_PROXY", "p"), ("NO_PROXY", "*")]).unwrap().notice(), None);
        let notice = read(&[("HTTP_PROXY", "p:1")]).unwrap().notice().unwrap();
        assert!(notice.contains("`http` servers through http://p:1; `NO_PROXY`"), "{notice}");
        let notice = read(&[("HTTPS_PROXY", "p"), ("NO_PROXY", "a")]).unwrap().notice().unwrap();
        assert!(notice.contains("`https` servers") && notice.contains("but for those"), "{notice}");
    }

    /// Go's client asks the proxy for the client's `Host`.
    #[test]
    fn a_proxy_is_asked_for_the_server_of_the_configuration() {
        let proxies = read(&[("HTTP_PROXY", "p"), ("HTTPS_PROXY", "p")]).unwrap();
        let asked = |url: &str| {
            let target = Target::parse(url).unwrap();
            let proxy = proxies.to(&target).unwrap();
            AbsoluteForm::to(&target, &proxy).map(|asked| asked.origin)
        };
        assert_eq!(asked("http://odoo:8069/x").as_deref(), Some("http://odoo:8069"));
        assert_eq!(asked("https://odoo"), None);
        assert_eq!(asked("h2c://odoo"), None);
    }
}
