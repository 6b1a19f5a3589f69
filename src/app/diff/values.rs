//! Objects of two configurations, compared by what they say and not by how it is written.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};

use serde::Serialize;
use serde_json::Value;

use super::hidden;
use crate::app::explain::Subject;
use crate::config::dynamic_config::Section;
use crate::config::tree::Node;
use crate::rule::without_secrets;
use crate::service::ServiceConfig;
use crate::values::QualifiedName;
use crate::values::secret::{HIDDEN, is_credential_header, is_secret_name, is_secret_option};

/// One option that differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Difference {
    pub(super) option: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) old: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) new: Option<String>,
}

impl Difference {
    /// Of a value that looks the same, whatever it is.
    pub(super) fn unshown(option: String) -> Self {
        let shown = || Some(HIDDEN.to_owned());
        Self { option, old: shown(), new: shown() }
    }

    /// `option: old -> new`.
    pub(super) fn one_line(&self) -> String {
        let shown = |side: &Option<String>| side.clone().unwrap_or_else(|| "(unset)".to_owned());
        let (old, new) = (shown(&self.old), shown(&self.new));
        if old == new {
            let is_key = self.option.to_ascii_lowercase().ends_with("keyfile");
            let what = if is_key { "key" } else { "value" };
            return format!("{}: another {what}, which is not shown", self.option);
        }
        format!("{}: {old} -> {new}", self.option)
    }
}

/// Both configurations.
pub(super) struct Values<'s> {
    pub(super) old: &'s Subject,
    pub(super) new: &'s Subject,
    services: RefCell<HashMap<(QualifiedName, QualifiedName), bool>>,
}

impl<'s> Values<'s> {
    pub(super) fn new(old: &'s Subject, new: &'s Subject) -> Self {
        Self { old, new, services: RefCell::default() }
    }

    /// Whether two middlewares do the same.
    pub(super) fn same_middleware(&self, old: &QualifiedName, new: &QualifiedName) -> bool {
        let [then, now] = [self.old, self.new].map(|subject| &subject.table.merged.middlewares);
        same(then, old, now, new)
    }

    /// Whether two sets of TLS options say the same.
    pub(super) fn same_tls_options(&self, old: &str, new: &str) -> bool {
        let [then, now] = [self.old, self.new].map(|subject| &subject.table.merged.tls_options);
        match (then.get(old), now.get(new)) {
            (Some(one), Some(other)) => one.config == other.config,
            (None, None) => old == new,
            _ => false,
        }
    }

    /// Whether two services do the same, and all that stands below them.
    pub(super) fn same_service(&self, old: &QualifiedName, new: &QualifiedName) -> bool {
        let key = (old.clone(), new.clone());
        if let Some(known) = self.services.borrow().get(&key) {
            return *known;
        }
        // One that is being compared stands below itself, and is broken in both.
        self.services.borrow_mut().insert(key.clone(), true);
        let [then, now] = [self.old, self.new].map(|subject| &subject.table.merged);
        let is_same = match (then.services.get(old), now.services.get(new)) {
            (None, None) => old == new,
            (Some(one), Some(other)) => {
                let (one, other) = (&one.config, &other.config);
                let resolve =
                    |name: &str, of: &QualifiedName| QualifiedName::resolve(name, of.provider());
                let pair = |name: &str| (resolve(name, old), resolve(name, new));
                one == other
                    && below(one).iter().all(|name| {
                        let (old, new) = pair(name);
                        self.same_service(&old, &new)
                    })
                    && one.middlewares.iter().all(|name| {
                        let (old, new) = pair(name);
                        self.same_middleware(&old, &new)
                    })
                    && transport(one).is_none_or(|name| {
                        let (old, new) = pair(name);
                        let (then, now) = (&then.servers_transports, &now.servers_transports);
                        same(then, &old, now, &new)
                    })
            }
            _ => false,
        };
        self.services.borrow_mut().insert(key, is_same);
        is_same
    }
}

fn same<T: PartialEq>(
    then: &Section<T>,
    old: &QualifiedName,
    now: &Section<T>,
    new: &QualifiedName,
) -> bool {
    match (then.get(old), now.get(new)) {
        (Some(one), Some(other)) => one.config == other.config,
        (None, None) => old == new,
        _ => false,
    }
}

/// Names of the services that a service is made of.
pub(super) fn below(config: &ServiceConfig) -> Vec<&str> {
    let mut names: Vec<&str> = Vec::new();
    let weighted = config.weighted.iter().flat_map(|one| &one.services);
    let hashed = config.highest_random_weight.iter().flat_map(|one| &one.services);
    names.extend(weighted.chain(hashed).map(|one| one.name.as_str()));
    if let Some(failover) = &config.failover {
        names.extend([failover.service.as_str(), failover.fallback.as_str()]);
    }
    if let Some(mirroring) = &config.mirroring {
        names.push(&mirroring.service);
        names.extend(mirroring.mirrors.iter().map(|one| one.name.as_str()));
    }
    names
}

/// Of these, the services that may answer: not mirrors.
pub(super) fn members(config: &ServiceConfig) -> Vec<&str> {
    match &config.mirroring {
        Some(mirroring) => vec![&mirroring.service],
        None => below(config),
    }
}

/// The servers transport that a service names.
pub(super) fn transport(config: &ServiceConfig) -> Option<&str> {
    let name = config.load_balancer.as_ref()?.servers_transport.as_str();
    Some(name).filter(|name| !name.is_empty())
}

/// The options that differ between two objects, in order. Secrets are named and not shown; as they all look the same,
/// they are looked up in what was written.
pub(super) fn options<T: Serialize>(
    old: &T,
    new: &T,
    written: [&Option<Node>; 2],
) -> Vec<Difference> {
    let [old, new] = [old, new].map(|one| serde_json::to_value(one).unwrap_or_default());
    let mut differences = Vec::new();
    compare("", Some(&old), Some(&new), false, &mut differences);
    if let [Some(old), Some(new)] = written {
        secrets(old, new, &mut differences);
    }
    if differences.is_empty() {
        differences.push(Difference::unshown("a secret".to_owned()));
    }
    differences
}

/// Adds the secrets that were written otherwise, unless they are told already.
fn secrets(old: &Node, new: &Node, differences: &mut Vec<Difference>) {
    let [mut then, mut now] = [BTreeMap::new(), BTreeMap::new()];
    leaves("", old, false, &mut then);
    leaves("", new, false, &mut now);
    for (path, value) in &then {
        if now.get(path).is_none_or(|other| other == value) {
            continue;
        }
        let is_told = differences.iter().any(|one| {
            let known = one.option.to_ascii_lowercase();
            let path = path.to_ascii_lowercase();
            path == known || path.strip_prefix(&known).is_some_and(|rest| rest.starts_with('.'))
        });
        if !is_told {
            differences.push(Difference::unshown(path.clone()));
        }
    }
}

/// The secrets of a tree, by the names on the way to them.
fn leaves(path: &str, node: &Node, hidden: bool, found: &mut BTreeMap<String, Vec<String>>) {
    for entry in node.entries() {
        let inner =
            if path.is_empty() { entry.key.to_string() } else { format!("{path}.{}", entry.key) };
        leaves(&inner, &entry.value, hidden || is_hidden(&entry.key), found);
    }
    for item in node.items() {
        leaves(path, item, hidden, found);
    }
    let Some(text) = node.text() else { return };
    if hidden || text.contains("-----BEGIN") || *hidden::value(text) != *text {
        found.entry(path.to_owned()).or_default().push(text.to_owned());
    }
}

fn compare(
    path: &str,
    old: Option<&Value>,
    new: Option<&Value>,
    hidden: bool,
    out: &mut Vec<Difference>,
) {
    if old == new {
        return;
    }
    match (old, new) {
        (Some(Value::Object(one)), Some(Value::Object(other))) => {
            let mut keys: Vec<&String> = one.keys().chain(other.keys()).collect();
            keys.sort_unstable();
            keys.dedup();
            for key in keys {
                let inner = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                let hidden = hidden || is_hidden(key);
                compare(&inner, one.get(key), other.get(key), hidden, out);
            }
        }
        (old, new) => {
            let key = path.rsplit('.').next().unwrap_or_default();
            let shown = |value: Option<&Value>| value.map(|value| shown(key, value, hidden));
            out.push(Difference { option: path.to_owned(), old: shown(old), new: shown(new) });
        }
    }
}

/// Whether the value of an option, or of a header, must not be shown. `cookie` is a section of `sticky`.
fn is_hidden(key: &str) -> bool {
    is_secret_option(key) || key != "cookie" && is_credential_header(key)
}

fn shown(key: &str, value: &Value, hidden: bool) -> String {
    const LONGEST: usize = 120;
    if hidden {
        return HIDDEN.to_owned();
    }
    let text = match value {
        Value::String(text) if key == "rule" => without_secrets(text),
        Value::String(text) => hidden::value(text).into_owned(),
        Value::Array(items) => {
            let items: Vec<_> = items.iter().map(|item| shown(key, item, hidden)).collect();
            format!("[{}]", items.join(", "))
        }
        Value::Object(entries) => {
            // A pattern for a header that carries a credential may be one.
            let secret = entries.get("name").and_then(Value::as_str).is_some_and(is_secret_name);
            let hides = |key: &str| is_hidden(key) || secret && key == "regex";
            let entries: Vec<_> = entries
                .iter()
                .map(|(key, value)| format!("{key}: {}", shown(key, value, hides(key))))
                .collect();
            format!("{{{}}}", entries.join(", "))
        }
        other => other.to_string(),
    };
    if text.chars().count() <= LONGEST {
        return text;
    }
    let short: String = text.chars().take(LONGEST).collect();
    format!("{short}...")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn options_are_compared_one_by_one_and_secrets_hidden() {
        let old =
            json!({"a": 1, "users": ["x"], "inner": {"password": "p", "url": "http://u:p@h/"}});
        let new = json!({"a": 1, "users": ["y"], "inner": {"password": "q", "url": "http://h/"}, "b": [1, {"token": "t"}]});
        let told: Vec<_> = options(&old, &new, [&None, &None])
            .into_iter()
            .map(|one| format!("{}: {:?} -> {:?}", one.option, one.old, one.new))
            .collect();
        assert_eq!(
            told,
            [
                r#"b: None -> Some("[1, {token: (hidden)}]")"#,
                r#"inner.password: Some("(hidden)") -> Some("(hidden)")"#,
                r#"inner.url: Some("http://h/") -> Some("http://h/")"#,
                r#"users: Some("(hidden)") -> Some("(hidden)")"#,
            ]
        );
        assert_eq!(options(&json!({}), &json!({}), [&None, &None])[0].option, "a secret");
    }
}
