//! The line of a source that a diagnostic shows. Whatever is wrong, and wherever: no secret of that line is in it, nor a
//! line that belongs to a secret above it. It is looked at as text, because the file may be one that nobody can read.

mod json;

use std::borrow::Cow;

use crate::config::tree::{Format, Source, Span, is_secret};
use crate::rule::compares_secret;
use crate::values::secret::{
    end_of_user, is_credential_header, is_secret_misspelt, is_secret_parameter,
};

/// The one source line that is printed, with the marked bytes. Only this line is given to the
/// renderer, which otherwise scans the whole file for every diagnostic.
pub(super) struct Excerpt {
    pub(super) text: String,
    pub(super) line: usize,
    pub(super) start: usize,
    pub(super) end: usize,
}

impl Excerpt {
    /// `None`: its line is too long to be shown, and the place is enough.
    pub(super) fn of(span: &Span) -> Option<Self> {
        let (line, bytes) = span.source.line_at(span.start);
        let raw = span.source.text.get(bytes.clone()).unwrap_or_default();
        let start = span.start.saturating_sub(bytes.start).min(raw.len());
        let end = span.end.saturating_sub(bytes.start).clamp(start, raw.len());
        if raw.len() > LONG {
            return None;
        }
        let text = if belongs_to_secret(&span.source, bytes.start) {
            stars(raw)
        } else {
            let masked = match span.source.format {
                Format::Json => json::masked(lines_above(&span.source, bytes.start), raw),
                Format::Yaml | Format::Toml => {
                    mask_secrets(raw, names_object(&span.source, bytes.start))
                }
                Format::Flags | Format::Environment | Format::Labels => mask_setting(raw),
            };
            let masked = mask_pattern(&masked, &span.source, bytes.start);
            mask_userinfo(&mask_keys(&masked))
        };
        Some(Self { text, line, start, end })
    }
}

/// How far above a line the name is looked for that it belongs to.
const FAR: usize = 1000;
/// The longest line that is shown.
const LONG: usize = 16 << 10;

/// The lines above the one that starts here, from the top.
fn lines_above(source: &Source, start: usize) -> impl Iterator<Item = &str> {
    let before = source.text.get(..start).unwrap_or_default();
    let from = memchr::memrchr_iter(b'\n', before.as_bytes()).nth(FAR).map_or(0, |end| end + 1);
    before.get(from..).unwrap_or_default().lines()
}

/// Whether the line that starts here is a part of a secret that is named above it: a text over several lines, an item of
/// a list, a private key.
fn belongs_to_secret(source: &Source, start: usize) -> bool {
    let before = source.text.get(..start).unwrap_or_default();
    let line = source.text.get(start..).and_then(|rest| rest.lines().next()).unwrap_or_default();
    let mut indent = indent_of(line);
    let mut is_item = line.trim_start().starts_with('-');
    // A name like that of a secret, which may be that of an object.
    let mut suspected = false;
    for above in before.lines().rev().take(FAR) {
        if above.contains("-----END") {
            break;
        }
        if above.contains("PRIVATE KEY-----") {
            return true;
        }
    }
    match source.format {
        Format::Json | Format::Environment | Format::Labels => return false,
        Format::Flags => return is_value_of_secret(before, line),
        Format::Yaml | Format::Toml => {}
    }
    for above in before.lines().rev().take(FAR) {
        let (content, depth) = (above.trim(), indent_of(above));
        if content.is_empty() || content.starts_with('#') {
            continue;
        }
        if source.format == Format::Toml {
            let Some((name, value)) = content.split_once('=').filter(|(name, _)| is_whole(name))
            else {
                if content.starts_with('[') {
                    return false;
                }
                continue;
            };
            let value = value.trim_start();
            let closes = ["\"\"\"", "'''"]
                .iter()
                .any(|quotes| value.strip_prefix(quotes).is_some_and(|text| text.contains(quotes)))
                || value.starts_with('[') && value.contains(']');
            let opens = ["[", "\"\"\"", "'''"].iter().any(|open| value.starts_with(open));
            return opens && !closes && is_secret(last_name(name));
        }
        let (name, value) = content.split_once(':').unwrap_or((content, ""));
        if opens_quote(value.trim()) && is_secret(last_name(name)) {
            return true;
        }
        let outer = depth < indent || is_item && depth == indent && !content.starts_with('-');
        if !outer {
            continue;
        }
        if suspected && !is_of_objects(name) {
            return true;
        }
        suspected =
            is_secret(last_name(name)) && (value.trim().is_empty() || !is_quoted(value.trim()));
        (indent, is_item) = (depth, above.trim_start().starts_with('-'));
    }
    suspected
}

/// Whether a line of arguments belongs to the value of a flag above it, which is named like a secret: all lines up to the
/// next flag, and the next argument even if it looks like a flag.
fn is_value_of_secret(before: &str, line: &str) -> bool {
    let mut above = before.lines().rev();
    let nearest = above.clone().next().unwrap_or_default();
    let flag = if line.starts_with('-') {
        Some(nearest).filter(|flag| flag.starts_with('-') && !flag.contains('='))
    } else {
        above.find(|flag| flag.starts_with('-'))
    };
    flag.is_some_and(|flag| names_secret(flag.split_once('=').map_or(flag, |(name, _)| name)))
}

/// Whether objects stand below this name, each called what its owner likes.
fn is_of_objects(name: &str) -> bool {
    const SECTIONS: [&str; 6] = [
        "certificatesResolvers",
        "entryPoints",
        "middlewares",
        "routers",
        "serversTransports",
        "services",
    ];
    SECTIONS.iter().any(|section| section.eq_ignore_ascii_case(last_name(name)))
}

/// Whether the line that starts here begins with the name of an object.
fn names_object(source: &Source, start: usize) -> bool {
    let before = source.text.get(..start).unwrap_or_default();
    let line = source.text.get(start..).and_then(|rest| rest.lines().next()).unwrap_or_default();
    let indent = indent_of(line);
    let mut outer = before.lines().rev().take(FAR).filter(|above| {
        let content = above.trim();
        !content.is_empty() && !content.starts_with('#') && indent_of(above) < indent
    });
    source.format == Format::Yaml
        && outer.next().is_some_and(|above| {
            above
                .split_once(':')
                .is_some_and(|(name, rest)| is_of_objects(name) && rest.trim().is_empty())
        })
}

/// Whether a value is a quoted text and nothing else.
fn is_quoted(value: &str) -> bool {
    value.len() > 1 && value.starts_with(['"', '\'']) && value.ends_with(['"', '\''])
}

/// Whether a quoted text begins and does not end.
fn opens_quote(value: &str) -> bool {
    value.starts_with(['"', '\'']) && !is_quoted(value)
}

/// Whether this is a bare name or a quoted one, and not the beginning of a text.
fn is_whole(name: &str) -> bool {
    is_quoted(name.trim()) || !name.starts_with(['"', '\''])
}

fn indent_of(line: &str) -> usize {
    line.len() - line.trim_start_matches([' ', '\t']).len()
}

/// The name that stands last in a text, without what is around it. It may have blanks in it.
fn last_name(text: &str) -> &str {
    let start = |text: &str, ends: &[char]| text.rfind(ends).map_or(0, |end| end + 1);
    let last = text.trim_end_matches(|last: char| !last.is_alphanumeric());
    let from = start(last, &['{', '}', ',', '"', '\'', ':', '=']);
    let mut name = last.get(from..).unwrap_or_default();
    // It is a rule. Elsewhere these stand in a name like `password (old)`.
    if text.get(from..).is_some_and(|text| text.contains('`')) {
        name = name.get(start(name, &['`', '(', ')', '|', '&'])..).unwrap_or_default();
    }
    name.trim_start_matches(|first: char| !first.is_alphanumeric())
}

/// Whether a name is like that of a secret.
fn is_suspect(name: &str) -> bool {
    is_secret(name) || is_secret_misspelt(name)
}

/// Whether the path of an option ends in, or leads over, a name like that of a secret.
fn names_secret(path: &str) -> bool {
    let path = path.trim_matches(|around: char| !around.is_alphanumeric());
    is_suspect(path) || path.rsplit(['.', '/']).next().is_some_and(is_secret)
}

/// As many asterisks.
fn stars(hidden: &str) -> String {
    hidden.bytes().map(|byte| if byte == b' ' { ' ' } else { '*' }).collect()
}

/// Replaces what follows a secret name and `:` or `=` by as many asterisks, so that a marked
/// option never prints the password beside it. The name of an object is none.
fn mask_secrets(line: &str, names_object: bool) -> String {
    let ends = |byte: &u8| matches!(byte, b':' | b'=' | b',');
    let mut names = usize::from(names_object);
    for (at, end) in line.bytes().enumerate().filter(|(_, byte)| ends(byte)) {
        let before = line.get(..at).unwrap_or_default();
        let is_secret = if end == b',' {
            compares_secret(before)
        } else if names > 0 {
            names -= 1;
            false
        } else {
            is_suspect(last_name(before)) || end == b'=' && ends_with_parameter(before)
        };
        if is_secret {
            return mask_behind(line, at + 1);
        }
    }
    line.to_owned()
}

/// Whether a text ends with the name of a parameter of a URL that is named like a secret.
fn ends_with_parameter(text: &str) -> bool {
    let is_around = |one: char| !one.is_alphanumeric() && !"-_.[]%~".contains(one);
    text.rfind(is_around).and_then(|at| text.get(at..)).is_some_and(|name| {
        let bare = name.strip_prefix(['?', '&', '#', ';']);
        bare.is_some_and(is_secret_parameter)
    })
}

/// The same for a line that is one option: whatever stands before the first `=` is its name.
fn mask_setting(line: &str) -> String {
    match line.find('=') {
        Some(at) if names_secret(line.get(..at).unwrap_or_default()) => mask_behind(line, at + 1),
        _ => mask_secrets(line, false),
    }
}

fn mask_behind(line: &str, at: usize) -> String {
    let (shown, hidden) = line.split_at(at);
    format!("{shown}{}", stars(hidden))
}

/// Replaces what follows the first line of a private key by as many asterisks, whatever the option
/// that it stands in.
fn mask_keys(line: &str) -> Cow<'_, str> {
    const FIRST: &str = "PRIVATE KEY-----";
    let Some(at) = line.find(FIRST) else { return Cow::Borrowed(line) };
    mask_behind(line, at + FIRST.len()).into()
}

/// Replaces the user and the password of every URL by as many asterisks.
fn mask_userinfo(line: &str) -> String {
    let mut shown = String::with_capacity(line.len());
    let mut rest = line;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + "://".len());
        shown.push_str(before);
        let end = after.find([' ', '"', '\'']).unwrap_or(after.len());
        let hidden = after.get(..end).and_then(end_of_user).unwrap_or(0);
        shown.extend(std::iter::repeat_n('*', hidden));
        rest = after.get(hidden..).unwrap_or_default();
    }
    shown.push_str(rest);
    mask_bare_userinfo(&shown)
}

/// The same for what should have been a URL and has no scheme: `user:password@`.
fn mask_bare_userinfo(line: &str) -> String {
    let mut shown = String::with_capacity(line.len());
    for word in line.split_inclusive([' ', '"', '\'', ',', '{', '[', '=']) {
        // What has a scheme is masked already.
        let at = if word.contains("://") { None } else { end_of_user(word) };
        let (user, rest) = word.split_at(at.unwrap_or(0));
        shown.push_str(&mask_password(user));
        for part in rest.split_inclusive('/') {
            let (user, rest) = part.split_at(part.rfind('@').unwrap_or(0));
            shown.push_str(&mask_password(user));
            shown.push_str(rest);
        }
    }
    shown
}

/// A user, and as many asterisks as its password has bytes.
fn mask_password(user: &str) -> Cow<'_, str> {
    user.find(':').map_or(Cow::Borrowed(user), |colon| mask_behind(user, colon + 1).into())
}

/// Replaces the pattern of a header that carries a credential by as many asterisks: the name stands beside it, or on the
/// line above or below.
fn mask_pattern<'l>(line: &'l str, source: &Source, start: usize) -> Cow<'l, str> {
    let Some(at) = values_of("regex", line).next() else { return Cow::Borrowed(line) };
    let above = source.text.get(..start).and_then(|text| text.lines().next_back());
    let rest = source.text.get(start..).unwrap_or_default();
    let near = above.into_iter().chain(rest.lines().take(2)).filter(|line| line.len() <= LONG);
    let names_credential = |line: &str| {
        values_of("name", line).any(|at| {
            let is_around = |one: char| one.is_whitespace() || "\"'".contains(one);
            let value = line.get(at..).unwrap_or_default().trim_start_matches(is_around);
            let is_end = |one: char| is_around(one) || ",}".contains(one);
            value.split(is_end).next().is_some_and(is_credential_header)
        })
    };
    if near.into_iter().any(names_credential) {
        return mask_behind(line, at).into();
    }
    Cow::Borrowed(line)
}

/// Where the values of an option begin in a line of whatever format.
fn values_of<'l>(option: &'l str, line: &'l str) -> impl Iterator<Item = usize> {
    let ends = line.match_indices([':', '=']).map(|(at, _)| at);
    ends.filter(|at| {
        let before = line.get(..*at).unwrap_or_default();
        let before = before.trim_end_matches([' ', '"', '\'']);
        let name = before.rsplit(|one: char| !one.is_ascii_alphanumeric()).next();
        name.is_some_and(|name| name.eq_ignore_ascii_case(option))
    })
    .map(|at| at + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::diagnostics::Diagnostic;

    fn at(text: &str, part: &str) -> Span {
        let source = Source::new("file.yml", text, Format::Yaml);
        let start = source.text.find(part).unwrap();
        Span::new(&source, start..start + part.len())
    }

    #[test]
    fn secrets_stay_out_of_excerpts() {
        let span = at("- \"test:$apr1$H6uskkkW\"\n", "test");
        let text = Diagnostic::error("bad entry").at(&span).secret().render(false);
        assert!(text.contains("file.yml:1:4") && !text.contains("apr1"), "{text}");

        let span = at("{addr: x, 'clientSecret' : hunter2}", "addr");
        let text = Diagnostic::error("bad").at(&span).render(false);
        assert!(text.contains("addr: x") && !text.contains("hunter2"), "{text}");
        let flag = at("--providers.redis.password=hunter2", "--providers");
        assert!(!Diagnostic::error("bad").at(&flag).render(false).contains("hunter2"));
        assert_eq!(mask_secrets("url: http://x/token/y", false), "url: http://x/token/y");

        let span = at("caFiles: ['-----BEGIN EC PRIVATE KEY----- aHVudGVyMg== x']", "caFiles");
        let text = Diagnostic::error("bad").at(&span).render(false);
        assert!(text.contains("caFiles: [") && !text.contains("aHVudGVyMg"), "{text}");
    }

    #[test]
    fn what_belongs_to_a_secret_above_stays_out_of_excerpts() {
        let shown = |text: &str, part: &str, format| {
            let source = Source::new("file", text, format);
            let start = source.text.find(part).unwrap();
            let span = Span::new(&source, start..start + part.len());
            Diagnostic::error("bad").at(&span).render(false)
        };
        for text in [
            "users:\n- a\n- hunter2\n",
            "a:\n  users:\n    - x:y\n\n    # z\n    - hunter2\n",
            "password:\n  hunter2\n",
            "password: >-\n  b\n  hunter2\n",
            "- token: |\n    hunter2\n",
            "- apiKey: \"a\n   hunter2\"\n",
            "certFile: |\n  -----BEGIN PRIVATE KEY-----\nhunter2\n",
            "-----BEGIN RSA PRIVATE KEY-----\nhunter2\n",
            "middlewares:\n  users:\n    basicAuth:\n      users:\n        - hunter2\n",
            "routers:\n  token: {password: hunter2}\n",
            "services:\n  keys:\n    token: hunter2\n",
        ] {
            assert!(!shown(text, "hunter2", Format::Yaml).contains("hunter2"), "{text}");
        }
        for text in ["users = [\n  'a',\n  'hunter2'\n]\n", "a.token = \"\"\"\n\nhunter2\"\"\""] {
            assert!(!shown(text, "hunter2", Format::Toml).contains("hunter2"), "{text}");
        }
        for text in [
            "users: [a]\nother: shown\n",
            "users:\n- a\nother:\n- shown\n",
            "basicAuth:\n  users:\n  - a\n  realm: shown\n",
            "- password: a\n- name: shown\n",
            "services:\n  users:\n    loadBalancer:\n      shown: 1\n",
            "routers:\n\n  # two\n  keycloak: {rule: shown}\n",
            "routers:\n  spoken: {rule: shown}\n",
        ] {
            assert!(shown(text, "shown", Format::Yaml).contains("shown"), "{text}");
        }
        for text in ["users = ['a']\nother = 'shown'", "users = [\n'a'\n]\n[c]\nother = 'shown'"] {
            assert!(shown(text, "shown", Format::Toml).contains("shown"), "{text}");
        }
        for text in [
            "users = [\n  'a:{SHA}x=',\n  'hunter2'\n]\n",
            "users = [\n  \"a=b\", \"c\",\n  'hunter2'\n]\n",
        ] {
            assert!(!shown(text, "hunter2", Format::Toml).contains("hunter2"), "{text}");
        }
        for (text, is_shown) in [
            ("{\"users\": [\n\"a:b\",\n\"hunter2\"", false),
            ("{\"services\": {\n\"users\": {\n\"loadBalancer\": {\"hunter2\": 1", true),
        ] {
            let text = shown(text, "hunter2", Format::Json);
            assert_eq!(text.contains("hunter2"), is_shown, "{text}");
        }
    }

    #[test]
    fn values_of_flags_that_are_named_like_secrets_stay_out_of_excerpts() {
        let shown = |text: &str, part: &str, format| {
            let source = Source::new("flags", text, format);
            let start = source.text.find(part).unwrap();
            Diagnostic::error("bad").at(&Span::new(&source, start..start + 1)).render(false)
        };
        for flag in [
            "--a.token@x=hunter2",
            "--a.password[0}=hunter2",
            "--a.passwd b=hunter2",
            "--a.passwd b c: d=hunter2",
            "--a.passwd \"b\", c=hunter2",
            "--a.Cookie=hunter2",
            "--a.password=x hunter2",
            "--url=http://a/?b&token=hunter2",
        ] {
            for format in [Format::Flags, Format::Labels, Format::Environment] {
                let shown = shown(flag, "--", format);
                assert!(shown.contains("--") && !shown.contains("hunter2"), "{shown}");
            }
        }
        for text in ["--a.password\nhunter2", "--a.password\n-hunter2", "--password=a\nb\nhunter2"]
        {
            assert!(!shown(text, "hunter2", Format::Flags).contains("hunter2"), "{text}");
        }
        for text in ["--a.password=x\n--b=shown", "--a.password\nx\n--b=shown", "--b\nshown"] {
            let last = text.lines().last().unwrap();
            assert!(shown(text, last, Format::Flags).contains("shown"), "{text}");
        }
    }

    /// What a rule compares a credential with is one, however the rule is quoted.
    #[test]
    fn secrets_of_rules_stay_out_of_excerpts() {
        for (text, format) in [
            ("rule: Header(`X-Api-Key`, `hunter2`) &&", Format::Yaml),
            ("rule: \"Host(`a`) && Header(`X-Token`,`hunter2`)\"", Format::Yaml),
            ("rule = \"HeaderRegexp(\\\"Cookie\\\", \\\"hunter2\\\")\"", Format::Toml),
            ("{\"rule\": \"Query(\\\"token\\\", \\\"hunter2\\\")\"}", Format::Json),
            ("a.rule=headers( 'authorization' , 'hunter2'", Format::Labels),
            ("rule: Query(`token=hunter2`)", Format::Yaml),
        ] {
            let source = Source::new("file", text, format);
            let shown = Diagnostic::error("bad").at(&Span::new(&source, 1..2)).render(false);
            assert!(shown.contains("rule") && !shown.contains("hunter2"), "{shown}");
        }
        let text = "rule: Header(`X-Tenant`, `key, shown`) && Host(`token`, `b`)";
        assert_eq!(mask_secrets(text, false), text);
    }

    #[test]
    fn passwords_of_urls_stay_out_of_excerpts() {
        let text = "[{url: \"http://u:hunter2@a\"}, {url: h2c://u:p@ss@b/x@y, weight: z}]";
        let shown = Diagnostic::error("bad").at(&at(text, "weight")).render(false);
        assert!(shown.contains("http://*********@a") && shown.contains("@b/x@y"), "{shown}");
        assert!(!shown.contains("hunter2") && !shown.contains("p@ss"), "{shown}");
        assert_eq!(mask_userinfo("no url: a@b"), "no url: a@b");
        assert_eq!(mask_userinfo("x: 'u:hunter2@a', y@z"), "x: 'u:*******@a', y@z");
        for (text, expected) in [
            ("url: http://u:pa/ss@host:80", "url: http://*******@host:80"),
            ("url: 'http://u:p?a#s@s@host:80', y@z", "url: 'http://*********@host:80', y@z"),
            ("url: u:pa/ss@host:80", "url: u:*****@host:80"),
            ("{url: u:pa/ss@host:80,x: /x@y/u:p@z}", "{url: u:*****@host:80,x: /x@y/u:*@z}"),
        ] {
            assert_eq!(mask_userinfo(text), expected);
        }
        for text in ["a: http://host:80/a@b", "a: http://host/@user", "a: host:80/a@b", "a: b:c@d"]
        {
            let is_shown = mask_userinfo(text) == text;
            assert_eq!(is_shown, !text.contains("b:c@d"), "{text}");
        }
    }

    #[test]
    fn parameters_of_urls_stay_out_of_excerpts() {
        for name in ["auth", "pwd", "sig", "sessionId", "code"] {
            let shown = mask_secrets(&format!("address: http://a/?page=1&{name}=hunter2"), false);
            assert_eq!(shown, format!("address: http://a/?page=1&{name}=*******"));
        }
        for text in ["path: /?design=x", "code: 1", "{code: 1, pass=2, x: '?sig'}"] {
            assert_eq!(mask_secrets(text, false), text);
        }
    }

    /// A rule is shown whose hosts are called like secrets.
    #[test]
    fn what_stands_in_rules_is_no_name_of_an_option() {
        for text in [
            "rule: Host(`keycloak.a`) || ClientIP(`::1`) &&",
            "rule: (Host(`token.a`) && (ClientIP(`::1`)|PathPrefix(`/a=b`)))",
            "rule: keycloak&& Path(`a:b`)",
        ] {
            assert_eq!(mask_secrets(text, false), text);
        }
        for text in
            ["rule: Query(`token=hunter2`)", "password (old): hunter2", "a.passwd | b=hunter2"]
        {
            assert!(!mask_secrets(text, false).contains("hunter2"), "{text}");
        }
    }

    #[test]
    fn patterns_of_credentials_stay_out_of_excerpts() {
        let shown = |text: &str, format| {
            let source = Source::new("file", text, format);
            let start = text.find("oops").unwrap();
            Diagnostic::error("bad").at(&Span::new(&source, start..start + 4)).render(false)
        };
        for (text, format) in [
            (
                "conditions: [{header: {name: X-Auth-Token, regex: '^hunter2$', oops: 1}}]",
                Format::Yaml,
            ),
            ("- {oops: 1, regex: '^hunter2$', name: 'X-Auth-Token'}", Format::Yaml),
            ("- name: X-Auth-Token\n  regex: hunter2 oops\n", Format::Yaml),
            ("- regex: hunter2 oops\n  name: X-Auth-Token\n", Format::Yaml),
            ("header = {name = \"Cookie\", regex = \"hunter2\", oops = 1}", Format::Toml),
            ("{\"oops\": 1, \"name\": \"Cookie\", \"regex\": \"hunter2\"}", Format::Json),
            ("a.header.name=Cookie\na.header.regex=hunter2 oops", Format::Labels),
        ] {
            assert!(!shown(text, format).contains("hunter2"), "{text}");
        }
        for text in [
            "{name: User-Agent, regex: 'shown', oops: 1}",
            "- name: X-Auth-Token\n  path: a\n  regex: shown oops\n",
            "- hostname: X-Auth-Token\n  regex: shown oops\n",
        ] {
            assert!(shown(text, Format::Yaml).contains("shown"), "{text}");
        }
    }

    #[test]
    fn of_a_very_long_line_only_the_place_is_said() {
        let text = format!("a: 1\n{{\"a\": [{}\"here\"]}}", "\"password\",".repeat(20_000));
        let source = Source::new("file.json", text, Format::Json);
        let start = source.text.find("here").unwrap();
        let span = Span::new(&source, start..start + 4);
        let shown = Diagnostic::error("bad").at(&span).render(false);
        let (line, column) = span.line_column();
        assert!(shown.contains(&format!("file.json:{line}:{column}")), "{shown}");
        assert!(!shown.contains("password") && !shown.contains("here"), "{shown}");
        assert!(shown.len() < 1000, "{}", shown.len());
    }
}
