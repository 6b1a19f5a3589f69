//! What is written: which exchanges, which fields of them, which headers.

use std::ops::RangeInclusive;
use std::time::Duration;

use hashbrown::HashMap;
use http::HeaderName;

use super::config::{AccessLogFields, AccessLogFilters};

macro_rules! fields {
    ($($name:ident = $text:literal),* $(,)?) => {
        /// A field of a line, in the order in which JSON lines have them (Go sorts keys by byte).
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(super) enum Field { $($name),* }

        /// The names of all fields.
        pub const FIELDS: &[&str] = &[$($text),*];

        impl Field {
            const ALL: &'static [(Self, &'static str)] = &[$((Self::$name, $text)),*];

            /// The name in configuration and JSON.
            pub(super) const fn name(self) -> &'static str {
                match self { $(Self::$name => $text),* }
            }
        }
    };
}

fields! {
    ClientAddr = "ClientAddr",
    ClientHost = "ClientHost",
    ClientPort = "ClientPort",
    ClientUsername = "ClientUsername",
    DownstreamContentSize = "DownstreamContentSize",
    DownstreamStatus = "DownstreamStatus",
    Duration = "Duration",
    GzipRatio = "GzipRatio",
    OriginContentSize = "OriginContentSize",
    OriginDuration = "OriginDuration",
    OriginStatus = "OriginStatus",
    Overhead = "Overhead",
    Reason = "Reason",
    RequestAddr = "RequestAddr",
    RequestContentSize = "RequestContentSize",
    RequestCount = "RequestCount",
    RequestHost = "RequestHost",
    RequestId = "RequestId",
    RequestMethod = "RequestMethod",
    RequestPath = "RequestPath",
    RequestPort = "RequestPort",
    RequestProtocol = "RequestProtocol",
    RequestScheme = "RequestScheme",
    RetryAttempts = "RetryAttempts",
    RouterName = "RouterName",
    ServiceAddr = "ServiceAddr",
    ServiceName = "ServiceName",
    ServiceUrl = "ServiceURL",
    StartLocal = "StartLocal",
    StartUtc = "StartUTC",
    TlsCipher = "TLSCipher",
    TlsClientSubject = "TLSClientSubject",
    TlsVersion = "TLSVersion",
    EntryPointName = "entryPointName",
}

/// What happens to a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HeaderMode {
    /// It is written.
    Keep,
    /// It is not.
    Drop,
    /// `REDACTED` is written in its place.
    Redact,
}

impl HeaderMode {
    fn named(text: &str) -> Option<Self> {
        match text {
            "keep" => Some(Self::Keep),
            "drop" => Some(Self::Drop),
            "redact" => Some(Self::Redact),
            _ => None,
        }
    }
}

/// Which parts of an exchange are written.
#[derive(Debug)]
pub(super) struct Policy {
    kept: u64,
    query: bool,
    headers: HeaderMode,
    named: HashMap<HeaderName, HeaderMode>,
}

impl Policy {
    /// The policy of `config`. As in Traefik, a mode that does not exist means the default one.
    pub(super) fn new(config: &AccessLogFields) -> Self {
        let default = keeps(&config.default_mode, true);
        let mut kept = 0;
        for &(field, name) in Field::ALL {
            let own = config.names.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
            if own.map_or(default, |(_, mode)| keeps(mode, default)) {
                kept |= 1 << field as u32;
            }
        }
        let headers = HeaderMode::named(&config.headers.default_mode).unwrap_or(HeaderMode::Keep);
        let mut named = HashMap::new();
        for (name, mode) in &config.headers.names {
            match name.parse::<HeaderName>() {
                Ok(name) => {
                    named.insert(name, HeaderMode::named(mode).unwrap_or(headers));
                }
                Err(_) => {
                    tracing::warn!(header = %name, "No header has the name in the access log's fields");
                }
            }
        }
        Self { kept, query: keeps(&config.query_parameters.default_mode, true), headers, named }
    }

    /// Whether `field` is written.
    pub(super) fn keeps(&self, field: Field) -> bool {
        self.kept & (1 << field as u32) != 0
    }

    /// Whether the query is written with the path.
    pub(super) fn keeps_query(&self) -> bool {
        self.query
    }

    /// What happens to the header `name`.
    pub(super) fn header(&self, name: &HeaderName) -> HeaderMode {
        if self.named.is_empty() {
            return self.headers;
        }
        self.named.get(name).copied().unwrap_or(self.headers)
    }

    /// Whether anything is written of the header `name`.
    pub(super) fn keeps_header(&self, name: &HeaderName) -> bool {
        self.header(name) != HeaderMode::Drop
    }

    /// Whether no header at all is written.
    pub(super) fn drops_all_headers(&self) -> bool {
        self.headers == HeaderMode::Drop
            && self.named.values().all(|&mode| mode == HeaderMode::Drop)
    }
}

fn keeps(mode: &str, default: bool) -> bool {
    match mode {
        "keep" => true,
        "drop" => false,
        _ => default,
    }
}

/// Which exchanges are written.
#[derive(Debug)]
pub(super) struct Filter {
    statuses: Vec<RangeInclusive<u16>>,
    retries: bool,
    longer_than: Option<Duration>,
}

impl Filter {
    /// The filter of `config`. Status codes that cannot be read are reported and left out.
    pub(super) fn new(config: &AccessLogFilters) -> Self {
        let statuses = config
            .status_codes
            .iter()
            .flat_map(|text| text.split(','))
            .map(|text| range(text.trim()).ok_or(text))
            .collect::<Result<Vec<_>, _>>();
        let statuses = statuses.unwrap_or_else(|text| {
            tracing::error!(statusCodes = text, "Failed to create new HTTP code ranges");
            Vec::new()
        });
        Self {
            statuses,
            retries: config.retry_attempts,
            longer_than: config.min_duration.positive(),
        }
    }

    /// Whether an exchange is written.
    pub(super) fn wants(&self, status: u16, retries: u32, duration: Duration) -> bool {
        if self.statuses.is_empty() && !self.retries && self.longer_than.is_none() {
            return true;
        }
        self.statuses.iter().any(|range| range.contains(&status))
            || self.retries && retries > 0
            || self.longer_than.is_some_and(|limit| duration > limit)
    }
}

fn range(text: &str) -> Option<RangeInclusive<u16>> {
    let (low, high) = text.split_once('-').unwrap_or((text, text));
    Some(low.parse().ok()?..=high.parse().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(json: &str) -> Filter {
        Filter::new(&serde_json::from_str(json).unwrap())
    }

    #[test]
    fn filters_are_combined_by_or() {
        let ms = Duration::from_millis;
        let none = filter("{}");
        assert!(none.wants(200, 0, ms(0)));
        let all = filter(
            r#"{"statusCodes":["404","500-599,300-302"],"retryAttempts":true,"minDuration":"10ms"}"#,
        );
        assert!(!all.wants(200, 0, ms(10)));
        assert!(all.wants(200, 0, ms(11)));
        assert!(all.wants(200, 1, ms(0)));
        for status in [404, 500, 599, 301] {
            assert!(all.wants(status, 0, ms(0)), "{status}");
        }
        assert!(!all.wants(403, 0, ms(0)));
        let bad = filter(r#"{"statusCodes":["200","5xx"]}"#);
        assert!(bad.wants(418, 0, ms(0)), "a filter that cannot be read is none");
    }

    #[test]
    fn names_are_compared_without_case_and_bad_modes_mean_the_default() {
        let policy = Policy::new(
            &serde_json::from_str(
                r#"{"defaultMode":"drop","names":{"clientHOST":"keep","duration":"yes"},
                    "headers":{"names":{"X-Test":"redact","accept":"?"}},
                    "queryParameters":{"defaultMode":"drop"}}"#,
            )
            .unwrap(),
        );
        assert!(policy.keeps(Field::ClientHost));
        assert!(!policy.keeps(Field::Duration));
        assert!(!policy.keeps_query());
        assert_eq!(policy.header(&"x-test".parse().unwrap()), HeaderMode::Redact);
        assert_eq!(policy.header(&"accept".parse().unwrap()), HeaderMode::Drop);
    }
}
