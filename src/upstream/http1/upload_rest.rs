//! The rest of a request whose answer has begun before the request was over.
//!
//! Each direction then has to go on although the other stands still: the client may read nothing before it has sent
//! everything. So the rest gets a task of its own, which ends when the answer does.

use std::future::poll_fn;

use tokio::io::WriteHalf;

use super::encode::Sending;
use crate::upstream::connect::Stream;
use crate::upstream::upload::Upload;

/// Sends the rest. A failure of the body is in its state, and a server that takes no more may still answer.
pub(super) async fn upload_rest(
    mut sending: Sending,
    mut stream: WriteHalf<Stream>,
    mut upload: Upload,
) {
    let over = poll_fn(|cx| sending.poll(cx, &mut stream, &mut upload)).await;
    if let Err(stopped) = over {
        tracing::trace!(?stopped, "a request was not sent to its end");
    }
}
