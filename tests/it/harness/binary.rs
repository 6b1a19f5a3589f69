//! The program itself, as a child process.

use std::ffi::OsStr;
use std::fs;
use std::io::Read;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use super::proxy::{Proxy, Setup, write_dynamic};
use super::until;

/// Runs the program to its end.
pub(crate) fn run(arguments: &[&str]) -> Output {
    command(Path::new(".")).args(arguments).output().unwrap()
}

/// Without what the machine's environment would configure.
pub(crate) fn command(directory: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_doorward"));
    command.env_clear().current_dir(directory);
    command
}

/// The program as a running proxy. Its log is a file, at level debug where the options have no other.
pub(crate) struct Process {
    child: Child,
    setup: Setup,
}

impl Process {
    /// Starts with these options, laid over the usual ones, and this dynamic configuration.
    pub(crate) fn start(options: &Value, text: &str) -> Self {
        Self::start_in(&[], options, text)
    }

    /// The same with these variables in its environment.
    pub(crate) fn start_in(environment: &[(&str, &OsStr)], options: &Value, text: &str) -> Self {
        Self::begin(environment, options, text).listening()
    }

    /// The same as systemd starts it for a socket of that name (`sd_listen_fds(3)`); with two names, and a colon in
    /// between, it has the socket twice.
    pub(crate) fn activated(socket: TcpListener, name: &str, options: &Value, text: &str) -> Self {
        let script = "count=1; case $0 in *:*) exec 4<&0; count=2;; esac
            exec 3<&0 </dev/null
            export LISTEN_PID=$$ LISTEN_FDS=$count LISTEN_FDNAMES=\"$0\"
            exec \"$@\"";
        let mut shell = Command::new("/bin/sh");
        shell.env_clear().stdin(OwnedFd::from(socket));
        shell.args(["-c", script, name, env!("CARGO_BIN_EXE_doorward")]);
        Self::spawn(shell, options, text).listening()
    }

    /// The same in the cgroup with this folder, which may take root.
    #[cfg(target_os = "linux")]
    pub(crate) fn in_group(group: &Path, options: &Value, text: &str) -> Self {
        let script = "echo $$ 2>/dev/null >\"$0\" || sudo -n /bin/sh -c \"echo $$ >'$0'\" || exit 1
            exec \"$@\"";
        let mut shell = Command::new("/bin/sh");
        shell.env_clear().args(["-c", script]).arg(group.join("cgroup.procs"));
        shell.arg(env!("CARGO_BIN_EXE_doorward"));
        Self::by(shell, options, text)
    }

    /// The same by a command that becomes the program.
    pub(crate) fn by(command: Command, options: &Value, text: &str) -> Self {
        Self::spawn(command, options, text).listening()
    }

    fn listening(self) -> Self {
        let mut process = self;
        until("the program listens", || process.try_address("web").is_some() || process.is_over());
        if process.is_over() {
            let mut said = String::new();
            process.child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
            panic!("the program did not start: {said}\n{}", process.log());
        }
        process
    }

    /// The same without waiting until it listens.
    pub(crate) fn begin(environment: &[(&str, &OsStr)], options: &Value, text: &str) -> Self {
        let mut command = command(Path::new("."));
        command.envs(environment.iter().copied());
        Self::spawn(command, options, text)
    }

    fn spawn(mut command: Command, options: &Value, text: &str) -> Self {
        let mut setup = Proxy::with(options.clone());
        let level = options["log"]["level"].as_str().unwrap_or("DEBUG");
        let log = json!({"level": level, "format": "json", "filePath": log_file(&setup)});
        setup.set("log", &log);
        let file = setup.files(text);
        let child = command
            .current_dir(setup.directory())
            .arg(format!("--configFile={}", file.display()))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Self { child, setup }
    }

    pub(crate) fn directory(&self) -> &Path {
        self.setup.directory()
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(log_file(&self.setup)).unwrap_or_default()
    }

    /// Where an entry point listens, as the log says.
    pub(crate) fn address(&self, entry_point: &str) -> SocketAddr {
        self.try_address(entry_point).unwrap()
    }

    fn try_address(&self, entry_point: &str) -> Option<SocketAddr> {
        let log = self.log();
        log.lines().find_map(|line| {
            let line: Value = serde_json::from_str(line).ok()?;
            let found = line["message"] == "listening" && line["entryPointName"] == entry_point;
            line["address"].as_str().filter(|_| found)?.parse().ok()
        })
    }

    pub(crate) fn id(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.id(), signal).unwrap();
    }

    /// Replaces the dynamic file in one step.
    pub(crate) fn write(&self, text: &str) {
        write_dynamic(self.directory(), text);
    }

    pub(crate) fn is_over(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Waits for the end.
    pub(crate) fn end(&mut self) -> ExitStatus {
        until("the program ends", || self.is_over());
        self.child.wait().unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn log_file(setup: &Setup) -> PathBuf {
    setup.directory().join("doorward.log")
}
