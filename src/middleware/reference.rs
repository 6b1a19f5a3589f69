//! References resolved against a base URL (RFC 3986, 5.2), as Go's `ResolveReference` does it.

/// A URL taken apart. The parts keep their separators, but for the path, which has none.
#[derive(Clone, Copy)]
struct Parts<'a> {
    /// With the colon.
    scheme: &'a str,
    /// With both slashes.
    authority: &'a str,
    path: &'a str,
    /// With the question mark.
    query: &'a str,
    /// With the number sign.
    fragment: &'a str,
}

impl<'a> Parts<'a> {
    fn of(text: &'a str) -> Self {
        let (rest, fragment) = cut(text, text.find('#'));
        let (rest, query) = cut(rest, rest.find('?'));
        let colon = rest.find(':').filter(|&colon| is_scheme(rest.get(..colon).unwrap_or("")));
        let (scheme, rest) = match colon {
            Some(colon) => cut(rest, Some(colon + 1)),
            None => ("", rest),
        };
        let (authority, path) = match rest.strip_prefix("//") {
            Some(behind) => cut(rest, behind.find('/').map(|slash| slash + 2)),
            None => ("", rest),
        };
        Self { scheme, authority, path, query, fragment }
    }
}

fn cut(text: &str, at: Option<usize>) -> (&str, &str) {
    at.and_then(|at| text.split_at_checked(at)).unwrap_or((text, ""))
}

/// RFC 3986, 3.1.
pub(super) fn is_scheme(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphabetic())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
}

/// The URL that `reference` means where `base` is the URL of what it stands in.
pub(super) fn resolve(base: &str, reference: &str) -> String {
    let (base, mut to) = (Parts::of(base), Parts::of(reference));
    let merged;
    if to.scheme.is_empty() {
        to.scheme = base.scheme;
        if to.authority.is_empty() {
            to.authority = base.authority;
            if to.path.is_empty() {
                to.path = base.path;
                if to.query.is_empty() {
                    to.query = base.query;
                }
            } else if !to.path.starts_with('/') {
                let folder = base.path.rfind('/').and_then(|slash| base.path.get(..=slash));
                merged = [folder.unwrap_or("/"), to.path].concat();
                to.path = &merged;
            }
        }
    }
    let path = without_dots(to.path);
    [to.scheme, to.authority, &path, to.query, to.fragment].concat()
}

/// RFC 3986, 5.2.4. Only paths that start with a slash have dot segments.
fn without_dots(path: &str) -> String {
    if !path.starts_with('/') {
        return path.to_owned();
    }
    let mut out = String::with_capacity(path.len());
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let is_last = segments.peek().is_none();
        match segment {
            "." | ".." => {
                if segment == ".." {
                    out.truncate(out.rfind('/').unwrap_or(0));
                }
                if is_last {
                    out.push('/');
                }
            }
            _ => {
                out.push('/');
                out.push_str(segment);
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// RFC 3986, 5.4
    #[test]
    fn the_examples_of_the_rfc() {
        for (reference, want) in [
            ("g:h", "g:h"),
            ("g", "http://a/b/c/g"),
            ("./g", "http://a/b/c/g"),
            ("g/", "http://a/b/c/g/"),
            ("/g", "http://a/g"),
            ("//g", "http://g"),
            ("?y", "http://a/b/c/d;p?y"),
            ("g?y", "http://a/b/c/g?y"),
            ("#s", "http://a/b/c/d;p?q#s"),
            ("g#s", "http://a/b/c/g#s"),
            ("g?y#s", "http://a/b/c/g?y#s"),
            (";x", "http://a/b/c/;x"),
            ("g;x?y#s", "http://a/b/c/g;x?y#s"),
            ("", "http://a/b/c/d;p?q"),
            (".", "http://a/b/c/"),
            ("./", "http://a/b/c/"),
            ("..", "http://a/b/"),
            ("../g", "http://a/b/g"),
            ("../..", "http://a/"),
            ("../../g", "http://a/g"),
            ("../../../g", "http://a/g"),
            ("/./g", "http://a/g"),
            ("/../g", "http://a/g"),
            ("g.", "http://a/b/c/g."),
            ("..g", "http://a/b/c/..g"),
            ("./../g", "http://a/b/g"),
            ("g/./h", "http://a/b/c/g/h"),
            ("g;x=1/../y", "http://a/b/c/y"),
            ("g?y/../x", "http://a/b/c/g?y/../x"),
            ("g#s/../x", "http://a/b/c/g#s/../x"),
            ("http://x/a/../b", "http://x/b"),
            ("/a//b", "http://a/a//b"),
            ("mailto:a@b", "mailto:a@b"),
        ] {
            assert_eq!(resolve("http://a/b/c/d;p?q", reference), want, "{reference}");
        }
        assert_eq!(resolve("http://a:9091", "login?x=/y"), "http://a:9091/login?x=/y");
        assert_eq!(resolve("http://a?q", "?r"), "http://a?r");
    }

    proptest! {
        /// A path leads to the base's host, whatever it looks like.
        #[test]
        fn a_path_stays_on_its_host(path in "/([a./:@?#%]{0,12})?") {
            prop_assume!(!path.starts_with("//"));
            let resolved = resolve("https://auth.test/x/y", &path);
            prop_assert!(resolved.starts_with("https://auth.test/"), "{}", resolved);
        }
    }
}
