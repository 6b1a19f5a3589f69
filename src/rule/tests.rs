//! Tests of whole rules: what is read, what is refused, and what matches.

use http::{HeaderMap, Method};

use super::{HostPattern, IndexHosts, Rule, readable_hosts};
use crate::exchange::view::RequestView;

/// A request, owned; `host` and `path` are as the view has them.
struct Request {
    host: &'static str,
    path: &'static str,
    query: Option<&'static str>,
    method: Method,
    headers: HeaderMap,
    client: &'static str,
}

impl Request {
    fn to(host: &'static str, path: &'static str) -> Self {
        Self {
            host,
            path,
            query: None,
            method: Method::GET,
            headers: HeaderMap::new(),
            client: "192.0.2.1",
        }
    }

    fn header(mut self, name: &'static str, value: &[u8]) -> Self {
        self.headers.append(name, value.try_into().expect("a header value"));
        self
    }

    fn view(&self) -> RequestView<'_> {
        RequestView {
            host: self.host,
            flat_host: None,
            path: self.path,
            query: self.query,
            method: &self.method,
            headers: &self.headers,
            client_ip: self.client.parse().expect("an address"),
        }
    }
}

fn rule(text: &str) -> Rule {
    Rule::parse(text).unwrap_or_else(|error| panic!("{text}: {error:?}"))
}

fn matches(text: &str, request: &Request) -> bool {
    rule(text).matches(&request.view())
}

fn host_matches(text: &str, host: &'static str) -> bool {
    matches(text, &Request::to(host, "/"))
}

fn refusal(text: &str) -> (String, &str) {
    let error = Rule::parse(text).expect_err(text);
    (error.message, text.get(error.offset..error.end).expect("a range of the text"))
}

#[test]
fn operators_bind_and_group_as_in_go() {
    let cases = [
        ("Host(`a`) || Host(`b`) && Path(`/x`)", [true, true, false, true]),
        ("(Host(`a`) || Host(`b`)) && Path(`/x`)", [false, true, false, true]),
        ("!Host(`a`) && Path(`/x`)", [false, false, false, true]),
        ("!(Host(`a`) && Path(`/x`))", [true, false, true, true]),
        ("!(Host(`a`) || Path(`/x`))", [false, false, true, false]),
        ("!(!(Host(`a`) && Path(`/x`)))", [false, true, false, false]),
        ("!(Host(`a`) && !Path(`/x`))", [false, true, true, true]),
        ("!!Host(`a`)", [true, true, false, false]),
    ];
    let requests = [("a", "/y"), ("a", "/x"), ("b", "/y"), ("b", "/x")];
    for (text, expected) in cases {
        let found = requests.map(|(host, path)| matches(text, &Request::to(host, path)));
        assert_eq!(found, expected, "{text}");
    }
}

#[test]
fn names_have_four_spellings() {
    for name in ["HostRegexp", "hostregexp", "HOSTREGEXP", "Hostregexp"] {
        assert!(host_matches(&format!("{name}(`^a$`)"), "a"));
    }
    for (name, advice) in [
        ("hostRegexp", "; did you mean HostRegexp?"),
        ("HostRegex", "; did you mean HostRegexp?"),
        ("Hots", "; did you mean Host?"),
        ("PathPrefx", "; did you mean PathPrefix?"),
        ("Headers", "; did you mean Header?"),
        ("Unrelated", ""),
    ] {
        let text = format!("Host(`a`) && {name}(`b`)");
        assert_eq!(refusal(&text), (format!("unsupported function: {name}{advice}"), name));
    }
}

#[test]
fn strings_are_those_of_go() {
    assert!(host_matches(r#"Host("\x61\142\u0063")"#, "abc"));
    assert!(matches("Path(`/a\r\nb`)", &Request::to("", "/a\nb")), "carriage returns are dropped");
    assert!(matches(r#"Path("/\u00e9\"\\\t")"#, &Request::to("", "/é\"\\\t")));
    assert!(matches(r"Path(`/\n`)", &Request::to("", r"/\n")));
    assert!(matches(r#"Path("/\xc3\xa9")"#, &Request::to("", "/é")), "bytes of one character");
    for (text, message, at) in [
        ("Host(`a", "raw string literal not terminated", "`a"),
        ("Host(\"a\n\")", "string literal not terminated", "\"a"),
        (r#"Host("a\q")"#, "unknown escape sequence", r"\q"),
        (r#"Host("\'")"#, "unknown escape sequence", r"\'"),
        (r#"Host("\400")"#, "unknown escape sequence", r"\4"),
        (r#"Host("\ud800")"#, "unknown escape sequence", r"\u"),
        (r#"Host("\xff")"#, "the escapes do not form UTF-8 text", r"\xff"),
    ] {
        assert_eq!(refusal(text), (message.to_owned(), at), "{text}");
    }
    assert!(refusal("Host('a.example')").0.starts_with("illegal rune literal"));
}

#[test]
fn lines_break_where_go_lets_them() {
    for text in [
        "\n Host(`a`) &&\n\tHost(`a`)\r\n",
        "(\nHost(\n`a`,\n))",
        "Host(`a`) /* why */ && // the rest\n Host(`a`) // end",
        "Host(`a`,)",
        "/* one\ntwo */ Host(`a`) && /* three\nfour */ Host(`a`)",
        "\u{feff}Host(`a`)",
        "!!\nHost\u{20}(`a`)",
        "Host(`a`) /* same line */ || Host(`b`)\n\n",
    ] {
        assert!(host_matches(text, "a"), "{text}");
    }
    for (text, message) in [
        (
            "Host(`a`)\n&& Host(`b`)",
            "expected 'EOF', found '&&': a line may break after an operator, not before it",
        ),
        (
            "Host(`a`) /*\n*/ || Host(`b`)",
            "expected 'EOF', found '||': a line may break after an operator, not before it",
        ),
        ("(Host(`a`)\n)", "expected ')', found newline"),
        ("Host(\n`a`\n)", "missing ',' before newline in argument list"),
        ("Host(`a`); ", "; is not supported"),
        ("Host(`a`) /* open", "comment not terminated"),
    ] {
        assert_eq!(refusal(text).0, message, "{text}");
    }
}

#[test]
fn what_is_no_rule_is_refused_where_it_goes_wrong() {
    for (text, message, at) in [
        ("", "expected operand, found 'EOF'", ""),
        ("Host(`a`) &&", "expected operand, found 'EOF'", ""),
        ("Host(`a`))", "expected '&&', '||' or 'EOF', found ')'", ")"),
        ("(Host(`a`)", "expected ')', found 'EOF'", ""),
        ("Host(`a`) Path(`/`)", "expected '&&', '||' or 'EOF', found 'Path'", "Path"),
        ("Host(`a`),Path(`/`)", "expected '&&', '||' or 'EOF', found ','", ","),
        ("Host(`a`) & Path(`/`)", "& is not supported", "&"),
        ("Host(`a`) == Path(`/`)", "== is not supported", "=="),
        ("Host", "Host is not defined: a matcher is written Host(`example.com`)", "Host"),
        ("Host:a", "Host is not defined: a matcher is written Host(`example.com`)", "Host"),
        ("`a`", "expected a matcher such as Host(`example.com`), found '`a`'", "`a`"),
        ("Host()", "no args for matcher Host", "Host()"),
        ("Host(``)", "empty args for matcher Host", "``"),
        ("Query(`a`, ``)", "empty args for matcher Query", "``"),
        (
            "Host(`a`, `b`)",
            "unexpected number of parameters; got 2, expected one of [1]",
            "Host(`a`, `b`)",
        ),
        (
            "Query(`a`, `b`, `c`)",
            "unexpected number of parameters; got 3, expected one of [1 2]",
            "Query(`a`, `b`, `c`)",
        ),
        ("Host(`a` `b`)", "missing ',' in argument list", "`b`"),
        ("Host(`a` + `b`)", "+ is not supported", "+"),
        ("Path(`x`)", "path \"x\" does not start with a '/'", "`x`"),
        ("PathPrefix(`x`)", "path \"x\" does not start with a '/'", "`x`"),
        (
            "Host(`🦭.com`)",
            "invalid value \"🦭.com\" for Host matcher, non-ASCII characters are not allowed",
            "`🦭.com`",
        ),
        (
            "PathRegexp(`^/(a`)",
            "compiling PathRegexp matcher: error parsing regexp: missing closing ): `^/(a`",
            "(a`",
        ),
        (
            "ClientIP(`1`)",
            "initializing IP checker for ClientIP matcher: parsing CIDR trusted IPs: invalid CIDR address: 1",
            "`1`",
        ),
        ("Host(`a`) // \0", "illegal character NUL", "\0"),
        ("Host(`a\u{feff}`)", "illegal byte order mark", "\u{feff}"),
        ("Host(`a`) # b", "illegal character U+0023 '#'", "#"),
    ] {
        assert_eq!(refusal(text), (message.to_owned(), at), "{text}");
    }
    for text in ["Host(example.com)", "Host(8080)", "Host(Host(`a`))", "Host(!`a`)", "Host(,)"] {
        assert!(refusal(text).0.starts_with("the argument of Host must be a string"), "{text}");
    }
}

#[test]
fn nesting_and_length_are_bounded() {
    let nested = |depth: usize| format!("{}Host(`a`){}", "!(".repeat(depth), ")".repeat(depth));
    assert!(host_matches(&nested(100), "a"));
    assert_eq!(refusal(&nested(101)).0, "parentheses nest deeper than 100 levels");
    assert!(Rule::parse(&"(".repeat(1 << 20)).is_err());
    assert!(host_matches(&format!("{}Host(`a`)", "!".repeat(500_000)), "a"));
    let long = vec!["Host(`a`)"; 80_000].join(" || ");
    assert!(host_matches(&long, "a") && !host_matches(&long, "b"));
    assert!(refusal(&format!("{long} || {long}")).0.starts_with("the rule is longer"));
}

#[test]
fn a_node_stays_small() {
    assert!(size_of::<super::tree::Node>() <= 40);
    assert!(size_of::<Rule>() <= 56);
}

#[test]
fn hosts() {
    for (argument, yes, no) in [
        ("Example.COM", vec!["example.com"], vec!["example.org", "a.example.com", ""]),
        ("example.com.", vec!["example.com"], vec!["example.com.x"]),
        (
            "*.example.com",
            vec!["a.example.com"],
            vec!["example.com", "a.b.example.com", "a.example.org", ""],
        ),
        ("*.example.com.", vec!["a.example.com"], vec!["example.com"]),
        ("*", vec!["example.com", "a", ""], vec![]),
        ("*.", vec!["a"], vec!["a.b", ""]),
        ("*a.example.com", vec![], vec!["ba.example.com", "a.example.com", "*a.example.com"]),
        ("10::10", vec!["10::10"], vec![]),
    ] {
        let text = format!("Host(`{argument}`)");
        for host in yes {
            assert!(host_matches(&text, host), "{text} {host}");
        }
        for host in no {
            assert!(!host_matches(&text, host), "{text} {host}");
        }
    }
    assert!(host_matches("HostRegexp(`ample`)", "example.com"), "not anchored");
    assert!(host_matches("HostRegexp(`(?i)^EX`)", "example.com"));
    assert!(!host_matches("HostRegexp(`^EX`)", "example.com"));
    assert!(host_matches("HostRegexp(`^$`)", "") && !host_matches("HostRegexp(`^$`)", "a"));
    assert!(Rule::parse("HostRegexp(`é`)").is_err());
}

#[test]
fn paths_and_methods() {
    let path = |text: &str, path| matches(text, &Request::to("a", path));
    assert!(path("Path(`/a`)", "/a") && !path("Path(`/a`)", "/a/") && !path("Path(`/a`)", "/A"));
    assert!(path("PathPrefix(`/products`)", "/products-x") && !path("PathPrefix(`/p`)", "/x/p"));
    assert!(path("PathRegexp(`/[0-9]+$`)", "/x/12") && !path("PathRegexp(`^/[0-9]+$`)", "/x/12"));
    let lower =
        Request { method: Method::from_bytes(b"get").expect("a method"), ..Request::to("a", "/") };
    for text in ["Method(`GET`)", "Method(`get`)"] {
        assert!(path(text, "/") && !matches(text, &lower));
    }
}

#[test]
fn headers() {
    let request = Request::to("a", "/")
        .header("host", b"a")
        .header("x-many", b"one")
        .header("x-many", b"Two, three")
        .header("x-bytes", b"a\xff\xfe");
    for (text, expected) in [
        ("Header(`X-Many`, `one`)", true),
        ("Header(`x-mANY`, `Two, three`)", true),
        ("Header(`X-Many`, `two, three`)", false),
        ("Header(`X-Many`, `Two`)", false),
        ("Header(`Host`, `a`)", false),
        ("!Header(`Host`, `a`)", true),
        ("Header(`not a token`, `a`)", false),
        ("HeaderRegexp(`x-many`, `^T.*ee$`)", true),
        ("HeaderRegexp(`x-many`, `^t`)", false),
        ("HeaderRegexp(`host`, `a`)", false),
        ("HeaderRegexp(`x-none`, `.*`)", false),
        ("HeaderRegexp(`x-bytes`, `^a..$`)", true),
    ] {
        assert_eq!(matches(text, &request), expected, "{text}");
    }
}

#[test]
fn queries() {
    for (query, text, expected) in [
        (Some("a"), "Query(`a`)", true),
        (Some("a="), "Query(`a`)", true),
        (Some("a=1"), "Query(`a`)", false),
        (Some("a=1&a"), "Query(`a`)", true),
        (Some("b"), "Query(`a`)", false),
        (None, "Query(`a`)", false),
        (Some("a=1"), "Query(`a`, `1`)", true),
        (Some("a=0&a=1"), "Query(`a`, `1`)", true),
        (Some("A=1"), "Query(`a`, `1`)", false),
        (Some("a=x+%26"), "Query(`a`, `x &`)", true),
        (Some("a=1;b"), "Query(`a`, `1;b`)", false),
        (Some("a=1%3Bb"), "Query(`a`, `1;b`)", true),
        (Some("a=12"), "QueryRegexp(`a`, `^[0-9]+$`)", true),
        (Some("a=%31"), "QueryRegexp(`a`, `^[0-9]+$`)", true),
        (Some("a=x"), "QueryRegexp(`a`, `^[0-9]+$`)", false),
        (Some("a=1%"), "QueryRegexp(`a`, `1`)", false),
        (Some("a=%FF"), "QueryRegexp(`a`, `^.$`)", true),
        (Some("a"), "QueryRegexp(`a`)", true),
        (Some("a=1"), "QueryRegexp(`a`)", false),
    ] {
        let request = Request { query, ..Request::to("a", "/") };
        assert_eq!(matches(text, &request), expected, "{text} {query:?}");
    }
}

#[test]
fn client_addresses() {
    for (client, argument, expected) in [
        ("192.168.1.7", "192.168.1.7", true),
        ("192.168.1.7", "::ffff:192.168.1.7", true),
        ("192.168.1.7", "192.168.1.99/24", true),
        ("192.168.2.7", "192.168.1.0/24", false),
        ("192.168.1.7", "::ffff:192.168.1.0/120", true),
        ("192.168.2.7", "::ffff:192.168.1.0/120", false),
        ("192.168.2.7", "0.0.0.0/0", true),
        ("192.168.2.7", "::/0", false),
        ("2001:db8::1", "2001:db8::/32", true),
        ("2001:db8::1", "0.0.0.0/0", false),
    ] {
        let request = Request { client, ..Request::to("a", "/") };
        assert_eq!(
            matches(&format!("ClientIP(`{argument}`)"), &request),
            expected,
            "{client} {argument}"
        );
    }
    for bad in ["192.168.1.0/33", "192.168.1", "a", "10.0.0.1-10.0.0.9", "fe80::1%eth0"] {
        assert!(Rule::parse(&format!("ClientIP(`{bad}`)")).is_err(), "{bad}");
    }
}

#[test]
fn names_its_hosts() {
    let text = "!Host(`A.example.`) && (Host(`*.B.example`) || HOST(`*`) || HostRegexp(`c`) || Path(`/d`))";
    assert_eq!(rule(text).domains(), ["a.example", "*.b.example", "*"]);
    assert_eq!((rule(text).text(), rule(text).default_priority()), (text, text.len()));
    assert_eq!(rule("Host(`*x.y`)").domains(), ["*x.y"]);
}

#[test]
fn hosts_for_the_index() {
    use HostPattern::{Exact, Wildcard};
    let hosts = |text: &str, expected: &[HostPattern<'_>]| {
        assert_eq!(rule(text).index_hosts(), IndexHosts::Hosts(expected.into()), "{text}");
    };
    hosts("Host(`A`) && Path(`/`)", &[Exact("a")]);
    hosts("Host(`a`) || Host(`*.b`)", &[Exact("a"), Wildcard("b")]);
    hosts("(Host(`a`) || Host(`b`)) && Host(`c`)", &[Exact("c")]);
    hosts("Host(`a`) && (Host(`b`) || Path(`/`))", &[Exact("a")]);
    hosts("!(!Host(`a`) || Path(`/`))", &[Exact("a")]);
    hosts("Host(`a`) && Host(`*`) && !Host(`b`)", &[Exact("a")]);
    hosts("Host(`*a.b`)", &[]);
    hosts("Host(`a`) || Host(`*a.b`)", &[Exact("a")]);
    for text in [
        "Path(`/`)",
        "Host(`*`)",
        "!Host(`a`)",
        "Host(`a`) || Path(`/`)",
        "HostRegexp(`a`)",
        "!Host(`*a`)",
    ] {
        assert_eq!(rule(text).index_hosts(), IndexHosts::Any, "{text}");
    }
}

#[test]
fn explains_what_failed() {
    let explained = |text: &str, host, path| {
        let explanation = rule(text).explain(&Request::to(host, path).view())?;
        Some((explanation.predicate, text.get(explanation.range)?.to_owned()))
    };
    let pair = |predicate: &str, range: &str| Some((predicate.to_owned(), range.to_owned()));
    let text = "Host(`a`) && PathPrefix(`/x`)";
    assert_eq!(explained(text, "a", "/x"), None);
    assert_eq!(explained(text, "b", "/y"), pair("Host(`a`)", "Host(`a`)"));
    assert_eq!(explained(text, "a", "/y"), pair("PathPrefix(`/x`)", "PathPrefix(`/x`)"));
    assert_eq!(explained("!Host(`a`)", "a", "/"), pair("!Host(`a`)", "Host(`a`)"));
    assert_eq!(explained("!(Path(`/x`) || Host(`a`))", "a", "/"), pair("!Host(`a`)", "Host(`a`)"));
    let text = "(Host(`a`) || Host(`b`)) && Path(`/x`)";
    assert_eq!(
        explained(text, "c", "/x"),
        pair("Host(`a`) || Host(`b`)", "Host(`a`) || Host(`b`)")
    );
    let text = "Host(`a`) && Path(`/x`) || Host(`b`) && Path(`/y`)";
    assert_eq!(explained(text, "b", "/x"), pair("Path(`/y`)", "Path(`/y`)"));
    let text = "!(Host(`a`) && Path(`/x`))";
    assert_eq!(
        explained(text, "a", "/x"),
        pair("!(Host(`a`) && Path(`/x`))", "Host(`a`) && Path(`/x`)")
    );
}

#[test]
fn reads_hosts_of_rules_that_do_not_parse() {
    for (text, expected) in [
        ("Host(`A.example`) && Foo(`x`)", vec!["a.example"]),
        ("hOsT (\"a.example.\") && (", vec!["a.example"]),
        ("Host('a.example')", vec!["a.example"]),
        ("Host(a.example)", vec!["a.example"]),
        ("Host(`a.example`, `b.example`) || Host(`a.example`)", vec!["a.example", "b.example"]),
        ("HostHeader(`a.example`)", vec!["a.example"]),
        ("Host(`a.example) && Path(`/x`)", vec!["a.example"]),
        ("HostRegexp(`a.example`) && Path(`/b.example`)", vec![]),
        ("Host(`*.example`) &&", vec!["*.example"]),
        ("Host(a.example", vec!["a.example"]),
        ("Host(", vec![]),
        ("Host(`é`)", vec![]),
    ] {
        assert_eq!(readable_hosts(text), expected, "{text}");
    }
}
