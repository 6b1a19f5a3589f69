//! Requests that come round: a server's address that leads back to this proxy, by itself or through something that
//! leaves `X-Forwarded-Server` alone, as nginx does.
//!
//! A request that this machine has forwarded last is known by that header, and only such a request is counted and
//! carries a count, so no other one changes. Whoever makes the two headers up is refused, and nobody else. A round that
//! leads over another Doorward or Traefik is not seen: each writes its own name there, and to know it all the same,
//! every request to a server would have to carry a mark. Limits of connections and of time end it.

use http::header::{HeaderMap, HeaderName, HeaderValue};

use super::forwarded::X_FORWARDED_SERVER;

/// How often a request came back. Doorward's own.
pub const X_DOORWARD_ROUNDS: HeaderName = HeaderName::from_static("x-doorward-rounds");

/// A request may come back so often, and is forwarded once more often: an application may well be asked through its
/// public address.
const MOST: u16 = 9;

/// Counts one more round of a request that was here before; `false` if it has gone round too often. To be asked before
/// forwarded headers are written.
pub fn count(headers: &mut HeaderMap, server_name: &HeaderValue) -> bool {
    let was_here = headers.get(X_FORWARDED_SERVER).is_some_and(|server| server == server_name);
    if !was_here || server_name.is_empty() {
        return true;
    }
    let count = headers.get(X_DOORWARD_ROUNDS).and_then(|count| count.to_str().ok()?.parse().ok());
    let count: u16 = count.unwrap_or(0);
    if count < MOST {
        headers.insert(X_DOORWARD_ROUNDS, HeaderValue::from(count + 1));
    }
    count < MOST
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_here_is_counted() {
        let here = HeaderValue::from_static("here");
        let mut headers = HeaderMap::new();
        for server in [None, Some("there"), Some(""), Some("HERE")] {
            if let Some(server) = server {
                headers.insert(X_FORWARDED_SERVER, HeaderValue::from_static(server));
            }
            for _ in 0..20 {
                assert!(count(&mut headers, &here), "{server:?}");
            }
            assert!(!headers.contains_key(X_DOORWARD_ROUNDS), "{server:?}");
        }
        headers.insert(X_FORWARDED_SERVER, HeaderValue::from_static(""));
        assert!(count(&mut headers, &HeaderValue::from_static("")), "a machine without a name");
        assert!(!headers.contains_key(X_DOORWARD_ROUNDS));
        for made_up in ["", "-1", "x", "99999999999", "\u{9}1"] {
            headers.insert(X_FORWARDED_SERVER, here.clone());
            headers.insert(X_DOORWARD_ROUNDS, HeaderValue::from_str(made_up).unwrap());
            for round in 1..=MOST {
                assert!(count(&mut headers, &here), "{made_up:?}");
                assert_eq!(headers[X_DOORWARD_ROUNDS], round.to_string().as_str());
            }
            assert!(!count(&mut headers, &here) && !count(&mut headers, &here));
        }
    }
}
