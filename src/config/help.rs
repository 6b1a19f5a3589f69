//! Every flag with its default and what it does, as `--help` prints them. A test compares the table with what the
//! types read, so that no option is missing and no default is wrong.

use std::fmt::Write as _;

/// What `--help` prints about flags: names in lower case, `<name>` for a name that the user gives, `[n]` for an
/// index. The same names without dashes are keys in files, and in upper case environment variables.
pub fn print_help() -> String {
    let mut text = String::from("Flags:\n");
    for (name, default, description) in FLAGS {
        let name = name.to_lowercase();
        let _ = write!(text, "\n    --{name}");
        if !default.is_empty() {
            let _ = write!(text, "  (Default: \"{default}\")");
        }
        let _ = write!(text, "\n        {description}\n");
    }
    text
}

/// Name in file casing, default, description; sorted without regard to case.
const FLAGS: [(&str, &str, &str); 200] = [
    ("accessLog", "false", "Write a line for every request."),
    ("accessLog.addInternals", "false", "Write requests for internal services too."),
    ("accessLog.bufferingSize", "0", "Lines that may wait for the writer; 0 is a size of our own."),
    ("accessLog.dualOutput", "false", "Write to the file beside OTLP, which is not supported yet."),
    ("accessLog.fields.defaultMode", "keep", "What happens to fields: keep or drop."),
    (
        "accessLog.fields.headers.defaultMode",
        "drop",
        "What happens to headers: keep, drop or redact.",
    ),
    ("accessLog.fields.headers.names.<name>", "", "What happens to one header."),
    ("accessLog.fields.names.<name>", "", "What happens to one field."),
    (
        "accessLog.fields.queryParameters.defaultMode",
        "keep",
        "What happens to the query: keep or drop.",
    ),
    ("accessLog.filePath", "", "File of the access log; standard output when empty."),
    ("accessLog.filters.minDuration", "0s", "Write requests that took longer."),
    ("accessLog.filters.retryAttempts", "false", "Write requests that were tried again."),
    ("accessLog.filters.statusCodes", "", "Write requests with these statuses or ranges of them."),
    ("accessLog.format", "common", "Format: common, genericCLF or json."),
    ("admin", "false", "Serve the admin API, which changes things. Doorward's own."),
    ("admin.address", "", "IP address and port of the admin API."),
    (
        "admin.auditLog",
        "",
        "File that gets a line for every change; what it does not take is not done.",
    ),
    ("admin.clientCertificates[n].commonName", "", "Common name of this client's certificate."),
    ("admin.clientCertificates[n].name", "", "Name of this client in the audit log."),
    (
        "admin.clientCertificates[n].role",
        "",
        "What this client may do: write, or read, which is the default.",
    ),
    (
        "admin.clientCertificates[n].san",
        "",
        "Host, URI or e-mail address in this client's certificate.",
    ),
    ("admin.hosts", "", "Values of Host that are answered; those of this machine when empty."),
    ("admin.origins", "", "Values of Origin that are answered; none when empty."),
    ("admin.socket", "", "Unix socket of the admin API."),
    ("admin.tls", "false", "TLS of the admin API."),
    ("admin.tls.certFile", "", "Its certificate (file or PEM)."),
    ("admin.tls.clientCAFiles", "", "Authorities of clients' certificates (files or PEM)."),
    ("admin.tls.keyFile", "", "The key of its certificate (file or PEM)."),
    ("admin.tokens[n].name", "", "Name of this token in the audit log."),
    ("admin.tokens[n].role", "", "What this token may do: write, or read, which is the default."),
    ("admin.tokens[n].tokenFile", "", "File that holds the token."),
    ("admin.tokens[n].tokenHash", "", "SHA-256 of the token in hexadecimal."),
    ("api", "false", "Serve API and dashboard."),
    ("api.basePath", "/", "Path that API and dashboard stand below."),
    ("api.dashboard", "true", "Serve the dashboard."),
    ("api.dashboardName", "", "Name that the dashboard shows."),
    ("api.debug", "false", "Not supported."),
    ("api.disableDashboardAd", "false", "No effect: the dashboard has no advertisement."),
    (
        "api.insecure",
        "false",
        "Serve API and dashboard at the entry point traefik, without authentication.",
    ),
    ("certificatesResolvers.<name>.acme", "false", "Get certificates from an ACME authority."),
    (
        "certificatesResolvers.<name>.acme.caCertificates",
        "",
        "Authorities that the directory's certificate may come from (files or PEM).",
    ),
    (
        "certificatesResolvers.<name>.acme.caServer",
        "https://acme-v02.api.letsencrypt.org/directory",
        "Directory of the authority.",
    ),
    (
        "certificatesResolvers.<name>.acme.caServerName",
        "",
        "Name that the directory's certificate must have.",
    ),
    (
        "certificatesResolvers.<name>.acme.caSystemCertPool",
        "false",
        "Trust the system's authorities besides caCertificates.",
    ),
    (
        "certificatesResolvers.<name>.acme.certificatesDuration",
        "2160",
        "How long certificates live, in hours.",
    ),
    (
        "certificatesResolvers.<name>.acme.certificateTimeout",
        "30",
        "How long a certificate may take after its order is complete.",
    ),
    (
        "certificatesResolvers.<name>.acme.clientResponseHeaderTimeout",
        "30",
        "Limit for the head of the authority's answer.",
    ),
    (
        "certificatesResolvers.<name>.acme.clientTimeout",
        "120",
        "Limit for one request to the authority.",
    ),
    (
        "certificatesResolvers.<name>.acme.disableCommonName",
        "false",
        "Leave the common name out of requests.",
    ),
    ("certificatesResolvers.<name>.acme.dnsChallenge", "false", "Prove control by DNS-01."),
    (
        "certificatesResolvers.<name>.acme.dnsChallenge.delayBeforeCheck",
        "0",
        "Old name of propagation.delayBeforeChecks.",
    ),
    (
        "certificatesResolvers.<name>.acme.dnsChallenge.disablePropagationCheck",
        "false",
        "Old name of propagation.disableChecks.",
    ),
    (
        "certificatesResolvers.<name>.acme.dnsChallenge.propagation",
        "false",
        "How the record is waited for.",
    ),
    (
        "certificatesResolvers.<name>.acme.dnsChallenge.propagation.delayBeforeChecks",
        "0",
        "Wait this long before the first check.",
    ),
    (
        "certificatesResolvers.<name>.acme.dnsChallenge.propagation.disableANSChecks",
        "false",
        "Do not ask the zone's own servers.",
    ),
    (
        "certificatesResolvers.<name>.acme.dnsChallenge.propagation.disableChecks",
        "false",
        "Only wait.",
    ),
    (
        "certificatesResolvers.<name>.acme.dnsChallenge.propagation.requireAllRNS",
        "false",
        "Ask every recursive resolver too.",
    ),
    ("certificatesResolvers.<name>.acme.dnsChallenge.provider", "", "Who serves the zone."),
    (
        "certificatesResolvers.<name>.acme.dnsChallenge.resolvers",
        "",
        "Resolvers that are asked, as host:port; the system's when empty.",
    ),
    (
        "certificatesResolvers.<name>.acme.eab",
        "false",
        "Bind the account to one that exists elsewhere.",
    ),
    (
        "certificatesResolvers.<name>.acme.eab.hmacEncoded",
        "",
        "Key of the external account, in base64 for URLs.",
    ),
    ("certificatesResolvers.<name>.acme.eab.kid", "", "Key identifier of the external account."),
    ("certificatesResolvers.<name>.acme.email", "", "Address of the account's owner."),
    ("certificatesResolvers.<name>.acme.emailAddresses", "", "Addresses that certificates carry."),
    ("certificatesResolvers.<name>.acme.httpChallenge", "false", "Prove control by HTTP-01."),
    (
        "certificatesResolvers.<name>.acme.httpChallenge.delay",
        "0",
        "Wait this long before the authority is told to look.",
    ),
    (
        "certificatesResolvers.<name>.acme.httpChallenge.entryPoint",
        "",
        "Entry point that the authority reaches at port 80.",
    ),
    (
        "certificatesResolvers.<name>.acme.keyType",
        "RSA4096",
        "Key of certificates: EC256, EC384, RSA2048, RSA4096 or RSA8192.",
    ),
    (
        "certificatesResolvers.<name>.acme.preferredChain",
        "",
        "Issuer of the chain that is preferred.",
    ),
    ("certificatesResolvers.<name>.acme.profile", "", "ACME profile."),
    (
        "certificatesResolvers.<name>.acme.storage",
        "acme.json",
        "File that keeps accounts and certificates.",
    ),
    ("certificatesResolvers.<name>.acme.tlsChallenge", "false", "Prove control by TLS-ALPN-01."),
    (
        "certificatesResolvers.<name>.acme.tlsChallenge.delay",
        "0",
        "Wait this long before the authority is told to look.",
    ),
    (
        "configFile",
        "",
        "File to read instead of those in the usual places; flags and environment are then ignored.",
    ),
    (
        "core.aliasHeaders",
        "",
        "underscoreHeadersStrategy means all punctuation, not only underscores; on under hardened.",
    ),
    ("core.defaultRuleSyntax", "", "Syntax of rules that do not say theirs: v3 or v2."),
    (
        "core.onBrokenRouter",
        "",
        "What a router with a wrong configuration does: 503, lastGood or skip; 503, and skip under exact.",
    ),
    ("core.profile", "safe", "How far to differ from Traefik: exact, safe or hardened."),
    (
        "core.strictTLSOptions",
        "",
        "Refuse routers that want different TLS options for one host; off under exact.",
    ),
    ("core.workers", "", "Threads that serve requests; as many as there are cores."),
    ("entryPoints.<name>.address", "", "Address to listen at: [host]:port."),
    ("entryPoints.<name>.allowACMEByPass", "false", "Let routers of users answer ACME challenges."),
    ("entryPoints.<name>.asDefault", "false", "Take routers that name no entry point."),
    (
        "entryPoints.<name>.forwardedHeaders.connection",
        "",
        "Headers that reach middlewares although Connection names them.",
    ),
    (
        "entryPoints.<name>.forwardedHeaders.insecure",
        "false",
        "Believe anyone's X-Forwarded headers.",
    ),
    (
        "entryPoints.<name>.forwardedHeaders.notAppendXForwardedFor",
        "false",
        "Do not add the peer to X-Forwarded-For.",
    ),
    (
        "entryPoints.<name>.forwardedHeaders.trustedIPs",
        "",
        "Addresses and ranges whose X-Forwarded headers are believed.",
    ),
    (
        "entryPoints.<name>.http.encodedCharacters",
        "false",
        "Say which escaped characters a path may carry.",
    ),
    (
        "entryPoints.<name>.http.encodedCharacters.allowEncodedBackSlash",
        "true",
        "Let %5C pass; false under hardened.",
    ),
    (
        "entryPoints.<name>.http.encodedCharacters.allowEncodedHash",
        "true",
        "Let %23 pass; false under hardened.",
    ),
    (
        "entryPoints.<name>.http.encodedCharacters.allowEncodedNullCharacter",
        "true",
        "Let %00 pass; false under hardened.",
    ),
    (
        "entryPoints.<name>.http.encodedCharacters.allowEncodedPercent",
        "true",
        "Let %25 pass; false under hardened.",
    ),
    (
        "entryPoints.<name>.http.encodedCharacters.allowEncodedQuestionMark",
        "true",
        "Let %3F pass; false under hardened.",
    ),
    (
        "entryPoints.<name>.http.encodedCharacters.allowEncodedSemicolon",
        "true",
        "Let %3B pass; false under hardened.",
    ),
    (
        "entryPoints.<name>.http.encodedCharacters.allowEncodedSlash",
        "true",
        "Let %2F pass; false under hardened.",
    ),
    (
        "entryPoints.<name>.http.encodeQuerySemicolons",
        "false",
        "Forward semicolons in a query encoded, not as ampersands.",
    ),
    (
        "entryPoints.<name>.http.maxHeaderBytes",
        "1048576",
        "Most bytes of a request's head; 65536 under hardened.",
    ),
    (
        "entryPoints.<name>.http.maxHeaderFields",
        "1000",
        "Most header fields of a request, 16384 at most; 100 under hardened.",
    ),
    (
        "entryPoints.<name>.http.middlewares",
        "",
        "Middlewares in front of those of every router, as name@provider.",
    ),
    ("entryPoints.<name>.http.redirections", "false", "Send every request elsewhere."),
    (
        "entryPoints.<name>.http.redirections.entryPoint",
        "false",
        "Send every request to another entry point.",
    ),
    (
        "entryPoints.<name>.http.redirections.entryPoint.permanent",
        "true",
        "Redirect for good (301, 308).",
    ),
    (
        "entryPoints.<name>.http.redirections.entryPoint.priority",
        "9223372036854775806",
        "Priority of the router that redirects.",
    ),
    ("entryPoints.<name>.http.redirections.entryPoint.scheme", "https", "Scheme of the new URL."),
    (
        "entryPoints.<name>.http.redirections.entryPoint.to",
        "",
        "Entry point or :port to redirect to.",
    ),
    (
        "entryPoints.<name>.http.requestBody",
        "false",
        "How much clients may send to routers that do not say.",
    ),
    (
        "entryPoints.<name>.http.requestBody.maxBytes",
        "",
        "Longest request body, unless a router says otherwise; 0 is any.",
    ),
    (
        "entryPoints.<name>.http.requestId",
        "false",
        "Give every request a name, for servers, clients and the access log.",
    ),
    ("entryPoints.<name>.http.requestId.header", "X-Request-Id", "Header that has the name."),
    (
        "entryPoints.<name>.http.sanitizePath",
        "true",
        "Remove dot segments and doubled slashes from paths.",
    ),
    ("entryPoints.<name>.http.tls", "false", "TLS for every router that has no tls of its own."),
    ("entryPoints.<name>.http.tls.certResolver", "", "Certificates resolver of these routers."),
    ("entryPoints.<name>.http.tls.domains[n].main", "", "First name of a certificate."),
    ("entryPoints.<name>.http.tls.domains[n].sans", "", "Further names of a certificate."),
    ("entryPoints.<name>.http.tls.options", "", "TLS options of these routers."),
    (
        "entryPoints.<name>.http.underscoreHeadersStrategy",
        "keep",
        "Headers with underscores: keep, delete or reject; delete under hardened.",
    ),
    (
        "entryPoints.<name>.http2.maxConcurrentStreams",
        "250",
        "Streams that one connection may have open; 0 is the default.",
    ),
    (
        "entryPoints.<name>.http2.maxDecoderHeaderTableSize",
        "4096",
        "Bytes of the table that request headers are read with; 0 is the default.",
    ),
    (
        "entryPoints.<name>.http2.maxEncoderHeaderTableSize",
        "4096",
        "Bytes of the table that answers are written with; only the default is supported.",
    ),
    (
        "entryPoints.<name>.observability.accessLogs",
        "true",
        "Write access log lines, unless a router says otherwise.",
    ),
    (
        "entryPoints.<name>.observability.metrics",
        "true",
        "Count in metrics, unless a router says otherwise.",
    ),
    (
        "entryPoints.<name>.observability.traceVerbosity",
        "minimal",
        "Detail of traces: minimal or detailed.",
    ),
    ("entryPoints.<name>.observability.tracing", "true", "Make spans; there is no tracing yet."),
    ("entryPoints.<name>.proxyProtocol", "false", "Speak the PROXY protocol."),
    ("entryPoints.<name>.proxyProtocol.insecure", "false", "Believe anyone's PROXY header."),
    (
        "entryPoints.<name>.proxyProtocol.trustedIPs",
        "",
        "Addresses and ranges whose PROXY header is believed.",
    ),
    ("entryPoints.<name>.reusePort", "false", "Let several processes listen at the address."),
    (
        "entryPoints.<name>.transport.keepAliveMaxRequests",
        "0",
        "Requests after which a connection is closed; 0 is never.",
    ),
    (
        "entryPoints.<name>.transport.keepAliveMaxTime",
        "0",
        "Age at which a connection is closed; 0 is never.",
    ),
    (
        "entryPoints.<name>.transport.lifeCycle.graceTimeOut",
        "10",
        "How long running requests may take when the process stops.",
    ),
    (
        "entryPoints.<name>.transport.lifeCycle.requestAcceptGraceTimeout",
        "0",
        "How long new requests are still taken before that.",
    ),
    (
        "entryPoints.<name>.transport.respondingTimeouts.idleTimeout",
        "180",
        "Limit for an idle connection.",
    ),
    (
        "entryPoints.<name>.transport.respondingTimeouts.readTimeout",
        "",
        "Limit for a whole request with its body; 0 is none. Unset: 60 for a head, and for each pause inside a body.",
    ),
    (
        "entryPoints.<name>.transport.respondingTimeouts.writeTimeout",
        "0",
        "Limit for an answer; 0 is none.",
    ),
    ("entryPoints.<name>.udp.timeout", "3", "No effect at TCP entry points."),
    ("experimental.abortOnPluginFailure", "false", "No effect: there are no plugins."),
    ("experimental.fastProxy", "false", "No effect."),
    ("experimental.fastProxy.debug", "false", "No effect."),
    ("experimental.kubernetesGateway", "false", "No effect, deprecated."),
    ("experimental.kubernetesIngressNGINX", "false", "No effect, deprecated."),
    ("global.checkNewVersion", "true", "No effect: nothing calls home."),
    (
        "global.notAppendXForwardedFor",
        "false",
        "Do not append the peer to X-Forwarded-For, anywhere.",
    ),
    ("global.sendAnonymousUsage", "false", "No effect: nothing calls home."),
    ("hostResolver", "false", "What hosts are aliases of, for rules to compare too."),
    ("hostResolver.cnameFlattening", "false", "Compare the name that the host is an alias of too."),
    ("hostResolver.resolvConfig", "/etc/resolv.conf", "File that names the DNS servers."),
    ("hostResolver.resolvDepth", "5", "How many aliases are followed, at most 16."),
    (
        "limits.answer.stall",
        "",
        "How long a client may take less than 64 KiB of its answer. 45s if hardened, else none.",
    ),
    (
        "limits.connections.perAddress",
        "",
        "Open connections of one client address. 1000 at most if hardened, else any number.",
    ),
    (
        "limits.connections.total",
        "",
        "Open connections of all clients. Half of the descriptors; any number if exact.",
    ),
    ("limits.handshakes.perWorker", "", "Hellos that a worker answers in one turn. 4."),
    (
        "limits.http2.frames",
        "",
        "Frames without use that a connection may send at once. 10000; any number if exact.",
    ),
    ("limits.http2.framesPerSecond", "", "How many of them a second adds again. 1000."),
    (
        "limits.http2.resets",
        "",
        "Streams that a connection may reset at once. 500; any number if exact.",
    ),
    ("limits.http2.resetsPerSecond", "", "How many of them a second adds again. 50."),
    (
        "limits.overload.enabled",
        "",
        "Give things up before memory or descriptors run out; on, but for the profile exact.",
    ),
    ("limits.overload.interval", "100ms", "How often memory and the like are looked at."),
    ("limits.overload.maxMemory", "0", "Most memory in bytes; 0 is what the cgroup allows."),
    (
        "limits.overload.refuseRequests",
        "0.95",
        "Share from which new requests are answered with 503.",
    ),
    (
        "limits.overload.resetHeaviest",
        "0.98",
        "Share from which the heaviest streams, connections and tunnels are ended.",
    ),
    ("limits.overload.stopKeepAlive", "0.92", "Share from which connections that rest are closed."),
    ("limits.requestBody.grace", "", "How long a body may be slow at its beginning. 30s."),
    (
        "limits.requestBody.minRate",
        "",
        "Bytes per second that clients must send of bodies. 240 if hardened, else none.",
    ),
    (
        "limits.requestHead.timeout",
        "",
        "For the head of a request, and for a silent client. 10s if hardened, else readTimeout.",
    ),
    ("log", "false", "Options of the log."),
    ("log.compress", "false", "No effect."),
    ("log.filePath", "", "File of the log; standard output when empty."),
    ("log.format", "common", "Format: common or json."),
    (
        "log.level",
        "ERROR",
        "Least severe level that is written: TRACE, DEBUG, INFO, WARN or ERROR.",
    ),
    ("log.maxAge", "0", "Days to keep rotated files; 0 is for ever."),
    ("log.maxBackups", "0", "How many rotated files to keep; 0 is all."),
    ("log.maxSize", "0", "Megabytes in one file; 0 is 100."),
    ("log.noColor", "false", "No colours, not even on a terminal."),
    ("metrics", "false", "Count."),
    ("metrics.addInternals", "false", "Count requests for internal services too."),
    ("metrics.prometheus", "false", "Serve metrics for Prometheus."),
    ("metrics.prometheus.addEntryPointsLabels", "true", "Count by entry point."),
    ("metrics.prometheus.addRoutersLabels", "false", "Count by router."),
    ("metrics.prometheus.addServicesLabels", "true", "Count by service."),
    (
        "metrics.prometheus.buckets",
        "0.1, 0.3, 1.2, 5",
        "Upper bounds of the duration histograms, in seconds.",
    ),
    ("metrics.prometheus.entryPoint", "traefik", "Entry point that serves /metrics."),
    (
        "metrics.prometheus.headerLabels.<name>",
        "",
        "Label and the request header that it is taken from.",
    ),
    (
        "metrics.prometheus.manualRouting",
        "false",
        "Serve /metrics only where a router names prometheus@internal.",
    ),
    ("ping", "false", "Serve /ping."),
    ("ping.entryPoint", "traefik", "Entry point that serves /ping."),
    ("ping.manualRouting", "false", "Serve /ping only where a router names ping@internal."),
    ("ping.terminatingStatusCode", "503", "Answer while the process stops."),
    ("providers.file", "false", "Read dynamic configuration from files."),
    ("providers.file.debugLogGeneratedTemplate", "false", "Write what templates made to the log."),
    ("providers.file.directory", "", "Directory whose files are read."),
    ("providers.file.filename", "", "File that is read."),
    ("providers.file.watch", "true", "Take over changes."),
    (
        "providers.precedence",
        "kubernetesgateway, kubernetescrd, kubernetes, kubernetesingressnginx, swarm, docker, file, redis, knative, consul, consulcatalog, nomad, etcd, ecs, http, zookeeper, rest",
        "Whose router wins when rule and priority are the same.",
    ),
    (
        "providers.providersThrottleDuration",
        "2",
        "How long changes are collected before they are taken over.",
    ),
    ("serversTransport.forwardingTimeouts.dialTimeout", "30", "Limit for connecting to a server."),
    (
        "serversTransport.forwardingTimeouts.idleConnTimeout",
        "90",
        "Limit for an idle connection to a server.",
    ),
    (
        "serversTransport.forwardingTimeouts.responseHeaderTimeout",
        "0",
        "Limit for the head of a server's answer; 0 is none.",
    ),
    ("serversTransport.insecureSkipVerify", "false", "Accept any certificate of a server."),
    ("serversTransport.maxIdleConnsPerHost", "200", "Idle connections kept per server."),
    ("serversTransport.rootCAs", "", "Authorities in place of the system's (files or PEM)."),
];

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::collections::BTreeSet;

    use serde::de::value::{Error, StrDeserializer};
    use serde::de::{
        Deserialize, DeserializeSeed, Deserializer, Error as _, IntoDeserializer, MapAccess,
        SeqAccess, Visitor,
    };

    use super::*;
    use crate::config::static_config::StaticConfig;
    use crate::config::tree::{decode, flag_kind, from_flags};
    use crate::values::Profile;

    /// What the type at the end of a path is.
    #[derive(Clone, Copy)]
    enum Shape {
        Leaf,
        Names,
        List,
        Section(&'static [&'static str], bool),
        Ignored,
    }

    /// Walks down one path of the type, as flags do, and notes what is there.
    #[derive(Clone, Copy)]
    struct Walk<'a> {
        steps: &'a [String],
        found: &'a Cell<Shape>,
        optional: bool,
    }

    impl Walk<'_> {
        fn end<T>(&self, shape: Shape) -> Result<T, Error> {
            self.found.set(shape);
            Err(Error::custom("the walk is over"))
        }

        fn one(self) -> One<Self> {
            let (_, steps) = self.steps.split_first().unwrap();
            One(Some(Self { steps, optional: false, ..self }))
        }
    }

    struct One<W>(Option<W>);

    impl<'de> SeqAccess<'de> for One<Walk<'_>> {
        type Error = Error;

        fn next_element_seed<T: DeserializeSeed<'de>>(
            &mut self,
            seed: T,
        ) -> Result<Option<T::Value>, Error> {
            self.0.take().map(|walk| seed.deserialize(walk)).transpose()
        }
    }

    struct Named<'a>(&'a str, Option<Walk<'a>>);

    impl<'de> MapAccess<'de> for Named<'_> {
        type Error = Error;

        fn next_key_seed<K: DeserializeSeed<'de>>(
            &mut self,
            seed: K,
        ) -> Result<Option<K::Value>, Error> {
            let name: StrDeserializer<'_, Error> = self.0.into_deserializer();
            seed.deserialize(name).map(Some)
        }

        fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
            seed.deserialize(self.1.take().unwrap())
        }
    }

    impl<'de> Deserializer<'de> for Walk<'_> {
        type Error = Error;

        fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Error> {
            self.end(Shape::Leaf)
        }

        fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            visitor.visit_some(Self { optional: true, ..self })
        }

        fn deserialize_ignored_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Error> {
            self.end(Shape::Ignored)
        }

        fn deserialize_newtype_struct<V: Visitor<'de>>(
            self,
            _: &'static str,
            visitor: V,
        ) -> Result<V::Value, Error> {
            visitor.visit_newtype_struct(self)
        }

        fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            if self.steps.is_empty() {
                self.end(Shape::List)
            } else {
                visitor.visit_seq(self.one())
            }
        }

        fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            match self.steps.first() {
                None => self.end(Shape::Names),
                Some(name) => visitor.visit_map(Named(name, self.one().0)),
            }
        }

        fn deserialize_struct<V: Visitor<'de>>(
            self,
            _: &'static str,
            fields: &'static [&'static str],
            visitor: V,
        ) -> Result<V::Value, Error> {
            match self.steps.first() {
                None => self.end(Shape::Section(fields, self.optional)),
                Some(name) => visitor.visit_map(Named(name, self.one().0)),
            }
        }

        serde::forward_to_deserialize_any! {
            bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf
            unit unit_struct tuple tuple_struct enum identifier
        }
    }

    fn shape(steps: &[String]) -> Shape {
        let found = Cell::new(Shape::Ignored);
        let walk = Walk { steps, found: &found, optional: false };
        assert!(StaticConfig::deserialize(walk).is_err());
        found.get()
    }

    fn collect(steps: &mut Vec<String>, flags: &mut BTreeSet<String>) {
        let name = |steps: &[String]| steps.join(".").replace(".[n]", "[n]");
        let mut below = |step: &str, steps: &mut Vec<String>| {
            steps.push(step.to_owned());
            collect(steps, flags);
            steps.pop();
        };
        match shape(steps) {
            Shape::Ignored => {}
            Shape::Names => below("<name>", steps),
            Shape::List => {
                steps.push("[n]".to_owned());
                let sections = matches!(shape(steps), Shape::Section(..));
                steps.pop();
                if sections {
                    below("[n]", steps);
                } else {
                    flags.insert(name(steps));
                }
            }
            Shape::Leaf => {
                flags.insert(name(steps));
            }
            Shape::Section(fields, optional) => {
                for field in fields {
                    below(field, steps);
                }
                if optional {
                    flags.insert(name(steps));
                }
            }
        }
    }

    #[test]
    fn the_table_has_every_option_and_no_other() {
        let mut flags = BTreeSet::from(["configFile".to_owned()]);
        collect(&mut Vec::new(), &mut flags);
        let table: BTreeSet<String> = FLAGS.iter().map(|(name, ..)| (*name).to_owned()).collect();
        let missing: Vec<_> = flags.difference(&table).collect();
        let surplus: Vec<_> = table.difference(&flags).collect();
        assert!(
            missing.is_empty() && surplus.is_empty(),
            "missing {missing:?}, surplus {surplus:?}"
        );
        assert_eq!(table.len(), FLAGS.len());
        assert!(FLAGS.is_sorted_by_key(|(name, ..)| name.to_lowercase()));
    }

    fn read(flags: &[String], profile: Profile) -> StaticConfig {
        let node = from_flags(flags, &flag_kind::<StaticConfig>).unwrap();
        let mut config: StaticConfig = decode(&node).unwrap();
        config.core.profile = profile;
        config.complete();
        config
    }

    #[test]
    fn every_default_is_the_one_that_is_used() {
        let concrete =
            |name: &str| format!("--{}", name.replace("<name>", "x").replace("[n]", "[0]"));
        // A section that is switched on by itself has the defaults of all its options.
        let sections: Vec<String> = FLAGS
            .iter()
            .filter(|(name, default, _)| {
                *default == "false"
                    && FLAGS.iter().any(|(other, ..)| other.starts_with(&format!("{name}.")))
            })
            .map(|(name, ..)| concrete(name))
            .chain(["--entrypoints.x.address=:1".to_owned()])
            .collect();
        let all: Vec<String> = sections.iter().cloned().chain(FIXED.map(str::to_owned)).collect();
        let unchanged = read(&all, Profile::Safe);
        for (name, default, _) in FLAGS {
            let flag = concrete(name);
            if default.is_empty() || sections.contains(&flag) {
                continue;
            }
            let mut flags = all.clone();
            flags.push(format!("{flag}={default}"));
            assert_eq!(read(&flags, Profile::Safe), unchanged, "{flag}={default}");
        }
    }

    /// Written out, so that setting one of them does not look like the section's first use.
    const FIXED: [&str; 7] = [
        "--entrypoints.x.http.encodedcharacters.allowencodedslash=true",
        "--entrypoints.x.http.encodedcharacters.allowencodedbackslash=true",
        "--entrypoints.x.http.encodedcharacters.allowencodednullcharacter=true",
        "--entrypoints.x.http.encodedcharacters.allowencodedsemicolon=true",
        "--entrypoints.x.http.encodedcharacters.allowencodedpercent=true",
        "--entrypoints.x.http.encodedcharacters.allowencodedquestionmark=true",
        "--entrypoints.x.http.encodedcharacters.allowencodedhash=true",
    ];

    #[test]
    fn help_looks_like_traefiks() {
        let help = print_help();
        assert!(help.contains(
            "\n    --entrypoints.<name>.http.sanitizepath  (Default: \"true\")\n        Remove"
        ));
        assert!(help.contains("\n    --entrypoints.<name>.http.tls.domains[n].main\n"));
    }
}
