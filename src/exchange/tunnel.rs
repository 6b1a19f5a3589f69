//! The end of life of an upgraded connection, which outlives its response.
//!
//! Whoever hooks into a response uses `on_end` here and need not know whether it is a tunnel.

use std::sync::{Arc, Mutex, PoisonError};

use http::StatusCode;

use super::{BodyEnd, EndHook, Response};

/// In the extensions of a 101 response: calls its hooks when the tunnel is over.
#[derive(Clone, Default)]
pub struct Tunnel {
    hooks: Arc<Mutex<Hooks>>,
}

#[derive(Default)]
struct Hooks {
    waiting: Vec<Box<dyn EndHook>>,
    over: Option<BodyEnd>,
}

impl Tunnel {
    /// Calls `hook` when the tunnel is over, or now if it is.
    pub fn on_end(&self, hook: Box<dyn EndHook>) {
        let mut hooks = self.hooks.lock().unwrap_or_else(PoisonError::into_inner);
        match hooks.over {
            Some(end) => {
                drop(hooks);
                hook.ended(end, None);
            }
            None => hooks.waiting.push(hook),
        }
    }

    /// Says that the tunnel is over.
    pub fn finish(&self, end: BodyEnd) {
        let waiting = {
            let mut hooks = self.hooks.lock().unwrap_or_else(PoisonError::into_inner);
            hooks.over = Some(end);
            std::mem::take(&mut hooks.waiting)
        };
        for hook in waiting {
            hook.ended(end, None);
        }
    }
}

/// Calls `hook` when the exchange is over: at the end of the body, or of the tunnel.
pub fn on_end(response: &mut Response, hook: impl EndHook + 'static) {
    on_end_boxed(response, Box::new(hook));
}

/// As [`on_end`], for a hook that has its box already.
pub fn on_end_boxed(response: &mut Response, hook: Box<dyn EndHook>) {
    if response.status() == StatusCode::SWITCHING_PROTOCOLS
        && let Some(tunnel) = response.extensions().get::<Tunnel>()
    {
        tunnel.on_end(hook);
        return;
    }
    response.body_mut().on_end_boxed(hook);
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;
    use crate::exchange::{Body, Ending};

    #[test]
    fn a_tunnels_hook_waits_for_its_end() {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let tunnel = Tunnel::default();
        response.extensions_mut().insert(tunnel.clone());
        let bytes = Arc::new(AtomicU64::new(0));
        let seen = Arc::clone(&bytes);
        on_end(&mut response, move |end: BodyEnd, _: Option<&http::HeaderMap>| {
            seen.store(end.bytes, Ordering::Relaxed);
        });
        drop(response);
        assert_eq!(bytes.load(Ordering::Relaxed), 0);
        tunnel.finish(BodyEnd { ending: Ending::Complete, bytes: 7 });
        assert_eq!(bytes.load(Ordering::Relaxed), 7);
    }
}
