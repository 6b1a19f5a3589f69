//! Tests of `diff` from configuration texts to what is told.

use std::fmt::Write as _;
use std::fs;

use tempfile::TempDir;

use super::*;

const STATIC: &str = "
entryPoints:
  web: {address: ':80'}
  websecure: {address: ':443', http: {tls: {}}}
";
const BASE: &str = "
http:
  routers:
    shop: {rule: Host(`shop.test`), middlewares: [auth, slow], service: shop, entryPoints: [web]}
    api: {rule: 'Host(`shop.test`) && PathPrefix(`/api`)', middlewares: [auth], service: api, entryPoints: [web]}
  middlewares:
    auth: {ipAllowList: {sourceRange: [10.0.0.0/8]}}
    slow: {headers: {frameDeny: true}}
    other: {ipAllowList: {sourceRange: [10.0.0.0/8]}}
  services:
    shop: {loadBalancer: {servers: [{url: 'http://10.0.0.1:8069'}]}}
    api: {weighted: {services: [{name: shop}]}}
";

const AUTH: &str = "auth: {ipAllowList: {sourceRange: [10.0.0.0/8]}}";

fn subject(fixed: &str, routes: &str) -> Subject {
    let directory = TempDir::new().unwrap();
    let mut files = Vec::new();
    for (name, text) in [("static.yml", fixed), ("routes.yml", routes)] {
        if !text.is_empty() {
            files.push(directory.path().join(name));
            fs::write(files.last().unwrap(), text).unwrap();
        }
    }
    compiled(Written::read(&files).unwrap(), &mut Vec::new()).unwrap()
}

/// What differs once `change` was done to the base.
fn told(change: impl FnOnce(String) -> String) -> Told {
    compare(&subject(STATIC, BASE), &subject(STATIC, &change(BASE.to_owned())))
}

/// `kind: lost; what (old => new)`
fn lines(told: &Told) -> Vec<String> {
    let line = |change: &groups::ChangeTold| {
        let lost = change.lost.iter().map(|lost| format!("!{lost}"));
        let altered = change.altered.iter().map(|altered| format!("~{altered}"));
        let all: Vec<_> = lost.chain(altered).chain(change.what.iter().cloned()).collect();
        let mut line = format!("{}: {}", change.kind, all.join(", "));
        if let (Some(old), Some(new)) = (&change.old_routers, &change.new_routers) {
            let _ = write!(line, " ({} => {})", old.told(), new.told());
        }
        line
    };
    told.changes.iter().map(line).collect()
}

fn page(told: &Told) -> String {
    let mut page = Vec::new();
    text::write(told, 100, &mut page, false).unwrap();
    String::from_utf8(page).unwrap()
}

#[test]
fn the_same_written_otherwise_is_the_same() {
    let same = told(|text| text.replace("[10.0.0.0/8]", "['10.0.0.0/8']"));
    assert_eq!((lines(&same), same.objects.len(), same.unseen.len()), (vec![], 0, 0));
    assert!(same.requests_tried > 4 && same.requests_changed == 0);
    let renamed = told(|text| text.replace("[auth]", "[other]"));
    assert_eq!(lines(&renamed), Vec::<String>::new(), "another name for the same middleware");
}

#[test]
fn protection_that_is_gone_comes_first() {
    let told = told(|text| text.replace("[auth, slow]", "[slow]").replace(":8069", ":8070"));
    assert_eq!(
        lines(&told),
        [
            "changed: !ipAllowList auth@file no longer applies, service shop@file changed",
            "changed: service api@file changed"
        ]
    );
    assert_eq!(told.changes[0].routers.as_ref().unwrap().first, ["shop@file"]);
    assert!(told.changes[0].examples[0].starts_with("GET http://shop.test/"));
    let page = page(&told);
    let expected = "protection that is gone\n  router shop@file  (";
    assert!(page.starts_with(expected), "{page}");
    assert!(page.contains("    ! ipAllowList auth@file no longer applies\n"), "{page}");
    assert!(page.contains(
        "service shop@file, which matters to 2 routers: api@file, shop@file\n    loadBalancer.servers: \
         [{url: http://10.0.0.1:8069}] -> [{url: http://10.0.0.1:8070}]\n"
    ), "{page}");
}

#[test]
fn a_router_in_front_of_another_takes_its_requests() {
    let told = told(|text| {
        let new = "  routers:\n    front: {rule: PathPrefix(`/api/v2`), priority: 99, service: shop, entryPoints: [web]}\n";
        text.replace("  routers:\n", new)
    });
    let lines = lines(&told);
    assert!(
        lines.contains(&"moved: !ipAllowList auth@file no longer applies, service api@file is now shop@file (router api@file => router front@file)".to_owned()),
        "{lines:#?}"
    );
    assert!(lines.iter().any(|line| line.starts_with("added: until now 404")), "{lines:#?}");
}

#[test]
fn what_is_gone_or_broken_is_removed() {
    let gone =
        told(|text| text.replace("Host(`shop.test`) && PathPrefix(`/api`)", "Host(`b.test`)"));
    let found = lines(&gone);
    assert!(
        found.iter().any(|line| line.ends_with("(router api@file => router shop@file)")),
        "{found:#?}"
    );
    assert!(found.iter().any(|line| line.starts_with("added:")), "{found:#?}");
    let broken = told(|text| text.replace("[auth]", "[missing]"));
    assert_eq!(lines(&broken), ["removed: now 503: router api@file is in error"]);
}

#[test]
fn order_and_options_of_middlewares_count() {
    let order = told(|text| text.replace("[auth, slow]", "[slow, auth]"));
    assert_eq!(lines(&order), ["changed: middlewares stand in another order"]);
    let wider = told(|text| text.replace(AUTH, "auth: {ipAllowList: {sourceRange: [10.0.0.0/7]}}"));
    assert_eq!(lines(&wider), ["changed: ~ipAllowList auth@file changed"]);
    assert_eq!(
        wider.objects[0].differences[0].one_line(),
        "ipAllowList.sourceRange: [10.0.0.0/8] -> [10.0.0.0/7]"
    );
    assert!(page(&wider).starts_with("protection that changed\n"), "{}", page(&wider));
}

#[test]
fn static_options_are_compared_and_secrets_not_shown() {
    let fixed = STATIC.replace(":80'", ":8080'").replace("websecure", "secure");
    let told = compare(&subject(STATIC, BASE), &subject(&fixed, BASE));
    let options: Vec<_> = told.options.iter().map(|one| one.option.as_str()).collect();
    assert_eq!(options, ["entryPoints.secure", "entryPoints.web.address", "entryPoints.websecure"]);
    let users = |password: &str| {
        BASE.replace(
            "ipAllowList: {sourceRange: [10.0.0.0/8]}",
            &format!("basicAuth: {{users: ['a:{password}']}}"),
        )
    };
    let told = compare(
        &subject("", &users("$2a$04$aaaaaaaaaaaaaaaaaaaaaOqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqq")),
        &subject("", &users("$2a$04$bbbbbbbbbbbbbbbbbbbbbOqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqq")),
    );
    let page = page(&told);
    assert!(page.contains("basicAuth auth@file changed"), "{page}");
    let option = "    basicAuth.users: another value, which is not shown\n";
    assert!(page.contains(option), "{page}");
    assert!(!page.contains("$2a$"), "{page}");
}

#[test]
fn routers_below_others_are_asked_too() {
    let tree = "
http:
  routers:
    top: {rule: Host(`tree.test`), middlewares: [strip]}
    left: {rule: PathPrefix(`/v1`), service: a, parentRefs: [top]}
    right: {rule: PathPrefix(`/v2`), service: a, parentRefs: [top]}
  middlewares:
    strip: {stripPrefix: {prefixes: [/api]}}
  services:
    a: {loadBalancer: {servers: [{url: 'http://10.0.0.1'}]}}
    b: {loadBalancer: {servers: [{url: 'http://10.0.0.2'}]}}
";
    let new = tree.replace("`/v2`), service: a", "`/v2`), service: b");
    let told = compare(&subject("", tree), &subject("", &new));
    assert_eq!(lines(&told), ["changed: service a@file is now b@file"]);
    let requests = told.changes[0].requests;
    assert!(requests >= 4, "with and without the prefix: {requests}");
    assert_eq!(told.changes[0].routers.as_ref().unwrap().first, ["right@file", "top@file"]);
}

#[test]
fn what_no_request_shows_is_told_as_text() {
    let told = told(|text| {
        let hidden = "  routers:\n    hidden: {rule: 'Host(`shop.test`) && PathRegexp(`^/[^a-z]x\\b1`)', service: api, entryPoints: [web]}\n";
        text.replace("  routers:\n", hidden)
    });
    assert_eq!(lines(&told), Vec::<String>::new());
    assert_eq!(told.unseen.len(), 1);
    assert!(
        told.unseen[0].contains("router hidden@file is new")
            && told.unseen[0].contains("compared as text"),
        "{:?}",
        told.unseen
    );
}

#[test]
fn many_routers_are_told_in_few_lines() {
    let many = |server: &str| {
        let mut text = format!(
            "http:\n  services: {{s: {{loadBalancer: {{servers: [{{url: '{server}'}}]}}}}}}\n  routers:\n"
        );
        for number in 0..1_000 {
            let _ = writeln!(text, "    r{number}: {{rule: Host(`h{number}.test`), service: s}}");
        }
        subject("", &text)
    };
    let mut told = compare(&many("http://10.0.0.1"), &many("http://10.0.0.2"));
    assert_eq!(lines(&told), ["changed: service s@file changed"]);
    assert_eq!(
        (told.changes[0].routers.as_ref().unwrap().count, told.objects[0].routers.count),
        (1_000, 1_000)
    );
    assert!(page(&told).lines().count() < 20, "{}", page(&told));
    told.limit(0);
    assert_eq!(told.notes, ["1 changes more are not told", "1 definitions more are not told"]);
}

#[test]
fn one_router_in_front_of_many_is_one_change() {
    let many = |more: &str| {
        let mut text = format!(
            "http:\n  services: {{s: {{loadBalancer: {{servers: [{{url: 'http://a'}}]}}}}}}\n  routers:\n{more}"
        );
        for number in 0..50 {
            let _ = writeln!(text, "    r{number}: {{rule: Host(`h{number}.test`), service: s}}");
        }
        subject("", &text)
    };
    let front = "    front: {rule: PathPrefix(`/web`), service: s, priority: 99}\n";
    let told = compare(&many(""), &many(front));
    let found = lines(&told);
    assert_eq!(
        found,
        [
            "moved:  (50 routers: r0@file, r10@file, r11@file, r12@file, r13@file, ... => router front@file)",
            "added: until now 404: no router matches (none => router front@file)",
        ]
    );
    let back = lines(&compare(&many(front), &many("")));
    assert!(back[0].starts_with("moved:  (router front@file => 50 routers: r0@file,"), "{back:#?}");
}

#[test]
fn the_command_line_has_two_forms() {
    let read = |words: &[&str]| {
        Options::read(&words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>())
    };
    let plain = read(&["a.yml", "b.yml", "--limit=3"]).unwrap();
    assert_eq!((plain.old.len(), plain.new.len(), plain.limit), (1, 1, 3));
    let named = read(&["--old", "a", "b", "--new", "c", "--format=json"]).unwrap();
    assert_eq!((named.old.len(), named.new.len(), named.json), (2, 1, true));
    for (words, says) in [
        (&["a.yml"][..], "name two files"),
        (&["a", "b", "c"], "name two files"),
        (&["a", "b", "--frmat=json"], "did you mean `--format`"),
        (&["a", "b", "--limit=x"], "is a number"),
    ] {
        let error = format!("{:#}", read(words).err().unwrap());
        assert!(error.contains(says), "{error}");
    }
}

#[test]
fn a_guard_that_keeps_its_name_and_guards_nothing_is_gone() {
    let other = told(|text| text.replace(AUTH, "auth: {headers: {frameDeny: true}}"));
    assert_eq!(
        lines(&other),
        ["changed: !ipAllowList auth@file no longer applies, headers auth@file applies now"]
    );
    for open in ["[0.0.0.0/0]", "['::/0', 10.0.0.0/8]"] {
        let open = told(|text| {
            text.replace(AUTH, &format!("auth: {{ipAllowList: {{sourceRange: {open}}}}}"))
        });
        assert_eq!(lines(&open), ["changed: !ipAllowList auth@file lets everybody through now"]);
    }
    let limit = |average: u32| {
        let limit = format!("auth: {{rateLimit: {{average: {average}, burst: 5}}}}");
        subject(STATIC, &BASE.replace(AUTH, &limit))
    };
    let none = compare(&limit(10), &limit(0));
    assert_eq!(lines(&none), ["changed: !rateLimit auth@file lets everybody through now"]);
    let less = compare(&limit(10), &limit(20));
    assert_eq!(lines(&less), ["changed: ~rateLimit auth@file changed"]);
    let nothing = compare(&limit(0), &limit(10));
    assert_eq!(lines(&nothing), ["changed: rateLimit auth@file changed"]);
}

#[test]
fn clear_text_that_is_served_again_has_lost_its_redirection() {
    let text = BASE.replace(AUTH, "auth: {redirectScheme: {scheme: https}}");
    let new = text.replace("[auth, slow]", "[slow]").replace("[auth]", "[]");
    let told = compare(&subject(STATIC, &text), &subject(STATIC, &new));
    assert_eq!(lines(&told), ["changed: !redirectScheme auth@file no longer applies"]);
}

#[test]
fn guards_of_services_below_others_count() {
    let text = "
http:
  routers: {r: {rule: Host(`a.test`), service: top}}
  middlewares:
    auth: {basicAuth: {users: ['a:$2a$04$aaaaaaaaaaaaaaaaaaaaaOqqqqqqqqqqqqqqqqqqqqqqqqqqqqqq']}}
    both: {chain: {middlewares: [auth]}}
  services:
    top: {weighted: {services: [{name: one}, {name: two}]}}
    one: {loadBalancer: {servers: [{url: 'http://10.0.0.1'}]}, middlewares: [both]}
    two: {loadBalancer: {servers: [{url: 'http://10.0.0.2'}]}, middlewares: [auth]}
    open: {loadBalancer: {servers: [{url: 'http://10.0.0.2'}]}}
";
    let old = subject("", text);
    let told = |from: &str, to: &str| lines(&compare(&old, &subject("", &text.replace(from, to))));
    assert_eq!(
        told("{name: two}", "{name: open}"),
        ["changed: !basicAuth auth@file no longer applies to all members of the service, \
             service top@file changed"]
    );
    assert_eq!(
        told("[{name: one}, {name: two}]", "[{name: open}]"),
        ["changed: !basicAuth auth@file no longer applies, service top@file changed"]
    );
    assert_eq!(
        told("middlewares: [both]", "middlewares: [auth]"),
        ["changed: service top@file changed"]
    );
}

#[test]
fn what_tls_options_demand_of_clients_is_protection() {
    let text = "
http:
  routers: {r: {rule: Host(`a.test`), service: s, tls: {}, entryPoints: [websecure]}}
  services: {s: {loadBalancer: {servers: [{url: 'http://10.0.0.1'}]}}}
tls: {options: {default: {clientAuth: {clientAuthType: RequireAnyClientCert}}}}
";
    let old = subject(STATIC, text);
    let compared = |from: &str, to: &str| compare(&old, &subject(STATIC, &text.replace(from, to)));
    let open = compared("RequireAnyClientCert", "NoClientCert");
    let found = lines(&open);
    assert!(
        found[0].contains(
            "!client certificates of TLS options default are no longer demanded, \
             ~TLS options default changed"
        ),
        "{found:#?}"
    );
    let option = "clientAuth.clientAuthType: RequireAnyClientCert -> NoClientCert";
    assert!(page(&open).contains(option), "{}", page(&open));
    let strict = compared("{clientAuth:", "{sniStrict: true, clientAuth:");
    assert!(lines(&strict)[0].contains("~TLS options default changed"), "{:#?}", lines(&strict));
    assert!(page(&strict).contains("sniStrict: (unset) -> true"), "{}", page(&strict));
    let other = compared("{clientAuth:", "{disableSessionTickets: true, clientAuth:");
    assert!(lines(&other)[0].ends_with(": TLS options default changed"), "{:#?}", lines(&other));
}

#[test]
fn certificates_and_stores_are_compared_as_text() {
    let tls = "
tls:
  certificates: [{certFile: a.pem, keyFile: a.key}, {certFile: b.pem, keyFile: b.key}]
  stores: {default: {defaultCertificate: {certFile: a.pem, keyFile: a.key}}}
";
    let new = tls.replace("{certFile: b.pem, keyFile: b.key}", "{certFile: a.pem, keyFile: c.key}");
    let old = subject(STATIC, &format!("{BASE}{tls}"));
    let same = compare(&old, &subject(STATIC, &format!("{BASE}{tls}")));
    assert_eq!(same.objects.len(), 0);
    let new = new.replacen("{certFile: a.pem, keyFile: a.key}, ", "", 1);
    let new =
        new.replace("defaultCertificate: {certFile: a.pem", "defaultCertificate: {certFile: d.pem");
    let page = page(&compare(&old, &subject(STATIC, &format!("{BASE}{new}"))));
    for line in [
        "  tls.certificates a.pem\n    keyFile: another key, which is not shown\n",
        "  tls.certificates b.pem\n    certFile: b.pem -> (unset)\n",
        "  tls.stores default\n    defaultCertificate.certFile: a.pem -> d.pem\n",
    ] {
        assert!(page.contains(line), "{line}\n{page}");
    }
}

#[test]
fn regular_expressions_for_one_host_may_overlap() {
    let text = BASE.replace("PathPrefix(`/api`)", "PathRegexp(`^/api/[0-9]+$`)");
    let front = |rule: &str| {
        let new = format!(
            "  routers:\n    front: {{rule: '{rule}', priority: 99, service: api, entryPoints: [web]}}\n"
        );
        let new = text.replace("  routers:\n", &new);
        compare(&subject(STATIC, &text), &subject(STATIC, &new)).notes
    };
    let notes = front("Host(`shop.test`) && PathRegexp(`^/api/.*x$`)");
    assert_eq!(notes.len(), 1, "{notes:#?}");
    assert!(
        notes[0].starts_with("router front@file may take requests of api@file: "),
        "{notes:#?}"
    );
    assert_eq!(front("Host(`*.test`) && PathRegexp(`^/api/.*x$`)").len(), 1);
    assert_eq!(front("PathRegexp(`^/api/.*x$`)").len(), 1);
    assert_eq!(front("Host(`other.test`) && PathRegexp(`^/api/.*x$`)").len(), 0);
    assert_eq!(front("Host(`shop.test`) && PathPrefix(`/x`)").len(), 0);
}

#[test]
fn credentials_in_rules_and_urls_are_not_shown() {
    let with = |secret: &str| {
        let rule = format!("Host(`shop.test`) && Header(`X-Token`, `{secret}`)");
        let text = BASE.replace("Host(`shop.test`) && PathPrefix(`/api`)", &rule);
        let forward = format!("auth: {{forwardAuth: {{address: 'http://a.test/x?key={secret}'}}}}");
        subject(STATIC, &text.replace(AUTH, &forward))
    };
    let told = compare(&with("hunter1"), &with("hunter2"));
    let page = page(&told);
    assert!(page.contains("-H 'x-token: (hidden)'"), "{page}");
    assert!(page.contains("forwardAuth.address: another value, which is not shown"), "{page}");
    assert!(!page.contains("hunter"), "{page}");
    assert!(!serde_json::to_string(&told).unwrap().contains("hunter"));
}
