//! `request_path`: a target as a client sends it, made canonical step by step and as a whole.

use doorward::exchange::canonical::{
    TargetRules, has_disguised_dots, is_clean, normalize_path, rewrite_query_semicolons,
    routing_path, sanitize_path,
};
use http::{Method, Uri};

/// Checks that canonical paths stay as they are, climb nowhere, and are one thing for rules and backends.
pub fn run(data: &[u8]) {
    let Ok(target) = str::from_utf8(data) else { return };
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    check_path(path);
    check_query(query);
    if let Ok(uri) = target.parse::<Uri>() {
        for encode_query_semicolons in [false, true] {
            for sanitize_path in [false, true] {
                check_target(TargetRules { sanitize_path, encode_query_semicolons }, &uri);
            }
        }
    }
}

fn check_path(path: &str) {
    // These take paths that a middleware has made, which may be anything.
    has_disguised_dots(path);
    routing_path(path);
    if is_clean(path) {
        assert!(path.is_empty() || sanitize_path(path) == path, "clean, but not sane: {path:?}");
    }
    let Ok(normal) = normalize_path(path) else { return };
    assert_eq!(normalize_path(&normal).as_deref(), Ok(&*normal), "normalized twice");
    assert!(normal.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#'), "{normal:?}");
    let sane = sanitize_path(&normal);
    assert_eq!(sanitize_path(&sane), sane, "sanitized twice");
    assert_eq!(normalize_path(&sane).as_deref(), Ok(&*sane), "normalized after sanitizing");
    if sane == "*" {
        return;
    }
    check_segments(&sane);
    assert_eq!(normal.ends_with('/'), normal.ends_with('/') && sane.ends_with('/'), "{normal:?}");
    let routed = routing_path(&sane);
    check_segments(&routed);
    assert_eq!(count(&routed, b'/'), count(&sane, b'/'), "a new separator in {routed:?}");
    // One to one: no two canonical paths are one path to the rules.
    if !routed.contains(|c: char| c.is_ascii_control()) {
        assert_eq!(normalize_path(&routed).as_deref(), Ok(&*sane), "from {routed:?}");
    }
}

fn check_segments(path: &str) {
    let Some(inner) = path.strip_prefix('/') else { panic!("{path:?} is not absolute") };
    let inner = inner.strip_suffix('/').unwrap_or(inner);
    if !inner.is_empty() {
        let bad = inner.split('/').find(|segment| matches!(*segment, "" | "." | ".."));
        assert_eq!(bad, None, "in {path:?}");
    }
}

fn count(path: &str, byte: u8) -> usize {
    path.bytes().filter(|&other| other == byte).count()
}

fn check_query(query: &str) {
    for encode in [false, true] {
        let once = rewrite_query_semicolons(query, encode);
        assert!(!once.contains(';'), "{once:?}");
        assert_eq!(rewrite_query_semicolons(&once, encode), once);
    }
}

fn check_target(rules: TargetRules, uri: &Uri) {
    let mut once = uri.clone();
    if rules.apply(&Method::GET, &mut once).is_err() {
        return;
    }
    let mut twice = once.clone();
    assert_eq!(rules.apply(&Method::GET, &mut twice), Ok(()), "{once} is refused");
    assert_eq!(once, twice, "made canonical twice");
    assert_eq!((once.scheme(), once.authority()), (uri.scheme(), uri.authority()));
    let normal = normalize_path(uri.path()).unwrap_or_default();
    assert_eq!(once.path(), if rules.sanitize_path { sanitize_path(&normal) } else { normal });
    assert!(!once.query().unwrap_or_default().contains(';'), "{once}");
}
