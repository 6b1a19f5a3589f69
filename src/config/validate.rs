//! What a static configuration must fulfil beyond its types: addresses, references between sections, ranges of
//! numbers. Everything is collected, with its place in the tree.

use std::collections::HashMap;

use http::HeaderName;
use regex::Regex;

use crate::config::diagnostics::{Diagnostic, did_you_mean};
use crate::config::entry_points::{
    Address, EntryPointConfig, MOST_HEADER_FIELDS, Protocol, parse_range,
};
use crate::config::static_config::{PRECEDENCE, StaticConfig};
use crate::config::tree::{Format, Node, Span};
use crate::exchange::body::FRAMING;
use crate::observability::access_log::FIELDS;
use crate::observability::metrics::is_label;
use crate::values::GoDuration;

impl StaticConfig {
    /// Everything that is wrong with a completed configuration, errors and warnings. `node` is the tree it was
    /// decoded from.
    pub fn validate(&self, node: &Node) -> Vec<Diagnostic> {
        let mut check = Check { config: self, node, found: Vec::new() };
        check.core();
        check.entry_points();
        check.addresses();
        check.api();
        check.admin();
        check.limits();
        check.ping();
        check.metrics();
        check.logs();
        check.providers();
        check.resolvers();
        check.found.extend(self.limits.validate(node));
        check.found
    }
}

struct Check<'a> {
    config: &'a StaticConfig,
    node: &'a Node,
    found: Vec<Diagnostic>,
}

impl Check<'_> {
    fn error(&mut self, path: &str, message: impl Into<String>) -> &mut Diagnostic {
        self.found(path, Diagnostic::error(message))
    }

    fn warning(&mut self, path: &str, message: impl Into<String>) -> &mut Diagnostic {
        self.found(path, Diagnostic::warning(message))
    }

    fn found(&mut self, path: &str, diagnostic: Diagnostic) -> &mut Diagnostic {
        self.found.push_mut(diagnostic.at(&self.place(path)))
    }

    /// The value at a path; of a whole section its key, which reads better than its first option.
    fn place(&self, path: &str) -> Span {
        let node = self.node.at_path(path);
        let is_section = !node.entries().is_empty();
        if let Some((above, key)) = path.rsplit_once('.')
            && is_section
            && let Some(entry) = self.node.at_path(above).entry(key)
        {
            return entry.key_span.clone();
        }
        node.span.clone()
    }

    fn core(&mut self) {
        let core = &self.config.core;
        match core.default_rule_syntax.as_str() {
            "" | "v3" | "v2" => {}
            other => {
                let message = format!("unsupported default rule syntax configuration: `{other}`");
                self.error("core.defaultRuleSyntax", message).help = Some("write `v3`".to_owned());
            }
        }
        if core.workers == Some(0) {
            self.error("core.workers", "there must be at least one worker");
        }
    }

    fn entry_points(&mut self) {
        let config = self.config;
        for (name, entry_point) in &config.entry_points {
            let path = format!("entryPoints.{name}");
            if name.is_empty() || name.contains('@') {
                self.error(&path, format!("`{name}` cannot be the name of an entry point"));
            }
            self.address(&path, &entry_point.address);
            self.trusted(&path, entry_point);
            self.numbers(&path, entry_point);
            self.http(&path, name, entry_point);
        }
    }

    fn address(&mut self, path: &str, address: &str) {
        if address.is_empty() {
            self.error(path, format!("`{path}.address` is required"));
            return;
        }
        let path = format!("{path}.address");
        match address.parse::<Address>() {
            // Refused with all else that is not served.
            Ok(_) => {}
            Err(error) => {
                let diagnostic = self.error(&path, error.to_string());
                if address.parse::<u16>().is_ok() {
                    diagnostic.help = Some(format!("did you mean `:{address}`?"));
                }
            }
        }
    }

    fn trusted(&mut self, path: &str, entry_point: &EntryPointConfig) {
        let headers = &entry_point.forwarded_headers;
        self.ranges(&format!("{path}.forwardedHeaders.trustedIPs"), &headers.trusted_ips);
        for (index, header) in headers.connection.iter().enumerate() {
            if header.parse::<HeaderName>().is_err() {
                let path = format!("{path}.forwardedHeaders.connection[{index}]");
                self.error(&path, format!("`{header}` is no name of a header"));
            }
        }
        if let Some(proxy_protocol) = &entry_point.proxy_protocol {
            let path = format!("{path}.proxyProtocol");
            self.ranges(&format!("{path}.trustedIPs"), &proxy_protocol.trusted_ips);
            if proxy_protocol.trusted_ips.is_empty() && !proxy_protocol.insecure {
                let message = format!("`{path}` trusts nobody");
                self.error(&path, message).help = Some(
                    "list the load balancers in `trustedIPs`, or remove the section".to_owned(),
                );
            }
        }
    }

    fn ranges(&mut self, path: &str, ranges: &[String]) {
        for (index, range) in ranges.iter().enumerate() {
            if parse_range(range).is_none() {
                let message =
                    format!("`{range}` is neither an IP address nor a range such as `10.0.0.0/8`");
                self.error(&format!("{path}[{index}]"), message);
            }
        }
    }

    fn numbers(&mut self, path: &str, entry_point: &EntryPointConfig) {
        let http2 = &entry_point.http2;
        for (option, value) in [
            ("maxConcurrentStreams", http2.max_concurrent_streams),
            ("maxDecoderHeaderTableSize", http2.max_decoder_header_table_size),
            ("maxEncoderHeaderTableSize", http2.max_encoder_header_table_size),
        ] {
            if value < 0 {
                let message = format!("`http2.{option}` must not be negative");
                self.error(&format!("{path}.http2.{option}"), message);
            }
        }
        let encoder = http2.max_encoder_header_table_size;
        // Go takes 0 as the default.
        if encoder > 0 && encoder != 4096 {
            let path = format!("{path}.http2.maxEncoderHeaderTableSize");
            self.warning(&path, "the table that answers are written with always has 4096 bytes");
        }
        if entry_point.http.max_header_fields() > MOST_HEADER_FIELDS {
            let message = format!("`http.maxHeaderFields` is {MOST_HEADER_FIELDS} at most");
            self.error(&format!("{path}.http.maxHeaderFields"), message);
        }
        if entry_point.http.max_header_bytes.is_some_and(|bytes| bytes <= 0) {
            let used = entry_point.http.max_header_bytes();
            let message = format!(
                "`http.maxHeaderBytes` is not more than 0, which means the default, {used}"
            );
            self.warning(&format!("{path}.http.maxHeaderBytes"), message);
        }
        if entry_point.udp.timeout.positive().is_none() {
            let path = format!("{path}.udp.timeout");
            let is_udp = |address: Address| address.protocol == Protocol::Udp;
            if entry_point.address.parse().is_ok_and(is_udp) {
                self.error(&path, "`udp.timeout` must be more than zero");
            } else {
                let message = "`udp.timeout` must be more than zero; it has no effect at this \
                               entry point, which is not UDP";
                self.warning(&path, message);
            }
        }
        let transport = &entry_point.transport;
        let timeouts = &transport.responding_timeouts;
        for (option, value) in [
            ("respondingTimeouts.readTimeout", timeouts.read_timeout()),
            ("respondingTimeouts.writeTimeout", timeouts.write_timeout),
            ("respondingTimeouts.idleTimeout", timeouts.idle_timeout),
            (
                "lifeCycle.requestAcceptGraceTimeout",
                transport.life_cycle.request_accept_grace_timeout,
            ),
            ("lifeCycle.graceTimeOut", transport.life_cycle.grace_time_out),
            ("keepAliveMaxTime", transport.keep_alive_max_time),
        ] {
            if value.is_negative() {
                let message = format!("`transport.{option}` is negative, which means 0");
                self.warning(&format!("{path}.transport.{option}"), message);
            }
        }
        if let Some(limit) = timeouts.read_timeout.filter(|limit| limit.positive().is_some()) {
            let message = format!(
                "a request with its body must arrive in {limit}: uploads that take longer are cut"
            );
            let path = format!("{path}.transport.respondingTimeouts.readTimeout");
            self.warning(&path, message).help = Some(
                "leave it out: then the head has 60s, and each pause inside the body".to_owned(),
            );
        }
        if let Some(body) = &entry_point.http.request_body
            && body.max_bytes.is_some_and(|bytes| bytes < 0)
        {
            let message = "`maxBytes` is negative: write a number of bytes, or 0 for no limit";
            self.error(&format!("{path}.http.requestBody.maxBytes"), message);
        }
        if let Some(request_id) = &entry_point.http.request_id {
            let header = &request_id.header;
            let place = format!("{path}.http.requestId.header");
            match header.parse::<HeaderName>() {
                Err(_) => drop(self.error(&place, format!("`{header}` is no name of a header"))),
                Ok(name) if FRAMING.contains(&name) => {
                    let message = format!("`{header}` means something else: write `X-Request-Id`");
                    self.error(&place, message);
                }
                Ok(_) => {}
            }
        }
        let verbosity = entry_point.observability.trace_verbosity.as_deref();
        if let Some(word) = verbosity.filter(|word| !matches!(*word, "minimal" | "detailed")) {
            let message = format!("unknown value `{word}`: write `minimal` or `detailed`");
            self.error(&format!("{path}.observability.traceVerbosity"), message);
        }
    }

    fn http(&mut self, path: &str, name: &str, entry_point: &EntryPointConfig) {
        let http = &entry_point.http;
        for (index, middleware) in http.middlewares.iter().enumerate() {
            if !middleware.contains('@') {
                let message = format!(
                    "the middleware `{middleware}` names no provider, so every router looks for it at its own"
                );
                self.warning(&format!("{path}.http.middlewares[{index}]"), message).help =
                    Some(format!("write for example `{middleware}@file`"));
            }
        }
        if let Some(tls) = &http.tls
            && !matches!(tls.options.as_str(), "" | "default")
            && !tls.options.contains('@')
        {
            let options = &tls.options;
            let message = format!(
                "the TLS options `{options}` name no provider, so every router looks for them at its own"
            );
            self.warning(&format!("{path}.http.tls.options"), message).help =
                Some(format!("write for example `{options}@file`"));
        }
        if let Some(tls) = &http.tls
            && !tls.cert_resolver.is_empty()
            && !self.config.certificates_resolvers.contains_key(&tls.cert_resolver)
        {
            let message = format!("there is no certificates resolver `{}`", tls.cert_resolver);
            let known = self.config.certificates_resolvers.keys();
            let help = suggestion(&tls.cert_resolver, known);
            self.warning(&format!("{path}.http.tls.certResolver"), message).help = help;
        }
        let Some(redirections) = &http.redirections else { return };
        let Some(redirect) = &redirections.entry_point else {
            let message = "`http.redirections` has no `entryPoint`: nothing is redirected";
            self.warning(&format!("{path}.http.redirections"), message);
            return;
        };
        let path = format!("{path}.http.redirections.entryPoint");
        if redirect.to.is_empty() {
            self.error(&path, format!("`{path}.to` is required"));
        } else if let Some(port) = redirect.to.strip_prefix(':') {
            if port.parse::<u16>().is_err() {
                let message = format!("`{}` is no port", redirect.to);
                self.error(&format!("{path}.to"), message);
            }
        } else {
            self.entry_point_exists(&format!("{path}.to"), &redirect.to);
        }
        if redirect.to == name {
            self.warning(&format!("{path}.to"), format!("`{name}` redirects to itself"));
        }
        if !matches!(redirect.scheme.as_str(), "http" | "https") {
            let message = format!("unknown scheme `{}`: write `https` or `http`", redirect.scheme);
            self.error(&format!("{path}.scheme"), message);
        }
    }

    fn entry_point_exists(&mut self, path: &str, name: &str) {
        let config = self.config;
        if !config.entry_points.contains_key(name) {
            let help = suggestion(name, config.entry_points.keys());
            self.error(path, format!("there is no entry point `{name}`")).help = help;
        }
    }

    fn addresses(&mut self) {
        let config = self.config;
        let mut seen: HashMap<Address, (&str, bool)> = HashMap::new();
        for (name, entry_point) in &config.entry_points {
            let Ok(address) = entry_point.address.parse::<Address>() else { continue };
            if address.port == 0 {
                continue;
            }
            let shared = entry_point.reuse_port;
            let place = address.to_string();
            if let Some((first, first_shared)) = seen.insert(address, (name, shared))
                && !(shared && first_shared)
            {
                let message =
                    format!("the entry points `{first}` and `{name}` both listen at `{place}`");
                self.error(&format!("entryPoints.{name}.address"), message);
            }
        }
    }

    fn api(&mut self) {
        let config = self.config;
        let Some(api) = &config.api else { return };
        // The pattern is Traefik's.
        let fits = Regex::new("^/[a-zA-Z0-9/_.:~-]*$")
            .is_ok_and(|pattern| pattern.is_match(&api.base_path));
        if !fits {
            let message = format!("invalid `api.basePath` `{}`", api.base_path);
            self.error("api.basePath", message).help =
                Some("it begins with `/` and has only letters, digits and `/_.:~-`".to_owned());
        }
        if api.insecure && api.base_path != "/" {
            self.error(
                "api.basePath",
                "`api.basePath` cannot be used together with `api.insecure`",
            );
        }
    }

    fn admin(&mut self) {
        let config = self.config;
        let Some(admin) = &config.admin else { return };
        for error in admin.check() {
            let path = format!("admin.{}", error.option);
            self.error(path.trim_end_matches('.'), error.message);
        }
    }

    fn limits(&mut self) {
        let overload = &self.config.limits.overload;
        if let Some((option, message)) = overload.problem() {
            self.error(&format!("limits.overload.{option}"), format!("`{option}` {message}"));
        }
        if overload.interval.positive().is_none() {
            self.error("limits.overload.interval", "`interval` must be longer than nothing");
        }
    }

    fn ping(&mut self) {
        let config = self.config;
        let Some(ping) = &config.ping else { return };
        if !ping.manual_routing {
            self.entry_point_exists("ping.entryPoint", &ping.entry_point);
        }
        if !(100..=999).contains(&ping.terminating_status_code) {
            let message = format!("{} is no status code", ping.terminating_status_code);
            self.error("ping.terminatingStatusCode", message);
        }
    }

    fn metrics(&mut self) {
        let config = self.config;
        let prometheus = config.metrics.as_ref().and_then(|metrics| metrics.prometheus.as_ref());
        if let Some(prometheus) = prometheus
            && !prometheus.manual_routing
        {
            self.entry_point_exists("metrics.prometheus.entryPoint", &prometheus.entry_point);
        }
        for (index, bound) in prometheus.iter().flat_map(|one| &one.buckets).enumerate() {
            let before = index.checked_sub(1);
            let before = before.and_then(|at| prometheus?.buckets.get(at));
            let path = format!("metrics.prometheus.buckets[{index}]");
            if bound.is_nan() {
                self.error(&path, "`NaN` is no bound of a bucket");
            } else if let Some(before) = before.filter(|before| *before >= bound) {
                let message = format!(
                    "the bounds in `metrics.prometheus.buckets` must increase: {bound} follows \
                     {before}"
                );
                self.error(&path, message);
            } else if *bound < 0.0 {
                let message = format!("no request takes {bound} s: this bucket is left out");
                self.warning(&path, message);
            }
        }
        for (label, header) in prometheus.iter().flat_map(|one| &one.header_labels) {
            if !is_label(label) || header.parse::<HeaderName>().is_err() {
                let message = format!(
                    "`{label}: {header}` is left out: no label has this name, or no header"
                );
                self.warning(&format!("metrics.prometheus.headerLabels.{label}"), message);
            }
        }
    }

    /// As in Traefik, a log goes on with its defaults when it is told something unknown.
    fn logs(&mut self) {
        let config = self.config;
        if let Some(log) = &config.log {
            let level = log.level.to_lowercase();
            self.one_of("log.level", &level, &LEVELS, "ERROR");
            self.one_of("log.format", &log.format, &["common", "json"], "common");
        }
        let Some(log) = &config.access_log else { return };
        self.one_of("accessLog.format", &log.format, &["common", "genericCLF", "json"], "common");
        if log.buffering_size < 0 {
            // Traefik does not survive it.
            self.error("accessLog.bufferingSize", "`accessLog.bufferingSize` must not be negative");
        }
        for (index, codes) in log.filters.status_codes.iter().enumerate() {
            if !codes.split(',').all(|codes| is_status_range(codes.trim())) {
                let message = format!(
                    "`{codes}` is no status and no range such as `500-599`: no status is chosen"
                );
                self.warning(&format!("accessLog.filters.statusCodes[{index}]"), message);
            }
        }
        let fields = &log.fields;
        let path = "accessLog.fields";
        let modes = ["keep", "drop"];
        let default =
            self.one_of(&format!("{path}.defaultMode"), &fields.default_mode, &modes, "keep");
        for (name, mode) in &fields.names {
            let path = format!("{path}.names.{name}");
            self.one_of(&path, mode, &modes, default);
            if !FIELDS.iter().any(|field| field.eq_ignore_ascii_case(name)) {
                let close = did_you_mean(name, FIELDS.iter().copied());
                let message = format!("the access log has no field `{name}`");
                self.warning(&path, message).help =
                    close.map(|close| format!("did you mean `{close}`?"));
            }
        }
        let query = &fields.query_parameters.default_mode;
        self.one_of(&format!("{path}.queryParameters.defaultMode"), query, &modes, "keep");
        let modes = ["keep", "drop", "redact"];
        let (path, headers) = (format!("{path}.headers"), &fields.headers);
        let default =
            self.one_of(&format!("{path}.defaultMode"), &headers.default_mode, &modes, "keep");
        for (name, mode) in &headers.names {
            self.one_of(&format!("{path}.names.{name}"), mode, &modes, default);
        }
    }

    /// The value that counts: `value` if it is known, else the one that stands in for it.
    fn one_of<'v>(
        &mut self,
        path: &str,
        value: &'v str,
        known: &[&'static str],
        instead: &'v str,
    ) -> &'v str {
        if known.contains(&value) {
            return value;
        }
        let message = format!("unknown value `{value}`: `{instead}` is used instead");
        self.warning(path, message).help = Some(match did_you_mean(value, known.iter().copied()) {
            Some(close) => format!("did you mean `{close}`?"),
            None => format!("known here: {}", known.join(", ")),
        });
        instead
    }

    fn providers(&mut self) {
        let providers = &self.config.providers;
        for (index, name) in providers.precedence.iter().enumerate() {
            if !PRECEDENCE.contains(&name.as_str()) {
                let message = format!("unknown provider `{name}`");
                let help =
                    did_you_mean(name, PRECEDENCE).map(|close| format!("did you mean `{close}`?"));
                self.error(&format!("providers.precedence[{index}]"), message).help = help;
            }
        }
        if providers.providers_throttle_duration.is_negative() {
            self.error(
                "providers.providersThrottleDuration",
                "`providers.providersThrottleDuration` must not be negative",
            );
        }
        if let Some(file) = &providers.file {
            match (file.filename.as_os_str().is_empty(), file.directory.as_os_str().is_empty()) {
                (true, true) => {
                    self.error(
                        "providers.file",
                        "`providers.file` has neither `filename` nor `directory`",
                    );
                }
                (false, false) => {
                    let message = "`filename` has no effect beside `directory`";
                    self.warning("providers.file.filename", message);
                }
                (false, true) if Format::of_path(&file.filename).is_none() => {
                    let message =
                        format!("unsupported file extension: `{}`", file.filename.display());
                    self.error("providers.file.filename", message).help =
                        Some("use .toml, .yaml, .yml or .json".to_owned());
                }
                _ => {}
            }
        }
    }

    fn resolvers(&mut self) {
        let config = self.config;
        for (name, resolver) in &config.certificates_resolvers {
            let path = format!("certificatesResolvers.{name}");
            let Some(acme) = &resolver.acme else {
                self.warning(
                    &path,
                    format!("the certificates resolver `{name}` has no `acme` section"),
                );
                continue;
            };
            let path = format!("{path}.acme");
            if acme.storage.is_empty() {
                let message = format!(
                    "unable to initialize certificates resolver `{name}` with no storage location for the certificates"
                );
                self.error(&format!("{path}.storage"), message);
            }
            if acme.certificates_duration < 1 {
                self.error(
                    &format!("{path}.certificatesDuration"),
                    "certificates live for at least one hour",
                );
            }
            if acme.client_timeout < acme.client_response_header_timeout {
                self.error(
                    &format!("{path}.clientTimeout"),
                    "`clientTimeout` must be at least `clientResponseHeaderTimeout`",
                );
            }
            if let Some(challenge) = &acme.http_challenge {
                let path = format!("{path}.httpChallenge");
                if challenge.entry_point.is_empty() {
                    self.error(&path, format!("`{path}.entryPoint` is required"));
                } else {
                    self.entry_point_exists(&format!("{path}.entryPoint"), &challenge.entry_point);
                }
            }
            if let Some(challenge) = &acme.dns_challenge {
                let path = format!("{path}.dnsChallenge");
                if challenge.provider.is_empty() {
                    self.error(&path, format!("`{path}.provider` is required"));
                }
                if challenge.disable_propagation_check {
                    let message = "`disablePropagationCheck` is deprecated: write `propagation.disableChecks`";
                    self.warning(&format!("{path}.disablePropagationCheck"), message);
                }
                if challenge.delay_before_check != GoDuration::ZERO {
                    let message =
                        "`delayBeforeCheck` is deprecated: write `propagation.delayBeforeChecks`";
                    self.warning(&format!("{path}.delayBeforeCheck"), message);
                }
            }
            let challenges = [
                acme.http_challenge.is_some(),
                acme.dns_challenge.is_some(),
                acme.tls_challenge.is_some(),
            ];
            if !challenges.contains(&true) {
                let message = format!(
                    "the certificates resolver `{name}` has no challenge, so it gets no certificate"
                );
                self.warning(&path, message);
            }
        }
    }
}

/// Levels of the log, as Traefik names them.
const LEVELS: [&str; 7] = ["trace", "debug", "info", "warn", "error", "fatal", "panic"];

fn is_status_range(text: &str) -> bool {
    let (low, high) = text.split_once('-').unwrap_or((text, text));
    match (low.parse::<u16>(), high.parse::<u16>()) {
        (Ok(low), Ok(high)) => low <= high,
        _ => false,
    }
}

fn suggestion<'a>(word: &str, known: impl Iterator<Item = &'a String>) -> Option<String> {
    let known: Vec<&str> = known.map(String::as_str).collect();
    match did_you_mean(word, known.iter().copied()) {
        Some(close) => Some(format!("did you mean `{close}`?")),
        None if known.is_empty() || known.len() > 12 => None,
        None => Some(format!("known here: {}", known.join(", "))),
    }
}

#[cfg(test)]
mod tests;
