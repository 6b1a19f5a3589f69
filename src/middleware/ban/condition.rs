//! What is an offence: some of it is known with the request, the status only with the answer.

use http::{HeaderName, Method, StatusCode};
use regex::Regex;
use serde::{Deserialize, Serialize};

use crate::exchange::Request;
use crate::exchange::canonical::routing_path;
use crate::values::{BuildError, StatusRanges, go_regex, is_default};

/// One of `conditions`: everything that is given must hold, and something must be given.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct BanConditionConfig {
    /// Statuses of the answer: `401` or `400-499`, one per item. By what `basicAuth` and
    /// `digestAuth` answer to requests without credentials, or with right ones of an old nonce,
    /// nobody offends. Default: any.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub status: Vec<String>,
    /// Pattern that the path matches, as in the rule `PathRegexp`. Default: any path.
    #[serde(skip_serializing_if = "is_default")]
    pub path: String,
    /// A header of the request. Default: any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub header: Option<BanHeaderConfig>,
    /// Methods. Default: any.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub method: Vec<String>,
}

/// `header` of a condition.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct BanHeaderConfig {
    /// Name of the header. Required.
    pub name: String,
    /// Pattern that one of its values matches. Default: any value.
    #[serde(skip_serializing_if = "is_default")]
    pub regex: String,
}

/// As many as [`Suspicion`] has bits.
const MOST: usize = 64;

/// Conditions that hold as far as the request tells, one bit for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Suspicion(u64);

impl Suspicion {
    /// Whether there is none.
    pub(super) fn is_none(self) -> bool {
        self.0 == 0
    }

    fn positions(self) -> impl Iterator<Item = usize> {
        (0..MOST).filter(move |&position| self.0 >> position & 1 == 1)
    }
}

/// Compiled `conditions`.
pub(super) struct Conditions(Vec<Condition>);

struct Condition {
    status: StatusRanges,
    path: Option<Regex>,
    header: Option<(HeaderName, Option<Regex>)>,
    methods: Vec<Method>,
}

impl Conditions {
    /// Compiles them.
    pub(super) fn build(
        configs: &[BanConditionConfig],
        warnings: &mut Vec<BuildError>,
    ) -> Result<Self, BuildError> {
        if configs.is_empty() || configs.len() > MOST {
            let message = format!("`conditions` has 1 to {MOST} items");
            return Err(BuildError::at("conditions", message));
        }
        let items = configs.iter().enumerate();
        let built = items.map(|(index, config)| {
            let mut own = Vec::new();
            let built = Condition::build(config, &mut own);
            let place = |error: BuildError| {
                let place = format!("conditions[{index}].{}", error.option);
                BuildError::at(place.trim_end_matches('.'), error.message)
            };
            warnings.extend(own.into_iter().map(place));
            built.map_err(place)
        });
        built.collect::<Result<_, _>>().map(Self)
    }

    /// What a request is suspected of.
    pub(super) fn suspect(&self, request: &Request) -> Suspicion {
        let fits = self.0.iter().enumerate().filter(|(_, condition)| condition.fits(request));
        Suspicion(fits.fold(0, |bits, (position, _)| bits | 1 << position))
    }

    /// Whether one of these conditions asks nothing of the answer.
    pub(super) fn is_certain(&self, suspicion: Suspicion) -> bool {
        self.of(suspicion).any(|condition| condition.status.is_empty())
    }

    /// Whether one of these conditions holds with this answer.
    pub(super) fn hold(&self, suspicion: Suspicion, status: StatusCode) -> bool {
        self.of(suspicion).any(|condition| condition.status.contains(status))
    }

    fn of(&self, suspicion: Suspicion) -> impl Iterator<Item = &Condition> {
        suspicion.positions().filter_map(|position| self.0.get(position))
    }
}

impl Condition {
    fn build(
        config: &BanConditionConfig,
        warnings: &mut Vec<BuildError>,
    ) -> Result<Self, BuildError> {
        if *config == BanConditionConfig::default() {
            return Err(BuildError::new("a condition without a part would hold for every request"));
        }
        let pattern = |option: &str, text: &str| match text {
            "" => Ok(None),
            text => go_regex::compile(text)
                .map(Some)
                .map_err(|error| BuildError::at(option, error.message)),
        };
        let header = match &config.header {
            Some(header) => {
                let name = HeaderName::from_bytes(header.name.as_bytes()).map_err(|_| {
                    let message = format!("{:?} is no name of a header", header.name);
                    BuildError::at("header.name", message)
                })?;
                Some((name, pattern("header.regex", &header.regex)?))
            }
            None => None,
        };
        let methods = config.method.iter().enumerate().map(|(index, method)| {
            Method::from_bytes(method.to_ascii_uppercase().as_bytes()).map_err(|_| {
                let message = format!("{method:?} is no method");
                BuildError::at(format!("method[{index}]"), message)
            })
        });
        Ok(Self {
            status: StatusRanges::read("status", &config.status, warnings)?,
            path: pattern("path", &config.path)?,
            header,
            methods: methods.collect::<Result<_, _>>()?,
        })
    }

    fn fits(&self, request: &Request) -> bool {
        (self.methods.is_empty() || self.methods.contains(request.method()))
            && self
                .path
                .as_ref()
                .is_none_or(|path| path.is_match(&routing_path(request.uri().path())))
            && self.header.as_ref().is_none_or(|(name, pattern)| {
                request.headers().get_all(name).iter().any(|value| {
                    pattern.as_ref().is_none_or(|pattern| {
                        pattern.is_match(&String::from_utf8_lossy(value.as_bytes()))
                    })
                })
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::middleware::testing::{get, with};

    fn conditions(json: &str) -> Result<Conditions, BuildError> {
        let configs: Vec<BanConditionConfig> = serde_json::from_str(json).unwrap();
        Conditions::build(&configs, &mut Vec::new())
    }

    fn offends(conditions: &Conditions, request: &Request, status: u16) -> bool {
        let suspicion = conditions.suspect(request);
        conditions.is_certain(suspicion)
            || conditions.hold(suspicion, StatusCode::from_u16(status).unwrap())
    }

    #[test]
    fn all_parts_of_one_condition_must_hold() {
        let conditions = conditions(
            r#"[{"status": ["401", "403"], "path": "^/web/login$", "method": ["post"],
                 "header": {"name": "User-Agent", "regex": "(?i)^curl"}}]"#,
        )
        .unwrap();
        let request = |method: &str, path: &str, agent: &str| {
            let mut request = with(get(path), "user-agent", agent);
            *request.method_mut() = method.parse().unwrap();
            request
        };
        for (method, path, agent, status, want) in [
            ("POST", "/web/login", "CURL/8", 401, true),
            ("POST", "/web/log%69n", "curl/8", 403, true),
            ("POST", "/web/login?x=1", "curl/8", 403, true),
            ("GET", "/web/login", "curl/8", 401, false),
            ("POST", "/web/login/", "curl/8", 401, false),
            ("POST", "/web/login", "Mozilla curl", 401, false),
            ("POST", "/web/login", "curl/8", 200, false),
        ] {
            let request = request(method, path, agent);
            assert_eq!(offends(&conditions, &request, status), want, "{method} {path} {agent}");
        }
    }

    #[test]
    fn any_condition_is_enough() {
        let conditions = conditions(
            r#"[{"status": ["500-599"]}, {"path": "\\.php$"}, {"header": {"name": "X-Scan"}}]"#,
        )
        .unwrap();
        assert!(offends(&conditions, &get("/"), 502));
        assert!(offends(&conditions, &get("/wp.php"), 200));
        assert!(offends(&conditions, &with(get("/"), "x-scan", ""), 200));
        assert!(!offends(&conditions, &get("/"), 404));
        let suspicion = conditions.suspect(&get("/"));
        assert!(!suspicion.is_none() && !conditions.is_certain(suspicion));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (json, option) in [
            ("[]", "conditions"),
            (r#"[{"status": ["401"]}, {}]"#, "conditions[1]"),
            (r#"[{"status": ["401", "x"]}]"#, "conditions[0].status[1]"),
            (r#"[{"path": "("}]"#, "conditions[0].path"),
            (r#"[{"header": {"name": ""}}]"#, "conditions[0].header.name"),
            (r#"[{"header": {"name": "a", "regex": "["}}]"#, "conditions[0].header.regex"),
            (r#"[{"method": ["GET", "a b"]}]"#, "conditions[0].method[1]"),
        ] {
            assert_eq!(conditions(json).err().unwrap().option, option, "{json}");
        }
        let many = vec![BanConditionConfig { path: "a".into(), ..Default::default() }; 65];
        assert!(Conditions::build(&many, &mut Vec::new()).is_err());
        assert!(Conditions::build(&many[1..], &mut Vec::new()).is_ok());
        let mut warnings = Vec::new();
        let odd: Vec<_> = serde_json::from_str(r#"[{"status": ["600"]}]"#).unwrap();
        Conditions::build(&odd, &mut warnings).unwrap();
        assert_eq!(warnings[0].option, "conditions[0].status[0]");
    }
}
