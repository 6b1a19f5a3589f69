//! TLS: which certificate, which options, and that nobody gets around them (RP 10; T-01, T-62,
//! G-16, F-33, F-35).

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use serde_json::json;
use tokio::time::Instant;

use crate::harness::certs::{Ca, Pair, Tls};
use crate::harness::{Ask, Origin, Proxy, until};

/// Routers `name: host, tls section` in front of one server, and a `tls` section.
fn config(url: &str, routers: &[(&str, &str, &str)], tls: &str) -> String {
    let mut text = "http:\n  routers:\n".to_owned();
    for (name, host, section) in routers {
        let rule = format!("rule: Host(`{host}`)");
        let _ =
            writeln!(text, "    {name}:\n      {rule}\n      service: app\n      tls: {section}");
    }
    let server = format!("servers: [{{url: '{url}'}}]");
    text + &format!("  services:\n    app:\n      loadBalancer:\n        {server}\n{tls}")
}

/// One entry of `tls.certificates`.
fn entry(pair: &Pair, directory: &Path, name: &str) -> String {
    let (cert, key) = pair.write(directory, name);
    format!("    - {{certFile: {}, keyFile: {}}}\n", cert.display(), key.display())
}

/// G-19: the certificate, for every name.
#[test]
fn the_server_name_picks_the_certificate() {
    let (origin, ca) = (Origin::start(), Ca::new());
    let setup = Proxy::with(json!({}));
    let directory = setup.directory().to_owned();
    let (a, wild, spare) =
        (ca.issue(&["a.test"]), ca.issue(&["*.b.test"]), ca.issue(&["spare.test"]));
    let (cert, key) = spare.write(&directory, "spare");
    let tls = format!(
        "tls:\n  certificates:\n{}{}  stores:\n    default:\n      defaultCertificate: \
         {{certFile: {}, keyFile: {}}}\n",
        entry(&a, &directory, "a"),
        entry(&wild, &directory, "wild"),
        cert.display(),
        key.display()
    );
    let proxy = setup.start(&config(&origin.url(), &[("all", "a.test", "{}")], &tls));
    let at = proxy.address("websecure");
    for (name, wanted) in [
        (Some("a.test"), &a),
        (Some("A.Test"), &a),
        (Some("one.b.test"), &wild),
        (Some("b.test"), &spare),
        (Some("two.one.b.test"), &spare),
        (Some("unknown.test"), &spare),
        (None, &spare),
    ] {
        let secured = Tls::anyone().connect(at, name).unwrap();
        assert!(secured.certificate == wanted.der(), "{name:?}");
    }
    let mut secured = Tls::anyone().connect(at, Some("a.test")).unwrap();
    assert!(secured.is_believed(&ca, "a.test"));
    assert!(!secured.is_believed(&Ca::new(), "a.test"));
    assert_eq!(secured.client.send(&Ask::get("a.test/")).unwrap().status, 200);
    assert_eq!(origin.last().header("x-forwarded-proto"), Some("https"));
}

#[test]
fn without_certificates_there_is_a_generated_one() {
    let origin = Origin::start();
    let proxy = Proxy::start(&config(&origin.url(), &[("all", "a.test", "{}")], ""));
    let mut secured = Tls::anyone().connect(proxy.address("websecure"), Some("a.test")).unwrap();
    assert_eq!(secured.client.send(&Ask::get("a.test/")).unwrap().status, 200);
}

#[test]
fn sni_strict_refuses_names_without_a_certificate() {
    let (origin, ca) = (Origin::start(), Ca::new());
    let setup = Proxy::with(json!({}));
    let tls = format!(
        "tls:\n  certificates:\n{}  options:\n    default: {{sniStrict: true}}\n",
        entry(&ca.issue(&["a.test"]), setup.directory(), "a")
    );
    let proxy = setup.start(&config(&origin.url(), &[("all", "a.test", "{}")], &tls));
    let at = proxy.address("websecure");
    assert!(Tls::anyone().connect(at, Some("a.test")).is_ok());
    for name in [Some("b.test"), None] {
        assert!(Tls::anyone().connect(at, name).is_err(), "{name:?}");
    }
}

#[test]
fn both_sides_agree_on_a_protocol() {
    let origin = Origin::start();
    let proxy = Proxy::start(&config(&origin.url(), &[("all", "a.test", "{}")], ""));
    let at = proxy.address("websecure");
    for (offered, agreed) in [
        (&["h2", "http/1.1"][..], Some("h2")),
        (&["http/1.1"][..], Some("http/1.1")),
        (&[][..], None),
    ] {
        let secured = Tls::anyone().protocols(offered).connect(at, Some("a.test")).unwrap();
        assert_eq!(secured.protocol.as_deref(), agreed, "{offered:?}");
    }
}

#[test]
fn routers_of_tls_and_of_clear_text_keep_apart() {
    let origin = Origin::start();
    let text = config(&origin.url(), &[("secure", "a.test", "{}")], "").replace(
        "  services:\n",
        "    plain:\n      rule: Host(`b.test`)\n      service: app\n  services:\n",
    );
    let proxy = Proxy::start(&text);
    assert_eq!(proxy.get("a.test/").status, 404);
    assert_eq!(proxy.get("b.test/").status, 200);
    let at = proxy.address("websecure");
    for (host, status) in [("a.test", 200), ("b.test", 404)] {
        let mut secured = Tls::anyone().connect(at, Some(host)).unwrap();
        assert_eq!(secured.client.send(&Ask::get(host)).unwrap().status, status, "{host}");
    }
}

/// `a.test` wants client certificates, `b.test` does not.
fn mutual(origin: &Origin) -> (Proxy, Ca) {
    let ca = Ca::new();
    let setup = Proxy::with(json!({}));
    let authority = setup.directory().join("ca.pem");
    fs::write(&authority, ca.pem()).unwrap();
    let tls = format!(
        "tls:\n  options:\n    mtls:\n      clientAuth: {{caFiles: ['{}'], clientAuthType: \
         RequireAndVerifyClientCert}}\n",
        authority.display()
    );
    let routers = [("a", "a.test", "{options: mtls}"), ("b", "b.test", "{}")];
    (setup.start(&config(&origin.url(), &routers, &tls)), ca)
}

/// What a client without a certificate gets: a handshake in TLS 1.3 may only fail afterwards.
fn without_certificate(proxy: &Proxy, name: &str, host: &str) -> Option<u16> {
    let mut secured = Tls::anyone().connect(proxy.address("websecure"), Some(name)).ok()?;
    secured.client.send(&Ask::get(host)).ok().map(|answer| answer.status)
}

/// T-01, G-16
#[test]
fn client_certificates_cannot_be_avoided() {
    let origin = Origin::start();
    let (proxy, ca) = mutual(&origin);
    let at = proxy.address("websecure");
    let ours = ca.issue(&["client"]);
    let theirs = Ca::new().issue(&["client"]);

    let mut known = Tls::with_identity(&ours).connect(at, Some("a.test")).unwrap();
    assert_eq!(known.client.send(&Ask::get("a.test/")).unwrap().status, 200);
    let mut stranger = Tls::with_identity(&theirs).connect(at, Some("a.test"));
    let answered = stranger.as_mut().ok().map(|one| one.client.send(&Ask::get("a.test/")));
    assert!(answered.is_none_or(|answer| answer.is_err()));
    assert_eq!(without_certificate(&proxy, "b.test", "b.test/"), Some(200));

    let before = origin.count();
    for name in ["a.test", "A.TEST"] {
        for host in ["a.test/", "a.test./", "A.TEST/", "b.test/"] {
            assert_eq!(without_certificate(&proxy, name, host), None, "{name}, {host}");
        }
    }
    // The handshake of one host, the `Host` of another.
    for host in ["a.test/", "a.test./", "A.TEST/", "a.test:443/", "A.tEst.:443/"] {
        assert_eq!(without_certificate(&proxy, "b.test", host), Some(421), "{host}");
        assert_eq!(without_certificate(&proxy, "other.test", host), Some(421), "{host}");
    }
    assert_eq!(origin.count(), before);

    let mut secured = Tls::anyone().connect(at, Some("b.test")).unwrap();
    for (host, status) in [("b.test/", 200), ("a.test/", 421), ("b.test/", 200), ("a.test./", 421)]
    {
        let answer = secured.client.send(&Ask::get(host)).unwrap();
        assert_eq!(answer.status, status, "{host} on a connection that is kept");
        if status == 421 {
            assert_eq!(answer.text(), "Misdirected Request\n");
        }
    }
}

/// T-62 (CVE-2026-85597): Traefik serves both routers without client certificates.
#[test]
fn contradicting_options_close_the_host() {
    let origin = Origin::start();
    let ca = Ca::new();
    for (profile, status) in [("safe", 503), ("exact", 200)] {
        let setup = Proxy::with(json!({"core": {"profile": profile}}));
        let authority = setup.directory().join("ca.pem");
        fs::write(&authority, ca.pem()).unwrap();
        let tls = format!(
            "tls:\n  options:\n    mtls:\n      clientAuth: {{caFiles: ['{}']}}\n",
            authority.display()
        );
        let routers =
            [("a", "a.test", "{options: mtls}"), ("again", "a.test", "{}"), ("b", "b.test", "{}")];
        let proxy = setup.start(&config(&origin.url(), &routers, &tls));
        let got = without_certificate(&proxy, "a.test", "a.test/");
        assert_eq!(got, Some(status), "{profile}");
        assert_eq!(without_certificate(&proxy, "b.test", "b.test/"), Some(200), "{profile}");
        if profile == "safe" {
            for router in ["a@file", "again@file"] {
                let shown = proxy.api(&format!("/api/http/routers/{router}"));
                assert_eq!(shown["status"], "disabled", "{router}");
            }
        }
    }
}

/// Options are chosen by server name. A rule that names none cannot have any: where they demand certificates it is not
/// served, and where they do not it says that it goes without. No such router is the way around the options of a host
/// (T-46, CVE-2026-48491). Traefik serves all of it, with a warning.
#[test]
fn options_without_a_host_do_not_vanish() {
    let origin = Origin::start();
    let ca = Ca::new();
    let text = |authority: &Path| {
        format!(
            "
            http:
              routers:
                pattern: {{rule: HostRegexp(`^r\\.`), service: app, tls: {{options: mtls}}}}
                path: {{rule: Path(`/modern`), service: app, tls: {{options: modern}}}}
                wild: {{rule: Host(`*.w.test`), service: app, tls: {{options: mtls}}}}
                any: {{rule: HostRegexp(`\\.w\\.test$`) && Path(`/any`), priority: 9999, service: app, tls: {{}}}}
              services:
                app: {{loadBalancer: {{servers: [{{url: '{}'}}]}}}}
            tls:
              options:
                modern: {{minVersion: VersionTLS13}}
                mtls: {{clientAuth: {{caFiles: ['{}'], clientAuthType: RequireAndVerifyClientCert}}}}
            ",
            origin.url(),
            authority.display()
        )
    };
    for (profile, pattern, fronted) in [("safe", 503, 421), ("exact", 200, 200)] {
        let setup = Proxy::with(json!({"core": {"profile": profile}}));
        let authority = setup.directory().join("ca.pem");
        fs::write(&authority, ca.pem()).unwrap();
        let proxy = setup.start(&text(&authority));
        assert_eq!(without_certificate(&proxy, "r.test", "r.test/"), Some(pattern), "{profile}");
        let got = without_certificate(&proxy, "b.test", "x.w.test/any");
        assert_eq!(got, Some(fronted), "{profile}");
        assert_eq!(without_certificate(&proxy, "x.w.test", "x.w.test/any"), None, "{profile}");
        assert_eq!(without_certificate(&proxy, "b.test", "b.test/modern"), Some(200), "{profile}");
        let shown = proxy.api("/api/http/routers/path@file");
        assert_eq!(shown["status"], "warning", "{profile}: {shown}");
        let status = proxy.api("/api/http/routers/pattern@file")["status"].clone();
        assert_eq!(status, if profile == "safe" { "disabled" } else { "warning" });
    }
}

/// Options that cannot be built refuse the handshake; weaker ones would be a hole.
#[test]
fn options_in_error_do_not_become_weaker_ones() {
    let origin = Origin::start();
    let tls = "tls:\n  options:\n    mtls:\n      clientAuth: {caFiles: ['/does/not/exist.pem']}\n";
    let routers = [("a", "a.test", "{options: mtls}"), ("b", "b.test", "{}")];
    let proxy = Proxy::start(&config(&origin.url(), &routers, tls));
    let got = without_certificate(&proxy, "a.test", "a.test/");
    assert!(matches!(got, None | Some(503)), "{got:?}");
    assert_eq!(without_certificate(&proxy, "b.test", "b.test/"), Some(200));
    assert_eq!(origin.count(), 1);
}

/// F-33, F-35: cert-manager and certbot write two files, one after the other.
#[test]
fn a_renewed_certificate_is_served_and_a_wrong_pair_is_not() {
    let (origin, ca) = (Origin::start(), Ca::new());
    let setup = Proxy::with(json!({}));
    let directory = setup.directory().to_owned();
    let first = ca.issue(&["a.test"]);
    let tls = format!("tls:\n  certificates:\n{}", entry(&first, &directory, "a"));
    let proxy = setup.start(&config(&origin.url(), &[("all", "a.test", "{}")], &tls));
    let at = proxy.address("websecure");
    let served = || Tls::anyone().connect(at, Some("a.test")).unwrap().certificate;
    assert!(served() == first.der());

    // Only one half of the new pair is there: the old pair stays, handshake after handshake.
    let second = ca.issue(&["a.test"]);
    let reloads = proxy.reloads();
    fs::write(directory.join("a.pem"), &second.cert).unwrap();
    until("the half was seen", || {
        assert!(served() == first.der());
        proxy.reloads() > reloads
    });
    assert!(served() == first.der());
    fs::write(directory.join("a.key.pem"), &second.key).unwrap();
    let written = Instant::now();
    until("the new pair is served", || served() == second.der());
    assert!(written.elapsed().as_secs() < 5, "{:?}", written.elapsed());

    let (third, fourth) = (ca.issue(&["a.test"]), ca.issue(&["a.test"]));
    Pair { cert: third.cert, key: fourth.key }.write(&directory, "a");
    let reloads = proxy.reloads();
    until("the files were read", || proxy.reloads() > reloads);
    assert!(served() == second.der(), "a pair that does not match is not served");
}
