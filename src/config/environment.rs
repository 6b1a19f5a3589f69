//! Static configuration from environment variables that begin with `DOORWARD_` or `TRAEFIK_`. What Kubernetes sets
//! for a Service called `doorward-…` or `traefik-…` looks alike and is passed over.

use crate::config::diagnostics::Diagnostic;
use crate::config::static_config::{is_static_root, similar_static_root};
use crate::config::tree::{Entry, Node, Value, from_environment};

/// What the environment says.
#[derive(Debug, Default)]
pub(crate) struct Environment {
    /// The tree; none when no variable configures anything.
    pub(crate) node: Option<Node>,
    /// Variables that are probably misspelt.
    pub(crate) warnings: Vec<Diagnostic>,
}

const PREFIXES: [&str; 2] = ["DOORWARD_", "TRAEFIK_"];

/// Reads the variables of both prefixes. The same option may be set under both, but only to the same value.
pub(crate) fn read(variables: &[(String, String)]) -> Result<Environment, Vec<Diagnostic>> {
    let mut result = Environment::default();
    let mut errors = Vec::new();
    for prefix in PREFIXES {
        let mut chosen = Vec::new();
        for variable in variables {
            let Some(path) = variable.0.strip_prefix(prefix) else { continue };
            if is_service_link(path, &variable.1) {
                continue;
            }
            let root = path.split('_').next().unwrap_or_default();
            if is_static_root(root) {
                chosen.push(variable.clone());
            } else if let Some(meant) = meant(path) {
                let message = format!("the environment variable `{}` is ignored", variable.0);
                let help = format!("did you mean `{prefix}{}_…`?", meant.to_uppercase());
                result.warnings.push(Diagnostic::warning(message).help(help));
            }
        }
        if chosen.is_empty() {
            continue;
        }
        match from_environment(&chosen, prefix) {
            Ok(node) => {
                result.node = Some(match result.node.take() {
                    Some(first) => merged(first, node, "", &mut errors),
                    None => node,
                });
            }
            Err(wrong) => errors.extend(wrong),
        }
    }
    result.node = result.node.filter(|node| !node.is_empty());
    if errors.is_empty() { Ok(result) } else { Err(errors) }
}

/// Whether the environment configures anything.
pub(crate) fn is_configured(variables: &[(String, String)]) -> bool {
    variables.iter().any(|(name, value)| {
        let path = PREFIXES.iter().find_map(|prefix| name.strip_prefix(prefix));
        path.is_some_and(|path| {
            let root = path.split('_').next().unwrap_or_default();
            !is_service_link(path, value) && is_static_root(root)
        })
    })
}

/// The section that a variable's first word, or its first two (`ENTRY_POINTS`), were meant for.
fn meant(path: &str) -> Option<&'static str> {
    let mut words = path.split('_');
    let first = words.next()?;
    let joined = words.next().map(|second| format!("{first}{second}"));
    let joined = joined.filter(|joined| is_static_root(joined));
    similar_static_root(joined.as_deref().unwrap_or(first))
}

/// What Kubernetes tells every container about every Service of its namespace.
fn is_service_link(path: &str, value: &str) -> bool {
    if path.ends_with("_SERVICE_HOST")
        || path.ends_with("_SERVICE_PORT")
        || path.contains("_SERVICE_PORT_")
    {
        return true;
    }
    let is_url = ["tcp://", "udp://", "sctp://"].iter().any(|scheme| value.starts_with(scheme));
    if path.ends_with("_PORT") && is_url {
        return true;
    }
    // `…_PORT_80_TCP`, `…_PORT_80_TCP_ADDR` and so on.
    path.match_indices("_PORT_").any(|(at, word)| {
        let rest = path.get(at + word.len()..).unwrap_or_default();
        let mut parts = rest.split('_');
        let number = parts.next().is_some_and(|part| part.parse::<u16>().is_ok());
        number
            && matches!(parts.next(), Some("TCP" | "UDP" | "SCTP"))
            && matches!(parts.next(), None | Some("PORT" | "PROTO" | "ADDR"))
    })
}

/// Two trees as one; an option that is set in both must be the same.
fn merged(first: Node, second: Node, path: &str, errors: &mut Vec<Diagnostic>) -> Node {
    let (span, other_span) = (first.span.clone(), second.span.clone());
    match (first.value, second.value) {
        (Value::Mapping(mut entries), Value::Mapping(others)) => {
            for other in others {
                let found =
                    entries.iter().position(|entry| entry.key.eq_ignore_ascii_case(&other.key));
                let Some(at) = found else {
                    entries.push(other);
                    continue;
                };
                let Entry { key, key_span, value } = entries.swap_remove(at);
                let path = if path.is_empty() { key.to_string() } else { format!("{path}.{key}") };
                let value = merged(value, other.value, &path, errors);
                entries.push(Entry { key, key_span, value });
            }
            Node::mapping(entries, span)
        }
        (Value::Scalar(first), Value::Scalar(second)) if first.text == second.text => {
            Node { value: Value::Scalar(first), span }
        }
        // `…_API=true` beside `…_API_INSECURE=true` says one thing twice.
        (Value::Mapping(entries), Value::Scalar(switch)) if is_on(&switch.text) => {
            Node::mapping(entries, span)
        }
        (Value::Scalar(switch), Value::Mapping(entries)) if is_on(&switch.text) => {
            Node::mapping(entries, other_span)
        }
        (value, _) => {
            let message = format!("`{path}` is set differently under `DOORWARD_` and `TRAEFIK_`");
            let help = "remove one of the two variables";
            errors.push(Diagnostic::error(message).at(&other_span).help(help));
            Node { value, span }
        }
    }
}

fn is_on(text: &str) -> bool {
    text.is_empty() || text.eq_ignore_ascii_case("true")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables(list: &[(&str, &str)]) -> Vec<(String, String)> {
        list.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn both_prefixes_make_one_tree() {
        let node = read(&variables(&[
            ("TRAEFIK_API", "true"),
            ("DOORWARD_API_INSECURE", "true"),
            ("TRAEFIK_LOG_LEVEL", "INFO"),
            ("DOORWARD_LOG_LEVEL", "INFO"),
            ("DOORWARD_ENTRYPOINTS_WEB_ADDRESS", ":80"),
            ("TRAEFIK_ENTRYPOINTS_WEB_ASDEFAULT", "true"),
            ("TRAEFIK_ENTRYPOINTS_WEB_asdefault", "false"),
            ("PATH", "/bin"),
        ]))
        .unwrap()
        .node
        .unwrap();
        assert_eq!(node.at_path("api.insecure").text(), Some("true"));
        assert_eq!(node.at_path("log.level").text(), Some("INFO"));
        assert_eq!(node.at_path("entrypoints.web.address").text(), Some(":80"));
        assert_eq!(node.at_path("entrypoints.web.asdefault").text(), Some("true"));
    }

    #[test]
    fn different_values_under_both_prefixes_are_errors() {
        let errors = read(&variables(&[
            ("TRAEFIK_LOG_LEVEL", "INFO"),
            ("DOORWARD_LOG_LEVEL", "DEBUG"),
            ("TRAEFIK_PING", "false"),
            ("DOORWARD_PING_ENTRYPOINT", "web"),
        ]))
        .unwrap_err();
        let text: Vec<_> = errors.iter().map(Diagnostic::one_line).collect();
        assert_eq!(errors.len(), 2, "{text:?}");
        assert!(text[0].contains("`log.level` is set differently"), "{text:?}");
    }

    #[test]
    fn service_links_are_passed_over() {
        let links = variables(&[
            ("TRAEFIK_API_SERVICE_HOST", "10.0.0.1"),
            ("TRAEFIK_API_SERVICE_PORT", "80"),
            ("TRAEFIK_API_SERVICE_PORT_WEB_UI", "80"),
            ("DOORWARD_PING_PORT", "tcp://10.0.0.1:80"),
            ("DOORWARD_PING_PORT_80_TCP", "tcp://10.0.0.1:80"),
            ("DOORWARD_PING_PORT_80_TCP_PROTO", "tcp"),
            ("DOORWARD_PING_PORT_80_TCP_PORT", "80"),
            ("DOORWARD_PING_PORT_80_TCP_ADDR", "10.0.0.1"),
            ("DOORWARD_PORT", "tcp://10.0.0.1:80"),
        ]);
        assert!(read(&links).unwrap().node.is_none());
        assert!(!is_configured(&links));
        let real = variables(&[("DOORWARD_ENTRYPOINTS_PORT_ADDRESS", ":80")]);
        assert!(read(&real).unwrap().node.is_some() && is_configured(&real));
    }

    #[test]
    fn misspelt_sections_are_noted_and_others_ignored() {
        let found = read(&variables(&[
            ("TRAEFIK_ENTRYPOINT_WEB_ADDRESS", ":80"),
            ("DOORWARD_ACCESS_LOG", "true"),
            ("TRAEFIK_SOMETHING_ELSE", "x"),
            ("DOORWARD_VERSION", "1"),
        ]))
        .unwrap();
        assert!(found.node.is_none());
        let text: Vec<_> = found.warnings.iter().map(Diagnostic::one_line).collect();
        assert_eq!(text.len(), 2, "{text:?}");
        assert!(text[0].contains("`DOORWARD_ACCESSLOG_…`"), "{text:?}");
        assert!(text[1].contains("`TRAEFIK_ENTRYPOINTS_…`"), "{text:?}");
    }
}
