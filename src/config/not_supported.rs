//! Options that Traefik has and Doorward does not serve, and those that Traefik itself has given up. They are taken
//! out of the tree before it is decoded, every use with its place, so that one start shows all of them.

use crate::config::diagnostics::Diagnostic;
use crate::config::entry_points::{Address, Protocol};
use crate::config::tree::{Entry, Node, Value};
use crate::values::GoDuration;

/// What was found, and is no longer in the tree.
#[derive(Debug, Default)]
pub struct Findings {
    /// Uses that stop the start.
    pub errors: Vec<Diagnostic>,
    /// Uses that mean nothing here.
    pub warnings: Vec<Diagnostic>,
}

/// Traefik's words for an option it no longer knows; scripts look for them.
pub const DEPRECATED: &str = "incompatible deprecated install configuration option found";

/// Paths with `*` for a name that the user gives.
const NOT_SUPPORTED: [&str; 33] = [
    "tracing",
    "spiffe",
    "ocsp",
    "tcpServersTransport",
    "serversTransport.spiffe",
    "experimental.knative",
    "experimental.otlpLogs",
    "entryPoints.*.http3",
    "api.debug",
    "log.otlp",
    "accessLog.otlp",
    "metrics.otlp",
    "metrics.datadog",
    "metrics.statsD",
    "metrics.influxDB2",
    "certificatesResolvers.*.tailscale",
    "providers.http",
    "providers.rest",
    "providers.plugin",
    "providers.docker",
    "providers.swarm",
    "providers.consulCatalog",
    "providers.nomad",
    "providers.ecs",
    "providers.consul",
    "providers.etcd",
    "providers.redis",
    "providers.zooKeeper",
    "providers.kubernetesIngress",
    "providers.kubernetesCRD",
    "providers.kubernetesGateway",
    "providers.kubernetesIngressNGINX",
    "providers.knative",
];

/// Options that Traefik v3 refuses, each with what became of it.
const REMOVED: [(&str, &str); 23] = [
    ("pilot", "Traefik Pilot is gone; remove the section"),
    ("providers.marathon", "the provider is gone since Traefik v3; remove the section"),
    ("providers.rancher", "the provider is gone since Traefik v3; remove the section"),
    ("providers.docker.tls.caOptional", CA_OPTIONAL),
    ("providers.swarm.tls.caOptional", CA_OPTIONAL),
    ("providers.consul.tls.caOptional", CA_OPTIONAL),
    ("providers.consulCatalog.endpoint.tls.caOptional", CA_OPTIONAL),
    ("providers.nomad.endpoint.tls.caOptional", CA_OPTIONAL),
    ("providers.etcd.tls.caOptional", CA_OPTIONAL),
    ("providers.redis.tls.caOptional", CA_OPTIONAL),
    ("providers.http.tls.caOptional", CA_OPTIONAL),
    ("providers.docker.swarmMode", "Swarm has a provider of its own, `providers.swarm`"),
    ("providers.consul.namespace", NAMESPACE),
    ("providers.consulCatalog.namespace", NAMESPACE),
    ("providers.nomad.namespace", NAMESPACE),
    ("experimental.http3", "HTTP/3 is no experiment any more; remove the option"),
    ("tracing.spanNameLimit", "the option is gone since Traefik v3; remove it"),
    ("tracing.jaeger", TRACER),
    ("tracing.zipkin", TRACER),
    ("tracing.datadog", TRACER),
    ("tracing.instana", TRACER),
    ("tracing.haystack", TRACER),
    ("tracing.elastic", TRACER),
];

const CA_OPTIONAL: &str = "`caOptional` has no effect on a client and is gone; remove it";
const NAMESPACE: &str = "write the plural, `namespaces`, with a list";
const TRACER: &str =
    "tracers of vendors are gone since Traefik v3, which only knows `tracing.otlp`";

/// Whether a value asks for something.
type Asks = fn(&str) -> bool;

/// Options that are read and change nothing, the values of them that ask for something, and why that is not done.
const WITHOUT_EFFECT: [(&str, Asks, &str); 8] = [
    ("global.checkNewVersion", is_on, "nobody is asked for a newer version"),
    ("global.sendAnonymousUsage", is_on, "nothing is sent"),
    ("experimental.abortOnPluginFailure", is_on, "there are no plugins"),
    ("entryPoints.*.udp.timeout", is_time, "entry points for UDP are not supported yet"),
    ("entryPoints.*.observability.tracing", is_on, "there is no tracing yet"),
    (
        "entryPoints.*.observability.traceVerbosity",
        |word| word == "detailed",
        "there is no tracing yet",
    ),
    ("accessLog.dualOutput", is_on, "the log has one output, since OTLP is not supported yet"),
    ("log.compress", is_off, "rotated files are always compressed"),
];

/// Takes out of a static document's tree what Doorward does not serve.
pub fn take(root: &mut Node) -> Findings {
    let mut findings = Findings::default();
    exclusive_resolvers(root, &mut findings);
    for (path, help) in REMOVED {
        for (path, entry) in taken(root, path) {
            let message = format!("{DEPRECATED}: `{path}`");
            findings.errors.push(Diagnostic::error(message).at(&entry.key_span).help(help));
        }
    }
    for path in ["experimental.plugins", "experimental.localPlugins"] {
        plugins(root, path, &mut findings);
    }
    for path in NOT_SUPPORTED {
        for (path, entry) in taken(root, path) {
            if !asks_nothing(&entry.value) {
                let message = format!("`{path}` is not supported yet");
                findings.errors.push(Diagnostic::error(message).at(&entry.key_span));
            }
        }
    }
    values(root, &mut findings);
    notes(root, &mut findings);
    // By line, as a reader of the file would meet them.
    findings.errors.sort_by_key(|error| error.span.as_ref().map(|span| span.start));
    findings
}

/// Plugins are told one by one, at their names.
fn plugins(root: &mut Node, path: &str, findings: &mut Findings) {
    for (path, entry) in taken(root, path) {
        let names = entry.value.entries();
        let told = names.iter().map(|plugin| {
            let message = format!("plugins are not supported yet: `{path}.{}`", plugin.key);
            Diagnostic::error(message).at(&plugin.key_span)
        });
        findings.errors.extend(told);
        if names.is_empty() && !asks_nothing(&entry.value) {
            let message = format!("plugins are not supported yet: `{path}`");
            findings.errors.push(Diagnostic::error(message).at(&entry.key_span));
        }
    }
}

/// Options that are served, with values that are not. They stay in the tree, since others refer to them.
fn values(root: &Node, findings: &mut Findings) {
    let mut refuse = |node: &Node, message: &str| {
        findings.errors.push(Diagnostic::error(message).at(&node.span));
    };
    for entry_point in root.get("entryPoints").map(Node::entries).unwrap_or_default() {
        if let Some(address) = entry_point.value.get("address")
            && let Some(Ok(Address { protocol: Protocol::Udp, .. })) =
                address.text().map(str::parse)
        {
            refuse(address, "entry points for UDP are not supported yet");
        }
    }
}

/// Traefik looks at this before anything is built, so a resolver with both has two faults.
fn exclusive_resolvers(root: &Node, findings: &mut Findings) {
    let resolvers = root.get("certificatesResolvers").map(Node::entries).unwrap_or_default();
    for resolver in resolvers {
        if resolver.value.get("acme").is_some() && resolver.value.get("tailscale").is_some() {
            let name = &resolver.key;
            let message = format!(
                "unable to initialize certificates resolver `{name}`, as ACME and Tailscale providers are mutually exclusive"
            );
            findings.errors.push(Diagnostic::error(message).at(&resolver.key_span));
        }
    }
}

/// Uses of options that are read and change nothing.
fn notes(root: &Node, findings: &mut Findings) {
    let mut note = |section: &str, option: &str, message: &str| {
        if let Some(entry) = root.get(section).and_then(|section| section.entry(option)) {
            let message = format!("`{section}.{option}` {message}");
            findings.warnings.push(Diagnostic::warning(message).at(&entry.key_span));
        }
    };
    note(
        "core",
        "defaultRuleSyntax",
        "is deprecated in Traefik; rules should be written in the syntax of v3",
    );
    note("experimental", "kubernetesGateway", "is deprecated and has no effect");
    note("experimental", "kubernetesIngressNGINX", "is deprecated and has no effect");
    note(
        "experimental",
        "fastProxy",
        "has no effect: there is one way to the servers, and it is fast",
    );
    for (path, asks, message) in WITHOUT_EFFECT {
        let steps: Vec<&str> = path.split('.').collect();
        let mut found = Vec::new();
        written(root, &steps, "", &mut found);
        for (path, entry) in found {
            if entry.value.text().is_some_and(asks) {
                let message = format!("`{path}` has no effect: {message}");
                findings.warnings.push(Diagnostic::warning(message).at(&entry.key_span));
            }
        }
    }
}

/// All entries at a path, with their path as it is written.
fn written<'n>(node: &'n Node, steps: &[&str], above: &str, found: &mut Vec<(String, &'n Entry)>) {
    let Some((step, below)) = steps.split_first() else { return };
    for entry in node.entries() {
        if *step != "*" && !entry.key.eq_ignore_ascii_case(step) {
            continue;
        }
        let name = if *step == "*" { &*entry.key } else { *step };
        let path = if above.is_empty() { name.to_owned() } else { format!("{above}.{name}") };
        if below.is_empty() {
            found.push((path, entry));
        } else {
            written(&entry.value, below, &path, found);
        }
    }
}

fn is_on(text: &str) -> bool {
    matches!(text, "1" | "t" | "T" | "true" | "True" | "TRUE")
}

/// One that is none is told of when it is validated.
fn is_time(text: &str) -> bool {
    text.parse::<GoDuration>().is_ok_and(|time| time.positive().is_some())
}

fn is_off(text: &str) -> bool {
    matches!(text, "0" | "f" | "F" | "false" | "False" | "FALSE")
}

/// A section or a switch that is off.
fn asks_nothing(value: &Node) -> bool {
    value.text().is_some_and(is_off)
}

/// Removes all entries at a path, and returns them with their path as it is written.
fn taken(root: &mut Node, path: &str) -> Vec<(String, Entry)> {
    let steps: Vec<&str> = path.split('.').collect();
    let mut found = Vec::new();
    take_at(root, &steps, "", &mut found);
    found
}

fn take_at(node: &mut Node, steps: &[&str], above: &str, found: &mut Vec<(String, Entry)>) {
    let Value::Mapping(entries) = &mut node.value else { return };
    let Some((step, below)) = steps.split_first() else { return };
    let fits = |entry: &Entry| *step == "*" || entry.key.eq_ignore_ascii_case(step);
    let path_of = |entry: &Entry| {
        let name = if *step == "*" { &*entry.key } else { *step };
        if above.is_empty() { name.to_owned() } else { format!("{above}.{name}") }
    };
    if below.is_empty() {
        let gone = entries.extract_if(.., |entry| fits(entry));
        found.extend(gone.map(|entry| (path_of(&entry), entry)));
        return;
    }
    for entry in entries.iter_mut().filter(|entry| fits(entry)) {
        let path = path_of(entry);
        take_at(&mut entry.value, below, &path, found);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tree::{FlagKind, Format, Source, from_flags, parse};

    fn yaml(text: &str) -> Node {
        parse(&Source::new("f.yml", text, Format::Yaml)).unwrap()
    }

    fn errors(node: &mut Node) -> Vec<String> {
        take(node).errors.iter().map(Diagnostic::one_line).collect()
    }

    #[test]
    fn every_use_is_found_with_its_line_and_taken_out() {
        let mut node = yaml(
            "entryPoints:\n  web:\n    address: :80\n    http3: {}\n  Other:\n    HTTP3:\n      advertisedPort: 1\n\
             tracing:\n  otlp: {}\nproviders:\n  docker:\n    exposedByDefault: false\n  file:\n    filename: x\n\
             api:\n  debug: true\nlog:\n  otlp: {}\n",
        );
        assert_eq!(
            errors(&mut node),
            [
                "f.yml:4:5: error: `entryPoints.web.http3` is not supported yet",
                "f.yml:6:5: error: `entryPoints.Other.http3` is not supported yet",
                "f.yml:8:1: error: `tracing` is not supported yet",
                "f.yml:11:3: error: `providers.docker` is not supported yet",
                "f.yml:16:3: error: `api.debug` is not supported yet",
                "f.yml:18:3: error: `log.otlp` is not supported yet",
            ]
        );
        assert!(node.get("tracing").is_none());
        assert_eq!(node.at_path("entryPoints.web").entries().len(), 1);
        assert!(node.get("providers").unwrap().get("file").is_some());
        assert!(errors(&mut node).is_empty());
    }

    /// RP-9.11
    #[test]
    fn plugins_are_told_by_their_names() {
        let mut node = yaml(
            "experimental:\n  plugins:\n    jwt: {moduleName: a/b, version: v1}\n    other:\n      moduleName: c/d\n  \
             LocalPlugins: {}\n",
        );
        assert_eq!(
            errors(&mut node),
            [
                "f.yml:3:5: error: plugins are not supported yet: `experimental.plugins.jwt`",
                "f.yml:4:5: error: plugins are not supported yet: `experimental.plugins.other`",
                "f.yml:6:3: error: plugins are not supported yet: `experimental.localPlugins`",
            ]
        );
        assert!(node.get("experimental").unwrap().is_empty());
    }

    #[test]
    fn what_is_switched_off_is_not_used() {
        let mut node =
            yaml("experimental:\n  knative: false\n  otlpLogs: False\napi: {debug: false}\n");
        assert!(errors(&mut node).is_empty());
        assert!(node.get("experimental").unwrap().is_empty());

        let flags = ["--providers.docker=false", "--tracing=0", "--ocsp"].map(str::to_owned);
        let mut node = from_flags(&flags, &|_| FlagKind::Unknown).unwrap();
        assert_eq!(errors(&mut node), ["flags:3:3: error: `ocsp` is not supported yet"]);
        assert!(errors(&mut yaml("tracing: false\nproviders: {docker: false}\n")).is_empty());
        assert_eq!(errors(&mut yaml("tracing: true\n")).len(), 1);
    }

    #[test]
    fn removed_options_are_named_in_traefiks_words() {
        let mut node = yaml(
            "pilot: {token: x}\nproviders:\n  docker:\n    swarmMode: true\n    tls:\n      caOptional: true\n\
             tracing:\n  jaeger: {}\nexperimental:\n  http3: true\n",
        );
        let errors = errors(&mut node);
        let removed = errors.iter().filter(|error| error.contains(DEPRECATED)).count();
        assert_eq!(removed, 5, "{errors:#?}");
        assert!(errors[0].starts_with("f.yml:1:1:") && errors[0].contains("`pilot`"));
        assert!(
            errors.iter().any(|error| error.contains("`providers.docker` is not supported yet"))
        );
    }

    #[test]
    fn a_resolver_has_one_source() {
        let mut node = yaml("certificatesResolvers:\n  le:\n    acme: {}\n    tailscale: {}\n");
        let errors = errors(&mut node);
        assert!(errors[0].contains("mutually exclusive"), "{errors:?}");
        assert!(errors[1].contains("`certificatesResolvers.le.tailscale` is not supported yet"));
    }

    #[test]
    fn deprecated_options_without_effect_are_noted() {
        let mut node = yaml(
            "core: {defaultRuleSyntax: v3}\nexperimental: {kubernetesGateway: true, fastProxy: {}}\n",
        );
        let findings = take(&mut node);
        assert!(findings.errors.is_empty());
        let lines: Vec<_> = findings.warnings.iter().map(Diagnostic::one_line).collect();
        assert_eq!(lines.len(), 3, "{lines:?}");
        assert!(lines[0].contains("`core.defaultRuleSyntax` is deprecated"));
        assert!(node.at_path("experimental").get("fastProxy").is_some());
    }

    #[test]
    fn what_asks_for_something_that_is_not_done_is_noted() {
        let asking = "global: {checkNewVersion: true, sendAnonymousUsage: true}\n\
                      experimental: {abortOnPluginFailure: true}\n\
                      entryPoints:\n  web:\n    udp: {timeout: 3s}\n    \
                      observability: {tracing: true, traceVerbosity: detailed}\n\
                      accessLog: {dualOutput: true}\nlog: {compress: false}\n";
        let findings = take(&mut yaml(asking));
        let lines: Vec<_> = findings.warnings.iter().map(Diagnostic::one_line).collect();
        assert_eq!(lines.len(), 8, "{lines:#?}");
        assert!(lines.iter().all(|line| line.contains("` has no effect: ")), "{lines:#?}");
        let wanted = "f.yml:6:21: warning: `entryPoints.web.observability.tracing` has no effect";
        assert!(lines.iter().any(|line| line.starts_with(wanted)), "{lines:#?}");

        let content = "global: {checkNewVersion: false, sendAnonymousUsage: false}\n\
                       entryPoints: {web: {observability: {tracing: false, traceVerbosity: minimal}}}\n\
                       accessLog: {dualOutput: false}\nlog: {compress: true}\n";
        assert!(take(&mut yaml(content)).warnings.is_empty());
        let flags = ["--global.sendAnonymousUsage=true".to_owned()];
        let mut node = from_flags(&flags, &|_| FlagKind::Unknown).unwrap();
        assert_eq!(take(&mut node).warnings.len(), 1);
    }

    #[test]
    fn values_that_are_not_served_are_among_them() {
        let mut node = yaml(
            "core: {defaultRuleSyntax: v3}\nentryPoints:\n  dns: {address: ':53/UDP'}\n  web: {address: ':80/tcp'}\n\
             tracing: {}\n",
        );
        assert_eq!(
            errors(&mut node),
            [
                "f.yml:3:18: error: entry points for UDP are not supported yet",
                "f.yml:5:1: error: `tracing` is not supported yet",
            ]
        );
        assert!(node.at_path("entryPoints").get("dns").is_some());
    }
}
