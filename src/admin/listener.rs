//! Where the admin API listens: one TCP address, or one Unix socket that is nobody else's from the
//! moment it exists.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use rustix::fs::{Mode, fchmod};
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use super::call::Place;
use super::config::AdminConfig;
use crate::values::BuildError;

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 64;
const NO_SOCKET: &str = "there is something that is no socket";

/// See the module.
pub(super) struct Listener {
    socket: Listening,
    address: Option<SocketAddr>,
    /// Removed with the listener.
    _trace: Option<Trace>,
}

enum Listening {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// A connection.
pub(super) enum Stream {
    /// Over TCP.
    Tcp(TcpStream),
    /// Over a socket of the file system.
    Unix(UnixStream),
}

/// What a Unix socket leaves behind; removed when this is dropped, if it is still that one.
struct Trace {
    path: PathBuf,
    file: (u64, u64),
}

impl Listener {
    /// Binds what is configured, within a runtime.
    pub(super) fn bind(config: &AdminConfig) -> anyhow::Result<Self> {
        if let Some(address) = config.socket_address() {
            let socket = std::net::TcpListener::bind(address)
                .with_context(|| format!("the admin API cannot listen at {address}"))?;
            socket.set_nonblocking(true)?;
            let bound = socket.local_addr()?;
            let socket = Listening::Tcp(TcpListener::from_std(socket)?);
            return Ok(Self { socket, address: Some(bound), _trace: None });
        }
        let path = &config.socket;
        let (socket, trace) = bind_unix(path)
            .with_context(|| format!("the admin API cannot listen at {}", path.display()))?;
        let socket = Listening::Unix(UnixListener::from_std(socket)?);
        Ok(Self { socket, address: None, _trace: Some(trace) })
    }

    /// The address, unless it is a path.
    pub(super) fn address(&self) -> Option<SocketAddr> {
        self.address
    }

    /// The next connection, and where it comes from.
    pub(super) async fn accept(&self) -> io::Result<(Stream, Place)> {
        match &self.socket {
            Listening::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                Ok((Stream::Tcp(stream), Place::Address(peer)))
            }
            Listening::Unix(listener) => {
                let (stream, _) = listener.accept().await?;
                let user = stream.peer_cred()?.uid();
                Ok((Stream::Unix(stream), Place::User(user)))
            }
        }
    }
}

fn bind_unix(path: &Path) -> anyhow::Result<(std::os::unix::net::UnixListener, Trace)> {
    remove_stale(path)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // The file takes its mode from the socket, so that there is no moment at which others could
    // connect, whatever the umask. Where that is not so, the second call is what counts.
    let own = Mode::RUSR | Mode::WUSR;
    fchmod(&socket, own)?;
    socket.bind(&SockAddr::unix(path)?)?;
    rustix::fs::chmod(path, own)?;
    let file = fs::symlink_metadata(path)?;
    let trace = Trace { path: path.to_owned(), file: (file.dev(), file.ino()) };
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok((socket.into(), trace))
}

/// What is wrong with the path of a socket, as far as it shows without binding one.
pub(super) fn check(path: &Path) -> Option<BuildError> {
    let found = fs::symlink_metadata(path).ok()?;
    let message = format!("`{}`: {NO_SOCKET}", path.display());
    (!found.file_type().is_socket()).then(|| BuildError::at("socket", message))
}

/// Removes a socket that nobody listens at any more, and nothing else.
fn remove_stale(path: &Path) -> anyhow::Result<()> {
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    if !found.file_type().is_socket() {
        bail!(NO_SOCKET);
    }
    match StdUnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            Ok(fs::remove_file(path)?)
        }
        Ok(_) => bail!("another process listens there"),
        Err(error) => Err(error.into()),
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        let same = fs::symlink_metadata(&self.path)
            .is_ok_and(|found| (found.dev(), found.ino()) == self.file);
        if same {
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn bind(path: &Path) -> anyhow::Result<Listener> {
        Listener::bind(&AdminConfig { socket: path.to_owned(), ..AdminConfig::default() })
    }

    #[tokio::test]
    async fn a_socket_is_its_owners_and_is_removed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("admin.sock");
        let listener = bind(&path).unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(listener.address().is_none());
        let client = UnixStream::connect(&path).await.unwrap();
        let (_, from) = listener.accept().await.unwrap();
        assert_eq!(from, Place::User(rustix::process::geteuid().as_raw()));
        drop(client);
        assert!(bind(&path).is_err());
        drop(listener);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn what_another_left_is_removed_only_if_it_is_a_dead_socket() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("admin.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let listener = bind(&path).unwrap();
        fs::remove_file(&path).unwrap();
        fs::write(&path, "not ours").unwrap();
        drop(listener);
        assert_eq!(fs::read_to_string(&path).unwrap(), "not ours");
        assert!(bind(&path).is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), "not ours");
    }
}
