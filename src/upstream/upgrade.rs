//! Tunnels: what a connection becomes once a server has switched protocols (RFC 9110, 7.8).
//!
//! Bytes are copied as they are, without an idle timeout, until both sides have ended or the
//! shutdown's grace time is over. An open tunnel counts as open work of its client connection.

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;

use super::copy::both_ways;
use crate::exchange::Context;

/// Joins the client's connection and the server's as soon as both have switched.
pub(super) fn tunnel(cx: &Context, client: OnUpgrade, server: OnUpgrade) {
    let work = cx.connection.work.begin();
    tokio::task::spawn_local(async move {
        let copying = async {
            let server = server.await?;
            let client = client.await?;
            Ok::<_, hyper::Error>(both_ways(TokioIo::new(client), TokioIo::new(server)).await)
        };
        tokio::select! {
            () = work.cut() => tracing::debug!("a tunnel was cut"),
            copied = copying => match copied {
                Ok(Ok(_)) => {}
                Ok(Err(error)) => tracing::trace!(%error, "a tunnel has failed"),
                Err(error) => tracing::debug!(%error, "an upgrade did not come about"),
            },
        }
    });
}
