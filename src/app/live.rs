//! The configuration of a running Doorward or Traefik, read from its API.
//!
//! The API has no secrets, no TLS options and no certificates, and routing needs none: what cannot be known gets a
//! stand-in that is never run.

use std::collections::BTreeMap;

use anyhow::Context as _;
use http::HeaderMap;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::explain::{Live, Subject};
use super::fetch;
use super::written::ConfigSet;
use crate::config::dynamic_config::{DynamicConfig, Object};
use crate::config::entry_points::EntryPointConfig;
use crate::config::static_config::StaticConfig;
use crate::config::tree::{Format, Node, Source, Span, Value as Written};
use crate::middleware::{ChainConfig, MiddlewareConfig};
use crate::router::{RouterConfig, RouterObservabilityConfig};
use crate::service::ServiceConfig;
use crate::tls::TlsOptionsConfig;
use crate::upstream::ServersTransportConfig;
use crate::values::{Profile, QualifiedName};

/// Kinds of middlewares that `explain` runs, and that the API shows whole.
const WHOLE: [&str; 12] = [
    "addPrefix",
    "contentType",
    "encodedCharacters",
    "headers",
    "ipAllowList",
    "ipWhiteList",
    "redirectRegex",
    "redirectScheme",
    "replacePath",
    "replacePathRegex",
    "stripPrefix",
    "stripPrefixRegex",
];
/// What the API adds to the options of an object.
const ADDED: [&str; 7] = ["error", "name", "provider", "serverStatus", "status", "usedBy", "using"];

/// Asks the instance whose API is at `url`.
/// Its API does not say its profile.
pub(super) fn subject(
    url: &str,
    headers: &HeaderMap,
    profile: Option<Profile>,
) -> anyhow::Result<Subject> {
    let base = url.trim_end_matches('/');
    let base =
        base.strip_suffix("/dashboard").or_else(|| base.strip_suffix("/api")).unwrap_or(base);
    let base = if base.contains("://") { base.to_owned() } else { format!("http://{base}") };
    let get = |path: &str| fetch::json(&format!("{base}/api/{path}"), headers);
    let entry_points = get("entrypoints?per_page=10000")?;
    let raw = get("rawdata")?;
    // Old ones have no version to tell, and are none of ours.
    let version = get("version").unwrap_or_default();
    let is_ours = version.get("Codename").and_then(Value::as_str) == Some("doorward");
    let (set, live) = read(&base, &raw, &entry_points, is_ours, profile)?;
    Subject::new(set, Some(live))
}

/// What the API's documents say.
fn read(
    url: &str,
    raw: &Value,
    entry_points: &Value,
    is_ours: bool,
    profile: Option<Profile>,
) -> anyhow::Result<(ConfigSet, Live)> {
    let usual = if is_ours { Profile::Safe } else { Profile::Exact };
    let mut live = Live {
        url: url.to_owned(),
        skips_broken: !is_ours,
        // Traefik has none.
        assumed_profile: profile.is_none().then_some(usual).filter(|_| is_ours),
        ..Live::default()
    };
    let mut dynamic = DynamicConfig::default();
    let section = |key: &str| raw.get(key).and_then(Value::as_object).into_iter().flatten();
    for (name, value) in section("middlewares") {
        let (kind, config) = middleware(value);
        live.kinds.insert(name.clone(), kind);
        dynamic.middlewares.insert(qualified(name), Object::implied(config));
    }
    for (name, value) in section("services") {
        if let Some(status) = value.get("serverStatus") {
            let servers: BTreeMap<String, String> =
                serde_json::from_value(status.clone()).unwrap_or_default();
            live.servers.insert(name.clone(), servers);
        }
        if name.ends_with("@internal") {
            continue;
        }
        let mut config: ServiceConfig =
            decoded(value).with_context(|| format!("service {name}"))?;
        config.middlewares.retain(|name| !name.is_empty());
        stand_in_transport(name, &config, &mut dynamic);
        dynamic.services.insert(qualified(name), Object::implied(config));
    }
    for (name, value) in section("routers") {
        let errors: Vec<String> = value
            .get("error")
            .and_then(|errors| serde_json::from_value(errors.clone()).ok())
            .unwrap_or_default();
        if value.get("status").and_then(Value::as_str) == Some("disabled") {
            live.router_errors.insert(name.clone(), errors);
            if live.skips_broken {
                continue;
            }
        }
        let config = router(value).with_context(|| format!("router {name}"))?;
        stand_in_options(name, &config, &mut dynamic);
        dynamic.routers.insert(qualified(name), Object::implied(config));
    }
    let fixed = fixed(entry_points, profile.unwrap_or(usual))?;
    let source = Source::new(url, "", Format::Json);
    let nothing = Node { value: Written::Null, span: Span::new(&source, 0..0) };
    Ok((ConfigSet { fixed: Some((fixed, nothing)), dynamic }, live))
}

/// A name of the API: always with its provider, but for TLS options.
fn qualified(name: &str) -> QualifiedName {
    QualifiedName::resolve(name, "file")
}

/// Options without what the API adds.
fn options(value: &Value) -> Map<String, Value> {
    let mut options = value.as_object().cloned().unwrap_or_default();
    options.retain(|key, _| !ADDED.contains(&key.as_str()));
    options
}

fn decoded<T: DeserializeOwned>(value: &Value) -> anyhow::Result<T> {
    Ok(serde_json::from_value(Value::Object(options(value)))?)
}

/// Kind and options of a middleware; a stand-in where the API does not show all that it needs.
fn middleware(value: &Value) -> (String, MiddlewareConfig) {
    let options = options(value);
    let kind = options.keys().next().cloned().unwrap_or_default();
    let stand_in = || MiddlewareConfig {
        content_type: Some(serde_json::from_value(Value::Object(Map::new())).unwrap_or_default()),
        ..MiddlewareConfig::default()
    };
    let config = if kind == "chain" {
        let chain: ChainConfig = options
            .get("chain")
            .and_then(|one| serde_json::from_value(one.clone()).ok())
            .unwrap_or_default();
        MiddlewareConfig { chain: Some(chain), ..MiddlewareConfig::default() }
    } else if WHOLE.contains(&&*kind) {
        serde_json::from_value(Value::Object(options)).unwrap_or_else(|_| stand_in())
    } else {
        stand_in()
    };
    (kind, config)
}

fn router(value: &Value) -> anyhow::Result<RouterConfig> {
    let mut config: RouterConfig = decoded(value)?;
    if config.rule_syntax == "default" {
        config.rule_syntax.clear();
    }
    if config.entry_points.is_empty() && config.parent_refs.is_empty() {
        let using = value.get("using").and_then(|using| serde_json::from_value(using.clone()).ok());
        config.entry_points = using.unwrap_or_default();
    }
    Ok(config)
}

/// TLS options that a router names: which ones they are matters, and nothing else of them.
fn stand_in_options(router: &str, config: &RouterConfig, dynamic: &mut DynamicConfig) {
    let options = config.tls.as_ref().map(|tls| &*tls.options).unwrap_or_default();
    if options.is_empty() || options == "default" {
        return;
    }
    let name = QualifiedName::resolve(options, qualified(router).provider());
    dynamic.tls_options.insert(name, Object::implied(TlsOptionsConfig::default()));
}

fn stand_in_transport(service: &str, config: &ServiceConfig, dynamic: &mut DynamicConfig) {
    let balancer = config.load_balancer.as_ref();
    let transport = balancer.map(|one| &*one.servers_transport).unwrap_or_default();
    if transport.is_empty() {
        return;
    }
    let name = QualifiedName::resolve(transport, qualified(service).provider());
    if name.provider() != "internal" {
        dynamic.servers_transports.insert(name, Object::implied(ServersTransportConfig::default()));
    }
}

/// The static part. What entry points add to routers is in the routers already.
fn fixed(entry_points: &Value, profile: Profile) -> anyhow::Result<StaticConfig> {
    let mut fixed = StaticConfig::default();
    fixed.core.profile = profile;
    for value in entry_points.as_array().into_iter().flatten() {
        let name = value.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
        let mut entry_point: EntryPointConfig =
            decoded(value).with_context(|| format!("entry point {name}"))?;
        entry_point.http.middlewares.clear();
        entry_point.http.tls = None;
        entry_point.http.redirections = None;
        entry_point.observability = RouterObservabilityConfig::default();
        entry_point.complete(fixed.core.profile);
        fixed.entry_points.insert(name, entry_point);
    }
    Ok(fixed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_api_of_traefik_becomes_a_configuration() {
        let raw = json!({
            "routers": {
                "shop@docker": {
                    "entryPoints": ["websecure"], "middlewares": ["auth@docker"],
                    "service": "shop", "rule": "Host(`a.test`)", "ruleSyntax": "default",
                    "priority": 14, "tls": {"options": "modern@file"},
                    "status": "enabled", "using": ["websecure"],
                },
                "gone@docker": {
                    "entryPoints": ["web"], "service": "nobody", "rule": "Host(`b.test`)",
                    "priority": 14, "status": "disabled", "using": ["web"],
                    "error": ["the service \"nobody@docker\" does not exist"],
                },
            },
            "middlewares": {
                "auth@docker": {"basicAuth": {"users": ["xxxx"]}, "status": "enabled"},
                "strange@docker": {"plugin": {"x": {}}, "status": "enabled"},
            },
            "services": {
                "api@internal": {"status": "enabled"},
                "shop@docker": {
                    "loadBalancer": {
                        "servers": [{"url": "http://10.0.0.1:8069"}], "strategy": "wrr",
                        "passHostHeader": true, "serversTransport": "slow@file",
                        "responseForwarding": {"flushInterval": "100ms"},
                    },
                    "status": "enabled", "usedBy": ["shop@docker"],
                    "serverStatus": {"http://10.0.0.1:8069": "DOWN"},
                },
            },
        });
        let entry_points = json!([
            {"name": "web", "address": ":80", "http": {"redirections": {"entryPoint": {"to": "websecure"}}}},
            {"name": "websecure", "address": ":443", "http": {"tls": {}, "middlewares": ["auth@docker"]}},
        ]);
        let (set, live) = read("http://x", &raw, &entry_points, false, None).unwrap();
        assert_eq!(live.assumed_profile, None, "Traefik has none");
        let (_, ours) = read("http://x", &json!({}), &json!([]), true, None).unwrap();
        assert_eq!(ours.assumed_profile, Some(Profile::Safe));
        let (hard, ours) =
            read("http://x", &json!({}), &json!([]), true, Some(Profile::Hardened)).unwrap();
        let (fixed, _) = hard.fixed.as_ref().unwrap();
        assert_eq!((ours.assumed_profile, fixed.core.profile), (None, Profile::Hardened));
        assert_eq!(live.kinds["auth@docker"], "basicAuth");
        assert_eq!(live.servers["shop@docker"]["http://10.0.0.1:8069"], "DOWN");
        assert_eq!(live.router_errors["gone@docker"].len(), 1);
        let subject = Subject::new(set, Some(live)).unwrap();
        let shop = subject.report("shop@docker").unwrap();
        assert_eq!(shop.errors, Vec::<String>::new());
        assert!(shop.router.as_ref().is_some_and(|router| !router.broken));
        assert!(subject.report("gone@docker").is_none(), "Traefik leaves it out");
        assert_eq!(subject.port(1), Some(443));
    }
}
