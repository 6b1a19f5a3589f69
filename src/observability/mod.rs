//! What the proxy says about itself: its own log, the access log, and Prometheus metrics.
//!
//! Nothing here ever holds up a request: lines go to one writer thread through a bounded queue and
//! are dropped and counted when it is full; counters are atomics bound when the table is compiled.

pub mod access_log;

pub mod log;
pub mod metrics;
mod rotate;
mod text;
mod writer;

use std::io;
use std::path::PathBuf;

use crate::values::BuildError;

/// Why a log could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An option that cannot be served.
    #[error(transparent)]
    Option(#[from] BuildError),
    /// The file cannot be opened.
    #[error("cannot open the log file `{}`", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The writer thread cannot be started.
    #[error("cannot start the log writer")]
    Thread(#[source] io::Error),
    /// Another log is in place already.
    #[error("a log is in place already")]
    Twice,
}
