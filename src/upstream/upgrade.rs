//! Tunnels: what a connection becomes once a server has switched protocols (RFC 9110, 7.8).
//!
//! Bytes are copied as they are, without an idle timeout, until both sides have ended, the shutdown's grace time is over
//! or memory or descriptors run out; but for the `exact` profile a client that is left alone has a minute. An open tunnel
//! counts as open work of its client connection.

use std::sync::Arc;
use std::time::Duration;

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;

use super::connect::Stream;
use super::copy::both_ways;
use crate::exchange::memory::Held;
use crate::exchange::{BodyEnd, Context, Ending, Tunnel};
use crate::tls::PrefixedStream;

/// How long a client may go on saying nothing when its server has gone.
const PATIENCE: Duration = Duration::from_mins(1);

/// Joins the client's connection, as soon as it has switched, and the server's. Who wants to know
/// when the tunnel is over asks what this returns. What is `held` for the client's connection is for the tunnel now.
pub(super) fn tunnel(
    cx: &Context,
    client: OnUpgrade,
    held: Option<Arc<Held>>,
    server: PrefixedStream<Stream>,
) -> Tunnel {
    let work = cx.connection.work.begin();
    let tunnel = Tunnel::default();
    let over = tunnel.clone();
    let patience = (!cx.connection.entry_point.exact).then_some(PATIENCE);
    tokio::task::spawn_local(async move {
        let copying = async {
            let client = client.await?;
            let copied = both_ways(TokioIo::new(client), server, patience, held.as_ref()).await;
            Ok::<_, hyper::Error>(copied)
        };
        let ended = async {
            match &held {
                Some(held) => held.told_to_end().await,
                None => std::future::pending().await,
            }
        };
        let mut end = BodyEnd { ending: Ending::Failed, bytes: 0 };
        tokio::select! {
            () = work.cut() => {
                end.ending = Ending::Dropped;
                tracing::debug!("a tunnel was cut");
            }
            () = ended => {
                end.ending = Ending::Dropped;
                tracing::debug!("a tunnel was ended for want of memory or descriptors");
            }
            copied = copying => match copied {
                Ok(Ok((_, bytes))) => end = BodyEnd { ending: Ending::Complete, bytes },
                Ok(Err(error)) => tracing::trace!(%error, "a tunnel has failed"),
                Err(error) => tracing::debug!(%error, "an upgrade did not come about"),
            },
        }
        over.finish(end);
    });
    tunnel
}
