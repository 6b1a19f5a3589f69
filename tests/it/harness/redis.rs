//! A Redis of Debian's, on a port of its own; it keeps nothing on the disk but its cluster's list.

use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::until;

/// A server, which is gone when this is dropped.
pub(crate) struct Redis {
    port: u16,
    options: Vec<String>,
    child: Child,
    directory: TempDir,
}

impl Redis {
    /// Starts with these options behind the usual ones; `{port}` is its port.
    pub(crate) fn start(options: &[&str]) -> Self {
        let directory = TempDir::new().unwrap();
        // Nobody else is given the port at once: the kernel goes round.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let options: Vec<_> =
            options.iter().map(|option| option.replace("{port}", &port.to_string())).collect();
        let child = spawn(port, &options, directory.path());
        let redis = Self { port, options, child, directory };
        redis.listening();
        redis
    }

    fn listening(&self) {
        until("Redis listens", || TcpStream::connect(("127.0.0.1", self.port)).is_ok());
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// `host:port`.
    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let id = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        kill_process(id, signal).unwrap();
    }

    /// Ends it without a word.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts it again where it was, empty.
    pub(crate) fn restart(&mut self) {
        self.child = spawn(self.port, &self.options, self.directory.path());
        self.listening();
    }

    /// What `redis-cli` prints for this.
    pub(crate) fn cli(&self, arguments: &[&str]) -> String {
        let mut command = Command::new("redis-cli");
        command.args(["-p", &self.port.to_string()]).args(arguments);
        let output = command.output().unwrap();
        String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap()
    }
}

fn spawn(port: u16, options: &[String], directory: &Path) -> Child {
    let mut command = Command::new("redis-server");
    command.args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir"]);
    command.arg(directory).args(["--port", &port.to_string()]).args(options);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

impl Drop for Redis {
    fn drop(&mut self) {
        // It may have been killed already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
