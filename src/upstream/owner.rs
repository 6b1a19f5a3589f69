//! Connections to servers that belong to one client's connection, and to nobody else.
//!
//! NTLM, and Negotiate as IIS speaks it, authenticate a connection and not a request: whoever sends over it is the
//! user. So from the first word of them, in a request or in an answer, a client's connection has connections of its
//! own, and the one that the word was said on never carries anybody else's requests again. They end with the client's.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use http::HeaderMap;
use http::header::{AUTHORIZATION, HeaderName, WWW_AUTHENTICATE};

use super::pool;
use crate::exchange::Context;

/// Whose connections they are.
#[derive(Debug)]
pub(super) struct Owner {
    id: u64,
}

/// Who owns what anybody may use.
pub(super) const NOBODY: u64 = 0;

static NEXT_OWNER: AtomicU64 = AtomicU64::new(NOBODY + 1);

impl Owner {
    /// A new one.
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { id: NEXT_OWNER.fetch_add(1, Ordering::Relaxed) })
    }

    /// Unique in the process, and not [`NOBODY`].
    pub(super) fn id(&self) -> u64 {
        self.id
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        pool::disown(self.id);
    }
}

/// Who sends a request with these headers, if not anybody.
pub(super) fn of_request<'a>(cx: &'a Context, headers: &HeaderMap) -> Option<&'a Arc<Owner>> {
    if binds(headers, &AUTHORIZATION) {
        return cx.connection.own.get_or_init(|| Box::new(Owner::new())).downcast_ref();
    }
    cx.connection.own.get().and_then(|owner| owner.downcast_ref())
}

/// Who alone sends a question of our own with these headers, if not anybody: its connection ends with it.
pub(super) fn of_question(headers: &HeaderMap) -> Option<Arc<Owner>> {
    binds(headers, &AUTHORIZATION).then(Owner::new)
}

/// Whether an answer with these headers begins, or goes on with, the authentication of its connection.
pub(super) fn is_bound_by(headers: &HeaderMap) -> bool {
    binds(headers, &WWW_AUTHENTICATE)
}

/// The client's connection, which owned nothing, now owns what its answer came over. Another answer may have been
/// quicker; then that connection is closed.
pub(super) fn adopt(cx: &Context, owner: Arc<Owner>) {
    let _ = cx.connection.own.set(Box::new(owner));
}

fn binds(headers: &HeaderMap, name: &HeaderName) -> bool {
    headers.get_all(name).iter().any(|value| {
        ["NTLM", "Negotiate"].iter().any(|scheme| {
            let start = value.as_bytes().get(..scheme.len());
            start.is_some_and(|start| start.eq_ignore_ascii_case(scheme.as_bytes()))
        })
    })
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn schemes_that_bind_a_connection() {
        for (values, want) in [
            (&[][..], false),
            (&["Basic realm=\"x\""], false),
            (&["NTL"], false),
            (&["Bearer NTLM"], false),
            (&["Basic realm=\"x\"", "NTLM"], true),
            (&["NTLM TlRMTVNTUAAB"], true),
            (&["negotiate YII"], true),
        ] {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(WWW_AUTHENTICATE, HeaderValue::from_static(value));
            }
            assert_eq!(is_bound_by(&headers), want, "{values:?}");
        }
    }
}
