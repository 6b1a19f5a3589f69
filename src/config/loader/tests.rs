//! Which source counts, and what each of them may say.

use std::collections::BTreeMap;
use std::io;

use super::*;
use crate::config::static_config::{OnBrokenRouter, PRECEDENCE};
use crate::values::{GoDuration, Profile};

#[derive(Default)]
struct Shelf(BTreeMap<PathBuf, Vec<u8>>);

impl Shelf {
    fn with(mut self, path: &str, text: impl AsRef<[u8]>) -> Self {
        self.0.insert(PathBuf::from(path), text.as_ref().to_vec());
        self
    }
}

impl Files for Shelf {
    fn read(&self, path: &Path) -> io::Result<Arc<[u8]>> {
        let found = self.0.get(path).ok_or(io::ErrorKind::NotFound)?;
        Ok(Arc::from(found.as_slice()))
    }

    fn exists(&self, path: &Path) -> bool {
        self.0.contains_key(path)
    }
}

fn try_load(
    arguments: &[&str],
    variables: &[(&str, &str)],
    files: &Shelf,
) -> Result<Loaded, Vec<String>> {
    let arguments: Vec<_> = arguments.iter().map(|text| (*text).to_owned()).collect();
    let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    let variables: Vec<_> = variables.iter().map(owned).collect();
    load(&arguments, &variables, files)
        .map_err(|errors| errors.iter().map(Diagnostic::one_line).collect())
}

fn flags(arguments: &[&str]) -> Result<Loaded, Vec<String>> {
    try_load(arguments, &[], &Shelf::default())
}

fn file(name: &str, text: &str) -> Result<Loaded, Vec<String>> {
    try_load(&["--configFile", name], &[], &Shelf::default().with(name, text))
}

fn yaml(text: &str) -> Result<Loaded, Vec<String>> {
    file("f.yml", text)
}

fn warnings(loaded: &Loaded) -> Vec<String> {
    loaded.warnings.iter().map(Diagnostic::one_line).collect()
}

fn level(loaded: &Loaded) -> &str {
    loaded.config.log.as_ref().map_or("", |log| &log.level)
}

const LOG: &str = "log: {level: WARN}\n";

#[test]
fn without_anything_there_is_http_at_80() {
    let loaded = flags(&[]).unwrap();
    assert_eq!(loaded.origin, Origin::Defaults);
    assert_eq!(loaded.config.entry_points["http"].address, ":80");
    assert_eq!(loaded.config.entry_points.len(), 1);
    assert!(loaded.warnings.is_empty());
}

#[test]
fn a_file_counts_before_flags_and_flags_before_the_environment() {
    let variables = [("TRAEFIK_LOG_LEVEL", "INFO")];
    let shelf = Shelf::default().with("./traefik.yml", LOG);
    let loaded = try_load(&["--log.level=DEBUG"], &variables, &shelf).unwrap();
    assert_eq!(loaded.origin, Origin::File(PathBuf::from("./traefik.yml")));
    assert_eq!(level(&loaded), "WARN");
    assert_eq!(
        warnings(&loaded),
        [
            "warning: flags and environment variables are ignored, because the file `./traefik.yml` is there"
        ]
    );
    let loaded = try_load(&["--log.level=DEBUG"], &variables, &Shelf::default()).unwrap();
    assert_eq!((loaded.origin.clone(), level(&loaded)), (Origin::Flags, "DEBUG"));
    let loaded = try_load(&[], &variables, &Shelf::default()).unwrap();
    assert_eq!((loaded.origin.clone(), level(&loaded)), (Origin::Environment, "INFO"));
}

#[test]
fn any_argument_makes_the_flags_count() {
    let variables = [("TRAEFIK_LOG_LEVEL", "INFO")];
    for arguments in [["--configFile="], ["--"], ["word"]] {
        let loaded = try_load(&arguments, &variables, &Shelf::default()).unwrap();
        assert_eq!((loaded.origin.clone(), level(&loaded)), (Origin::Flags, ""), "{arguments:?}");
    }
}

#[test]
fn the_file_that_is_named_must_be_there() {
    let shelf =
        Shelf::default().with("/x/a.yaml", LOG).with("./doorward.yml", "log: {level: INFO}\n");
    for flag in ["--configFile=/x/a.yaml", "--configfile=/x/a.yaml", "-CONFIGFILE=/x/a.yaml"] {
        let loaded = try_load(&[flag], &[], &shelf).unwrap();
        assert_eq!(level(&loaded), "WARN");
        assert!(loaded.warnings.is_empty());
    }
    let errors = try_load(&["--log.level", "x", "--configFile=/y"], &[], &shelf).unwrap_err();
    assert_eq!(errors, ["flags:3:14: error: the configuration file `/y` does not exist"]);
    let loaded = try_load(&["--configFile=/x/a.yaml", "--api"], &[], &shelf).unwrap();
    assert!(warnings(&loaded)[0].contains("flags are ignored"));
}

#[test]
fn places_are_searched_in_order() {
    let variables = [
        ("XDG_CONFIG_HOME".to_owned(), "/xdg".to_owned()),
        ("HOME".to_owned(), "/home/me".to_owned()),
    ];
    let paths: Vec<_> = search_paths(&variables).iter().map(|p| p.display().to_string()).collect();
    assert_eq!(paths.len(), 24);
    let bases: Vec<_> = paths.iter().step_by(3).map(String::as_str).collect();
    assert_eq!(
        bases,
        [
            "/etc/doorward/doorward.toml",
            "/xdg/doorward.toml",
            "/home/me/.config/doorward.toml",
            "./doorward.toml",
            "/etc/traefik/traefik.toml",
            "/xdg/traefik.toml",
            "/home/me/.config/traefik.toml",
            "./traefik.toml",
        ]
    );
    assert_eq!(paths[1..3], ["/etc/doorward/doorward.yaml", "/etc/doorward/doorward.yml"]);
    assert_eq!(search_paths(&[]).len(), 12);

    let shelf = Shelf::default()
        .with("/etc/traefik/traefik.toml", "[log]\nlevel = 'INFO'\n")
        .with("./doorward.yml", "log: {level: DEBUG}\n")
        .with("./doorward.yaml", LOG);
    assert_eq!(level(&try_load(&[], &[], &shelf).unwrap()), "WARN");
}

#[test]
fn files_of_four_kinds_are_read_and_no_others() {
    assert_eq!(level(&file("a.json", r#"{"log": {"level": "WARN"}}"#).unwrap()), "WARN");
    assert_eq!(level(&file("a.toml", "[log]\nlevel = \"WARN\"\n").unwrap()), "WARN");
    assert_eq!(level(&file("a.yaml", LOG).unwrap()), "WARN");
    let errors = file("a.conf", LOG).unwrap_err();
    assert!(errors[0].contains("unsupported file extension: `a.conf`"), "{errors:?}");
    let shelf = Shelf::default().with("a.yml", [0xff, 0xfe]);
    assert!(try_load(&["--configfile=a.yml"], &[], &shelf).unwrap_err()[0].contains("not UTF-8"));
    assert!(yaml("log: {level: '{{ env \"X\" }}'}\n").is_ok(), "no templates in static files");
}

#[test]
fn names_match_in_any_case() {
    let loaded = yaml("ENTRYPOINTS:\n  Web:\n    ADDRESS: :80\n    asdefault: true\n").unwrap();
    assert!(loaded.config.entry_points["Web"].as_default);
    let loaded = flags(&["--EntryPoints.Web.address=:80"]).unwrap();
    assert_eq!(loaded.config.entry_points["Web"].address, ":80");
}

#[test]
fn unknown_sections_of_files_are_ignored_and_unknown_options_are_not() {
    let loaded =
        yaml("log: {}\nentryPoint: {a: 1}\nx-anchors: {b: 2}\nhttp: {}\nother: 1\n").unwrap();
    assert_eq!(
        warnings(&loaded),
        [
            "f.yml:2:1: warning: the unknown section `entryPoint` is ignored (did you mean `entryPoints`?)",
            "f.yml:5:1: warning: the unknown section `other` is ignored",
        ]
    );
    let errors = yaml("log:\n  levle: INFO\napi:\n  dashbord: true\n").unwrap_err();
    assert_eq!(
        errors,
        [
            "f.yml:2:3: error: unknown option `levle` in `log` (did you mean `level`?)",
            "f.yml:4:3: error: unknown option `dashbord` in `api` (did you mean `dashboard`?)",
        ]
    );
}

#[test]
fn unknown_sections_of_a_file_that_is_dynamic_too_are_left_to_its_other_reader() {
    let unknown = |provider: &str| {
        let text = format!("log: {{}}\nhttp: {{}}\nother: 1\nproviders: {{file: {provider}}}\n");
        let said = warnings(&yaml(&text).unwrap());
        said.iter().filter(|one| one.contains("`other`")).count()
    };
    assert_eq!(unknown("{filename: f.yml}"), 0);
    assert_eq!(unknown("{filename: g.yml}"), 1);
    let here = std::env::current_dir().unwrap();
    assert_eq!(unknown(&format!("{{filename: g.yml, directory: '{}'}}", here.display())), 1);
}

#[test]
fn unknown_flags_and_variables_are_errors() {
    let errors = flags(&["--entrypoint.web.address=:80", "--log.levle=x"]).unwrap_err();
    assert_eq!(
        errors,
        [
            "flags:1:3: error: unknown option `entrypoint` (did you mean `entryPoints`?)",
            "flags:2:7: error: unknown option `levle` in `log` (did you mean `level`?)",
        ]
    );
    let variables = [("TRAEFIK_LOG_LEVLE", "x"), ("TRAEFIK_API_SERVICE_HOST", "10.0.0.1")];
    let errors = try_load(&[], &variables, &Shelf::default()).unwrap_err();
    assert_eq!(errors.len(), 1);
    assert!(errors[0].contains("unknown option `levle` in `log`"), "{errors:?}");
}

#[test]
fn empty_files_are_errors() {
    for text in ["", "# nothing\n", "{}\n"] {
        assert_eq!(yaml(text).unwrap_err(), ["error: no configuration found in file: f.yml"]);
    }
    let errors = yaml("other: 1\n").unwrap_err();
    assert_eq!(errors[0], "error: no valid configuration found in file: f.yml");
    let errors = yaml("http: {}\n").unwrap_err();
    assert!(errors[0].contains("this is dynamic configuration"), "{errors:?}");
    assert!(yaml("- a\n").is_err());
}

#[test]
fn sections_are_switched_on_by_themselves_or_by_an_option() {
    let loaded =
        flags(&["--api", "--ping=true", "--metrics.prometheus", "--accesslog=false"]).unwrap();
    assert!(loaded.config.api.as_ref().unwrap().dashboard);
    assert!(loaded.config.ping.is_some() && loaded.config.access_log.is_none());
    assert!(loaded.config.metrics.as_ref().unwrap().prometheus.is_some());
    assert_eq!(loaded.config.entry_points["traefik"].address, ":8080");
    let loaded = flags(&["--api.insecure"]).unwrap();
    assert!(loaded.config.api.as_ref().unwrap().dashboard);
    let loaded = flags(&["--entryPoints.web.http.tls", "--entryPoints.web.address=:1"]).unwrap();
    assert!(loaded.config.entry_points["web"].http.tls.is_some());
    for flag in ["--entryPoints", "--providers", "--entryPoints.web", "--core=true"] {
        assert!(flags(&[flag, "--log"]).is_err(), "{flag}");
    }
}

#[test]
fn flags_take_values_as_traefik_does() {
    let loaded = flags(&[
        "-log.level",
        "INFO",
        "--entryPoints.web.address=:80",
        "--entryPoints.web.asDefault",
        "--entryPoints.web.forwardedHeaders.trustedIPs=10.0.0.0/8,127.0.0.1",
        "--entryPoints.web.forwardedHeaders.trustedIPs=::1",
        "--entryPoints.web.http.tls.domains[0].main=a.b",
        "--entryPoints.web.http.tls.domains[0].sans=c.d,e.f",
        "--entryPoints.web.transport.respondingTimeouts.readTimeout=5",
        "--entryPoints.web.transport.respondingTimeouts.idleTimeout=1m30s",
        "--log.level=DEBUG",
        "--",
        "--api",
    ])
    .unwrap();
    assert_eq!(level(&loaded), "DEBUG");
    let web = &loaded.config.entry_points["web"];
    assert!(web.as_default);
    assert_eq!(web.forwarded_headers.trusted_ips, ["10.0.0.0/8", "127.0.0.1", "::1"]);
    let domain = &web.http.tls.as_ref().unwrap().domains[0];
    assert_eq!((domain.main.as_str(), domain.sans.len()), ("a.b", 2));
    let timeouts = &web.transport.responding_timeouts;
    assert_eq!(timeouts.read_timeout, Some(GoDuration::from_secs(5)));
    assert_eq!(timeouts.idle_timeout, GoDuration::from_secs(90));
    assert!(loaded.config.api.is_none(), "nothing is read after two dashes");
}

/// CLI-36
#[test]
fn a_text_is_cut_at_its_commas_where_a_list_is_expected() {
    let text =
        "entryPoints:\n  web:\n    address: :80\n    http:\n      middlewares: a@file, b@file\n";
    let loaded = yaml(text).unwrap();
    assert_eq!(loaded.config.entry_points["web"].http.middlewares, ["a@file", "b@file"]);
    let text = "[entryPoints.web]\naddress = ':80'\n[metrics.prometheus]\nbuckets = '0.1,2'\n";
    let loaded = file("f.toml", text).unwrap();
    let metrics = loaded.config.metrics.unwrap();
    assert_eq!(metrics.prometheus.unwrap().buckets, [0.1, 2.0]);
}

/// CLI-50 to CLI-56: what cannot be decoded hides nothing of what is wrong besides, and is said once.
#[test]
fn values_are_checked_beside_what_cannot_be_decoded() {
    let errors = yaml(
        "entryPoints:\n  web: {address: [80], asDefault: perhaps}\n  other: {address: nowhere}\n  third: 5\n\
         ping: {entryPoint: third}\napi: {basePath: no slash}\ncore: {defaultRuleSyntax: v4}\nbogus: 1\n",
    )
    .unwrap_err();
    for (line, says) in [
        (2, "`entryPoints.web.address`: expected a text"),
        (2, "`entryPoints.web.asDefault`: expected true or false"),
        (3, "invalid address `nowhere`"),
        (4, "`entryPoints.third`"),
        (6, "basePath"),
        (7, "unsupported default rule syntax configuration: `v4`"),
    ] {
        let place = format!("f.yml:{line}:");
        let found = errors.iter().filter(|error| error.starts_with(&place) && error.contains(says));
        assert_eq!(found.count(), 1, "{says}: {errors:#?}");
    }
    let wrong = errors.iter().filter(|error| error.contains(": error: "));
    assert_eq!(wrong.count(), 6, "{errors:#?}");
}

#[test]
fn what_is_not_supported_is_listed_beside_what_is_wrong() {
    let errors = yaml(
        "entryPoints:\n  web:\n    address: :80\n    http3: {}\n    bad: 1\n  dns:\n    address: :53/udp\ntracing: {}\n\
         providers:\n  docker: {}\npilot: {}\nping: {port: 1}\n",
    )
    .unwrap_err();
    let at: Vec<_> = errors.iter().map(|line| line.split(": ").next().unwrap()).collect();
    assert_eq!(
        at,
        [
            "f.yml:4:5",
            "f.yml:5:5",
            "f.yml:7:14",
            "f.yml:8:1",
            "f.yml:10:3",
            "f.yml:11:1",
            "f.yml:12:8"
        ]
    );
    assert!(errors[5].contains(not_supported::DEPRECATED));
    let errors = flags(&["--tracing.otlp=true", "--providers.docker", "--api"]).unwrap_err();
    assert_eq!(errors.len(), 2, "{errors:?}");
    assert!(errors[1].contains("`providers.docker` is not supported yet"));
    let errors = yaml("entryPoints:\n  dns:\n    address: :53/udp\nocsp: {}\n").unwrap_err();
    assert_eq!(errors.len(), 2, "{errors:?}");
}

#[test]
fn options_without_effect_only_warn() {
    let loaded = yaml(
        "global: {checkNewVersion: true, sendAnonymousUsage: true}\nexperimental: {fastProxy: {}}\n\
         core: {defaultRuleSyntax: v3}\n",
    )
    .unwrap();
    let warnings = warnings(&loaded);
    assert_eq!(warnings.len(), 4, "{warnings:?}");
    assert!(warnings.iter().any(|line| line.contains("`global.checkNewVersion` has no effect")));
    assert!(warnings.iter().any(|line| line.contains("`global.sendAnonymousUsage` has no effect")));
    assert!(warnings.iter().any(|line| line.contains("experimental.fastProxy")));
    assert!(warnings.iter().any(|line| line.contains("core.defaultRuleSyntax")));
}

#[test]
fn defaults_are_traefiks() {
    let config = yaml("entryPoints: {web: {address: ':80'}}\napi: {}\nping: {}\nproviders: {file: {filename: x.yml}}\n")
        .unwrap()
        .config;
    let web = &config.entry_points["web"];
    let seconds = GoDuration::from_secs;
    let timeouts = &web.transport.responding_timeouts;
    assert_eq!(
        (timeouts.read_timeout(), timeouts.write_timeout, timeouts.idle_timeout),
        (seconds(60), seconds(0), seconds(180))
    );
    assert_eq!(web.transport.life_cycle.grace_time_out, seconds(10));
    assert_eq!(web.transport.life_cycle.request_accept_grace_timeout, seconds(0));
    assert_eq!(
        (web.transport.keep_alive_max_requests, web.transport.keep_alive_max_time),
        (0, seconds(0))
    );
    assert!(web.http.sanitize_path && !web.http.encode_query_semicolons);
    assert_eq!((web.http.max_header_bytes(), web.http.max_header_fields()), (1 << 20, 1000));
    assert!(web.http.encoded_characters.is_none() && web.http.redirections.is_none());
    assert_eq!(web.http2.max_concurrent_streams, 250);
    assert!(!web.as_default && !web.reuse_port && !web.allow_acme_by_pass);
    assert_eq!(config.providers.providers_throttle_duration, seconds(2));
    assert_eq!(config.providers.precedence, PRECEDENCE);
    assert!(config.providers.file.as_ref().unwrap().watch);
    let ping = config.ping.as_ref().unwrap();
    assert_eq!((ping.entry_point.as_str(), ping.terminating_status_code), ("traefik", 503));
    let api = config.api.as_ref().unwrap();
    assert_eq!((api.base_path.as_str(), api.dashboard, api.insecure), ("/", true, false));
    assert_eq!(config.servers_transport.max_idle_conns_per_host, 200);
    assert!(config.log.is_none() && config.access_log.is_none() && config.metrics.is_none());
    assert_eq!(config.core.profile, Profile::Safe);
}

#[test]
fn our_own_options_are_read() {
    let config = yaml(
        "core:\n  profile: hardened\n  onBrokenRouter: 503\n  workers: 2\n  strictTLSOptions: false\n  aliasHeaders: false\n\
         entryPoints: {web: {address: ':80', http: {maxHeaderFields: 50}}}\n",
    )
    .unwrap()
    .config;
    let differences = config.core.differences();
    assert_eq!(differences.on_broken_router, OnBrokenRouter::Unavailable);
    assert!(!differences.strict_tls_options && !differences.alias_headers);
    assert_eq!(config.core.workers(), 2);
    let http = &config.entry_points["web"].http;
    assert_eq!((http.max_header_bytes(), http.max_header_fields()), (65_536, 50));
    assert!(yaml("core: {onBrokenRouter: never}\n").is_err());
    assert!(yaml("core: {profile: odd}\n").is_err());
}

/// One configuration in every way it can be written.
#[test]
fn every_source_gives_the_same_configuration() {
    let yaml = yaml(
        "core: {profile: exact, onBrokenRouter: lastGood}\nlog: {level: INFO}\napi: {insecure: true}\nping: {}\n\
         accessLog:\n  format: json\n  fields: {headers: {names: {user-agent: keep}}}\n\
         metrics: {prometheus: {buckets: [0.1, 2]}}\nserversTransport: {insecureSkipVerify: true}\n\
         providers: {providersThrottleDuration: 500ms, file: {directory: /d}}\n\
         entryPoints:\n  web:\n    address: :80\n    http:\n      redirections: {entryPoint: {to: tls, permanent: false}}\n  \
         tls:\n    address: :443\n    forwardedHeaders: {trustedIPs: [10.0.0.0/8, 127.0.0.1]}\n    http:\n      maxHeaderBytes: 4096\n      \
         tls:\n        certResolver: le\n        domains: [{main: a.b, sans: [c.d]}]\n\
         certificatesResolvers: {le: {acme: {email: a@b.c, eab: {kid: k, hmacEncoded: aGk}, httpChallenge: {entryPoint: web}}}}\n",
    )
    .unwrap();
    let json = file("f.json", &r#"{
        "core": {"profile": "exact", "onBrokenRouter": "lastGood"}, "log": {"level": "INFO"}, "api": {"insecure": true}, "ping": {},
        "accessLog": {"format": "json", "fields": {"headers": {"names": {"user-agent": "keep"}}}},
        "metrics": {"prometheus": {"buckets": [0.1, 2]}}, "serversTransport": {"insecureSkipVerify": true},
        "providers": {"providersThrottleDuration": "500ms", "file": {"directory": "/d"}},
        "entryPoints": {
          "web": {"address": ":80", "http": {"redirections": {"entryPoint": {"to": "tls", "permanent": false}}}},
          "tls": {"address": ":443", "forwardedHeaders": {"trustedIPs": ["10.0.0.0/8", "127.0.0.1"]},
            "http": {"maxHeaderBytes": 4096, "tls": {"certResolver": "le", "domains": [{"main": "a.b", "sans": ["c.d"]}]}}}},
        "certificatesResolvers": {"le": {"acme": {"email": "a@b.c", "eab": {"kid": "k", "hmacEncoded": "aGk"},
          "httpChallenge": {"entryPoint": "web"}}}}
    }"#.replace('\n', " "))
    .unwrap();
    let toml = file(
        "f.toml",
        "[core]\nprofile = 'exact'\nonBrokenRouter = 'lastGood'\n[log]\nlevel = 'INFO'\n[api]\ninsecure = true\n[ping]\n\
         [accessLog]\nformat = 'json'\n[accessLog.fields.headers.names]\nuser-agent = 'keep'\n\
         [metrics.prometheus]\nbuckets = [0.1, 2]\n[serversTransport]\ninsecureSkipVerify = true\n\
         [providers]\nprovidersThrottleDuration = '500ms'\n[providers.file]\ndirectory = '/d'\n\
         [entryPoints.web]\naddress = ':80'\n[entryPoints.web.http.redirections.entryPoint]\nto = 'tls'\npermanent = false\n\
         [entryPoints.tls]\naddress = ':443'\n[entryPoints.tls.forwardedHeaders]\ntrustedIPs = ['10.0.0.0/8', '127.0.0.1']\n\
         [entryPoints.tls.http]\nmaxHeaderBytes = 4096\n[entryPoints.tls.http.tls]\ncertResolver = 'le'\n\
         [[entryPoints.tls.http.tls.domains]]\nmain = 'a.b'\nsans = ['c.d']\n\
         [certificatesResolvers.le.acme]\nemail = 'a@b.c'\n[certificatesResolvers.le.acme.eab]\nkid = 'k'\nhmacEncoded = 'aGk'\n\
         [certificatesResolvers.le.acme.httpChallenge]\nentryPoint = 'web'\n",
    )
    .unwrap();
    let options = [
        ("core.profile", "exact"),
        ("core.onBrokenRouter", "lastGood"),
        ("log.level", "INFO"),
        ("api.insecure", "true"),
        ("ping", "true"),
        ("accessLog.format", "json"),
        ("accessLog.fields.headers.names.user-agent", "keep"),
        ("metrics.prometheus.buckets", "0.1,2"),
        ("serversTransport.insecureSkipVerify", "true"),
        ("providers.providersThrottleDuration", "500ms"),
        ("providers.file.directory", "/d"),
        ("entryPoints.web.address", ":80"),
        ("entryPoints.web.http.redirections.entryPoint.to", "tls"),
        ("entryPoints.web.http.redirections.entryPoint.permanent", "false"),
        ("entryPoints.tls.address", ":443"),
        ("entryPoints.tls.forwardedHeaders.trustedIPs", "10.0.0.0/8,127.0.0.1"),
        ("entryPoints.tls.http.maxHeaderBytes", "4096"),
        ("entryPoints.tls.http.tls.certResolver", "le"),
        ("entryPoints.tls.http.tls.domains[0].main", "a.b"),
        ("entryPoints.tls.http.tls.domains[0].sans", "c.d"),
        ("certificatesResolvers.le.acme.email", "a@b.c"),
        ("certificatesResolvers.le.acme.eab.kid", "k"),
        ("certificatesResolvers.le.acme.eab.hmacEncoded", "aGk"),
        ("certificatesResolvers.le.acme.httpChallenge.entryPoint", "web"),
    ];
    let arguments: Vec<_> =
        options.iter().map(|(name, value)| format!("--{name}={value}")).collect();
    let by_flags = flags(&arguments.iter().map(String::as_str).collect::<Vec<_>>()).unwrap();
    // One half under each prefix.
    let name = |at: usize, name: &str| {
        let path = name.replace(['.', '['], "_").replace(']', "").to_uppercase();
        format!("{}_{path}", if at.is_multiple_of(2) { "TRAEFIK" } else { "DOORWARD" })
    };
    let variables: Vec<_> =
        options.iter().enumerate().map(|(at, option)| (name(at, option.0), option.1)).collect();
    let variables: Vec<_> = variables.iter().map(|(name, value)| (name.as_str(), *value)).collect();
    let by_variables = try_load(&[], &variables, &Shelf::default()).unwrap();

    for (name, other) in
        [("json", json), ("toml", toml), ("flags", by_flags), ("env", by_variables)]
    {
        assert_eq!(other.config, yaml.config, "{name}");
        assert!(other.warnings.is_empty(), "{name}: {:?}", warnings(&other));
    }
    assert!(yaml.warnings.is_empty());
}

#[test]
fn secrets_are_in_no_dump_of_the_configuration() {
    let loaded = flags(&[
        "--certificatesresolvers.le.acme.eab.hmacencoded=hunter2",
        "--certificatesresolvers.le.acme.tlschallenge",
    ])
    .unwrap();
    let dump = serde_json::to_string(&loaded.config).unwrap();
    assert!(dump.contains("xxxx") && !dump.contains("hunter2"));
    assert!(!format!("{:?}", loaded.config).contains("hunter2"));
}
