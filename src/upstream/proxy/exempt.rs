//! `NO_PROXY`: servers that are reached directly, in the grammar of Go's `httpproxy` package.
//!
//! `*`, or a list of addresses, ranges, and domains; addresses and domains with a port or without. A domain stands for
//! itself and everything below it, one with a leading dot or `*.` only for what is below. Loopback addresses and
//! `localhost` are always exempt. What cannot be read exempts nothing.

use std::net::IpAddr;

use ipnet::IpNet;

use super::split_port;

/// The list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Exempt {
    everything: bool,
    entries: Vec<Entry>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Entry {
    Network(IpNet),
    Address(IpAddr, Option<Box<str>>),
    /// With a leading dot; whether it stands for itself too.
    Domain(Box<str>, bool, Option<Box<str>>),
}

impl Exempt {
    /// Reads the variable's value.
    pub(super) fn read(list: &str) -> Self {
        let mut entries = Vec::new();
        for word in list.split(',').map(|word| word.trim().to_lowercase()) {
            if word == "*" {
                return Self { everything: true, entries: Vec::new() };
            }
            entries.extend(Entry::read(&word));
        }
        Self { everything: false, entries }
    }

    /// Whether every server is exempt.
    pub(super) fn everything(&self) -> bool {
        self.everything
    }

    /// Whether only loopback is.
    pub(super) fn is_empty(&self) -> bool {
        !self.everything && self.entries.is_empty()
    }

    /// Whether a server is reached directly.
    pub(super) fn covers(&self, host: &str, port: u16) -> bool {
        let host = host.to_lowercase();
        let ip = host.parse::<IpAddr>().ok().map(|ip| ip.to_canonical());
        if self.everything || host == "localhost" || ip.is_some_and(|ip| ip.is_loopback()) {
            return true;
        }
        let here = |wanted: &Option<Box<str>>| {
            wanted.as_deref().is_none_or(|wanted| wanted.parse() == Ok(port))
        };
        self.entries.iter().any(|entry| match entry {
            Entry::Network(network) => ip.is_some_and(|ip| network.contains(&ip)),
            Entry::Address(address, wanted) => ip == Some(*address) && here(wanted),
            Entry::Domain(domain, itself, wanted) => {
                let same = *itself && domain.strip_prefix('.') == Some(&*host);
                ip.is_none() && (same || host.ends_with(&**domain)) && here(wanted)
            }
        })
    }
}

impl Entry {
    fn read(word: &str) -> Option<Self> {
        if let Ok(network) = word.parse::<IpNet>() {
            return Some(Self::Network(network));
        }
        let bare = word.parse::<IpAddr>().ok().map(|ip| (ip, None));
        let (host, port) = split_port(word);
        let port = port.filter(|port| !port.is_empty()).map(Box::from);
        let with_port = || host.parse::<IpAddr>().ok().map(|ip| (ip, port.clone()));
        if let Some((ip, port)) = bare.or_else(with_port) {
            return Some(Self::Address(ip.to_canonical(), port));
        }
        let host = host.strip_prefix('*').filter(|rest| rest.starts_with('.')).unwrap_or(host);
        if host.is_empty() {
            return None;
        }
        Some(match host.strip_prefix('.') {
            Some(_) => Self::Domain(host.into(), false, port),
            None => Self::Domain(format!(".{host}").into(), true, port),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SIG-11: cases of Go's own description, and around them.
    #[test]
    fn the_grammar() {
        for (list, host, port, exempt) in [
            ("", "a.test", 80, false),
            ("", "localhost", 80, true),
            ("", "LocalHost", 80, true),
            ("", "127.8.9.1", 80, true),
            ("", "::1", 80, true),
            ("", "::ffff:127.0.0.1", 80, true),
            ("", "127.0.0.1.test", 80, false),
            ("*", "a.test", 80, true),
            ("b.test, *", "10.0.0.1", 80, true),
            ("foo.com", "foo.com", 80, true),
            ("foo.com", "bar.foo.com", 80, true),
            ("foo.com", "barfoo.com", 80, false),
            ("FOO.com", "Bar.Foo.COM", 80, true),
            (".y.com", "x.y.com", 80, true),
            (".y.com", "y.com", 80, false),
            ("*.y.com", "x.y.com", 80, true),
            ("*.y.com", "y.com", 80, false),
            ("*y.com", "y.com", 80, false),
            ("foo.com:8080", "foo.com", 8080, true),
            ("foo.com:8080", "foo.com", 80, false),
            (".foo.com:8080", "a.foo.com", 8080, true),
            ("foo.com:http", "foo.com", 80, false),
            ("1.2.3.4", "1.2.3.4", 80, true),
            ("1.2.3.4", "1.2.3.45", 80, false),
            ("1.2.3.4:81", "1.2.3.4", 81, true),
            ("1.2.3.4:81", "1.2.3.4", 80, false),
            ("1.2.3.0/24", "1.2.3.200", 80, true),
            ("1.2.3.0/24", "1.2.4.1", 80, false),
            ("fd00::/8", "fd12::1", 80, true),
            ("fd00::1", "fd00::1", 80, true),
            ("[fd00::1]", "fd00::1", 80, true),
            ("[fd00::1]:81", "fd00::1", 81, true),
            ("[fd00::1]:81", "fd00::1", 80, false),
            ("::ffff:1.2.3.4", "1.2.3.4", 80, true),
            ("10.0.0.0/8,.svc , cluster.local", "db.cluster.local", 80, true),
            ("10.0.0.0/8,.svc , cluster.local", "odoo.shop.svc", 80, true),
            (":80,,.4", "1.2.3.4", 80, false),
        ] {
            assert_eq!(Exempt::read(list).covers(host, port), exempt, "{list:?} {host} {port}");
        }
    }
}
