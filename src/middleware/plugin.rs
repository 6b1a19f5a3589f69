//! `plugin`: middlewares of other makers. None is served: each is an error of whoever uses it that says so at the
//! plugin's name, and for those of Traefik Hub what does their work here.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Build, BuildContext};
use crate::exchange::Middleware;
use crate::values::{BuildError, Unsupported};

const ASK: &str = "use `forwardAuth` with a server that does it";
const NOTHING: &str = "nothing here does it yet";

/// Names that the commercial Traefik Hub gives meaning to, and what does their work here.
const HUB: [(&str, &str); 10] = [
    ("apiKey", ASK),
    ("coraza", NOTHING),
    ("distributedRateLimit", "use `rateLimit` with its section `redis`, which proxies share"),
    ("hmac", NOTHING),
    ("jwt", ASK),
    ("ldap", ASK),
    (
        "oAuthClientCredentials",
        "use `forwardAuth` with a server that fetches the token, and `authResponseHeaders`",
    ),
    ("oAuthIntrospection", ASK),
    ("oidc", ASK),
    ("opa", ASK),
];

/// Plugins by their names; what is configured for them is not read.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
#[expect(clippy::zero_sized_map_values, reason = "it is read and shown as the section that it is")]
pub struct PluginConfig(BTreeMap<String, Unsupported>);

impl Build for PluginConfig {
    fn build(&self, _: &mut BuildContext<'_>) -> Result<Arc<dyn Middleware>, BuildError> {
        let Some(name) = self.0.keys().next() else {
            return Err(BuildError::new("plugins are not supported yet"));
        };
        let hub = HUB.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        let message = match hub {
            Some((known, instead)) => {
                format!("`plugin.{known}` is a middleware of Traefik Hub; {instead}")
            }
            None => format!("plugins are not supported yet: `{name}`"),
        };
        Err(BuildError::at(name, message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::middleware::testing::build;

    fn error(json: &str) -> BuildError {
        build(&serde_json::from_str::<PluginConfig>(json).unwrap()).err().unwrap()
    }

    /// RP-9.1 to RP-9.11
    #[test]
    fn those_of_traefik_hub_are_known_with_what_does_their_work() {
        for (name, instead) in [
            ("apiKey", "use `forwardAuth`"),
            ("distributedRateLimit", "use `rateLimit` with its section `redis`"),
            ("hmac", "nothing here does it yet"),
            ("jwt", "use `forwardAuth`"),
            ("ldap", "use `forwardAuth`"),
            ("oAuthClientCredentials", "use `forwardAuth`"),
            ("oAuthIntrospection", "use `forwardAuth`"),
            ("oidc", "use `forwardAuth`"),
            ("opa", "use `forwardAuth`"),
            ("coraza", "nothing here does it yet"),
        ] {
            for written in [name.to_owned(), name.to_lowercase()] {
                let error = error(&format!(r#"{{"{written}": {{"any": ["thing"]}}}}"#));
                assert_eq!(error.option, written);
                let start = format!("`plugin.{name}` is a middleware of Traefik Hub; {instead}");
                assert!(error.message.starts_with(&start), "{error}");
            }
        }
    }

    /// RP-7.7.22
    #[test]
    fn others_are_not_supported_yet() {
        let error = error(r#"{"demo": {"secret": "x"}}"#);
        assert_eq!(error, BuildError::at("demo", "plugins are not supported yet: `demo`"));
        assert_eq!(self::error("{}"), BuildError::new("plugins are not supported yet"));
        let config: PluginConfig = serde_json::from_str(r#"{"demo": {"secret": "x"}}"#).unwrap();
        assert_eq!(serde_json::to_string(&config).unwrap(), r#"{"demo":null}"#);
    }
}
