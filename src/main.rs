//! The `doorward` command: runs the proxy, checks configurations, asks a running one for its health.

use std::collections::BTreeMap;
use std::io::{ErrorKind, IsTerminal, Write};
use std::net::{SocketAddr, TcpListener};
use std::pin::pin;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::bail;
use doorward::admin::Admin;
use doorward::app::{self, App};
use doorward::config::diagnostics::{Diagnostic, Severity, did_you_mean};
use doorward::config::loader::{self, Loaded};
use doorward::demo;
use doorward::observability::log;
use doorward::values::Disk;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::spawn_blocking;
use tracing::{debug, error, info, warn};

#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const USAGE: &str = "\
Doorward, a reverse proxy that takes the files of a Traefik v3 user as they are.

Usage: doorward [flags]               serve; what is not in a file comes from flags, else the environment
       doorward check FILE...         say what is wrong with configuration files
       doorward diff OLD NEW          say which requests get something else under another configuration
       doorward explain URL [FILE...]  say which router takes a request, and why not the others
       doorward healthcheck [flags]   ask a running proxy for /ping
       doorward bans [flags] ...      show, end and make bans of a running proxy
       doorward demo [flags]          a small fleet to look at
       doorward version
       doorward COMMAND --help

";

const VERSION_USAGE: &str = "usage: doorward version\n\nPrints the version and the platform.\n";
const STOPPING: &str = "stopping; a second signal ends it at once";
const COMMANDS: [&str; 8] =
    ["bans", "check", "demo", "diff", "explain", "healthcheck", "help", "version"];

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let result = match args.first().map(String::as_str) {
        // It knows itself which words are a reason.
        Some("bans") => bans(&args[1..]),
        command if args.iter().any(|arg| matches!(arg.as_str(), "-h" | "-help" | "--help")) => {
            help(command)
        }
        Some("help") => help(args.get(1).map(String::as_str)),
        Some("version") => version(),
        Some("check") => {
            app::check::command(&args[1..], &environment(), &mut std::io::stdout().lock())
        }
        Some("diff") => {
            let (out, err) = (std::io::stdout(), std::io::stderr());
            app::diff::command(&args[1..], &mut out.lock(), &mut err.lock())
        }
        Some("explain") => {
            let (out, err) = (std::io::stdout(), std::io::stderr());
            app::explain::command(&args[1..], &environment(), &mut out.lock(), &mut err.lock())
        }
        Some("healthcheck") => healthcheck(&args[1..]),
        Some("demo") => run_demo(&args[1..]),
        Some(word) if !word.starts_with('-') => unknown_command(word),
        _ => run(&args),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            say(&format!("doorward: {error:#}\n"));
            ExitCode::FAILURE
        }
    }
}

/// Writes to stderr; that it cannot be written to is nobody's business.
fn say(text: &str) {
    let _ = std::io::stderr().write_all(text.as_bytes());
}

fn print(text: &str) -> anyhow::Result<ExitCode> {
    match std::io::stdout().write_all(text.as_bytes()) {
        // Who reads has seen enough, as `head` does.
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(ExitCode::SUCCESS),
    }
}

/// `--help` of a command, or of the proxy.
fn help(command: Option<&str>) -> anyhow::Result<ExitCode> {
    match command {
        Some("bans") => print(app::bans::USAGE),
        Some("check") => print(app::check::USAGE),
        Some("demo") => print(demo::HELP),
        Some("diff") => print(app::diff::USAGE),
        Some("explain") => print(app::explain::USAGE),
        Some("healthcheck") => print(app::healthcheck::USAGE),
        Some("version") => print(VERSION_USAGE),
        _ => print(&[USAGE, &doorward::config::help::print_help()].concat()),
    }
}

fn version() -> anyhow::Result<ExitCode> {
    print(&format!(
        "Version:      {}\nCodename:     doorward\nOS/Arch:      {}/{}\n",
        env!("CARGO_PKG_VERSION"),
        std::env::consts::OS,
        std::env::consts::ARCH,
    ))
}

fn unknown_command(word: &str) -> anyhow::Result<ExitCode> {
    print(USAGE)?;
    match did_you_mean(word, COMMANDS) {
        Some(known) => bail!("command not found: {word}; did you mean `{known}`?"),
        None => bail!("command not found: {word}"),
    }
}

/// The environment's variables that are text.
fn environment() -> Vec<(String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

/// Loads the static configuration, or says all that is wrong with it.
fn load(args: &[String]) -> Result<Loaded, ExitCode> {
    loader::load(args, &environment(), &Disk).map_err(|problems| reported(&problems))
}

/// The same for a proxy that is to run: with the proxies on the way to its servers.
fn load_to_run(args: &[String]) -> Result<Loaded, ExitCode> {
    let variables = environment();
    let loaded = loader::load(args, &variables, &Disk);
    let loaded = loaded.and_then(|loaded| loader::add_proxies(loaded, &variables));
    loaded.map_err(|problems| reported(&problems))
}

fn reported(problems: &[Diagnostic]) -> ExitCode {
    report(problems);
    ExitCode::FAILURE
}

fn report(problems: &[Diagnostic]) {
    let color = std::io::stderr().is_terminal();
    for problem in problems {
        say(&problem.render(color));
        say("\n");
    }
    let errors = problems.iter().filter(|one| one.severity == Severity::Error).count();
    if errors > 0 {
        say(&format!("doorward: {errors} error(s) in the static configuration\n"));
    }
}

/// As many descriptors as the system allows, as Go programs have them: systems start programs with 1024 of them, for
/// the sake of some that cannot count further.
fn raise_descriptors() {
    use rustix::process::{Resource, getrlimit, setrlimit};

    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    let _ = setrlimit(Resource::Nofile, limit);
}

/// `doorward`: serves until told to stop.
fn run(args: &[String]) -> anyhow::Result<ExitCode> {
    raise_descriptors();
    // First of all: from here on a signal is an orderly stop, wherever the start has got to. While the configuration
    // is read, which may take as long as a disk does, there is nothing to stop but that.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut signals = runtime.block_on(async { Signals::listen() })?;
    let arguments = args.to_vec();
    let loaded = runtime.block_on(async {
        tokio::select! {
            loaded = spawn_blocking(move || load_to_run(&arguments)) => Some(loaded),
            () = signals.stop() => None,
        }
    });
    let loaded = match loaded.transpose()? {
        Some(Ok(loaded)) => loaded,
        Some(Err(code)) => return Ok(code),
        None => {
            runtime.shutdown_background();
            return Ok(ExitCode::SUCCESS);
        }
    };
    let guard = log::init(&loaded.config.log.clone().unwrap_or_default())?;
    for warning in &loaded.warnings {
        warn!("{warning}");
    }
    info!(version = env!("CARGO_PKG_VERSION"), source = %loaded.origin, "starting");
    if tracing::enabled!(tracing::Level::DEBUG) {
        // Its secrets say `xxxx` wherever they are written out.
        let configuration = serde_json::to_string(&loaded.config).unwrap_or_default();
        debug!(staticConfiguration = %configuration, "static configuration loaded");
    }
    if let Some(app) = runtime.block_on(serve(loaded, signals))? {
        app.finish();
    }
    // A start that somebody was in a hurry to end is not waited for.
    runtime.shutdown_background();
    guard.flush();
    Ok(ExitCode::SUCCESS)
}

/// Starts the proxy and answers signals until the workers are through with their shutdown. A stop
/// during the start is one after it: what has connected meanwhile is served. `None`: there was a
/// second one before the start was over.
async fn serve(loaded: Loaded, mut signals: Signals) -> anyhow::Result<Option<App>> {
    let sockets = inherited_sockets();
    let ping = loaded.config.ping.as_ref().filter(|ping| !ping.manual_routing);
    let ping = ping.map(|ping| ping.entry_point.clone());
    let mut starting =
        spawn_blocking(move || App::start_written(&loaded.config, Some(&loaded.node), sockets));
    let (started, stopped) = tokio::select! {
        started = &mut starting => (started, false),
        () = signals.stop() => {
            info!("{STOPPING}");
            tokio::select! {
                started = &mut starting => (started, true),
                () = signals.stop() => return Ok(None),
            }
        }
    };
    let app = started??;
    for (name, address) in app.addresses() {
        info!(entryPointName = %name, %address, "listening");
    }
    if let Some(address) = app.admin().and_then(Admin::address) {
        info!(%address, "the admin API listens");
    }
    if !stopped {
        run_until_stop(&app, ping.as_deref(), &mut signals).await;
        info!("{STOPPING}");
    }
    let _ = sd_notify::notify(false, &[sd_notify::NotifyState::Stopping]);
    app.begin_shutdown();
    tokio::select! {
        () = app.drained() => {}
        () = signals.stop() => app.cut(),
    }
    Ok(Some(app))
}

/// Answers the signals that do not end the program.
async fn run_until_stop(app: &App, ping: Option<&str>, signals: &mut Signals) {
    let _ = sd_notify::notify(false, &[sd_notify::NotifyState::Ready]);
    let mut watchdog = pin!(watchdog(ping.and_then(|ping| app.address(ping))));
    let mut look = None;
    loop {
        tokio::select! {
            _ = signals.terminate.recv() => return,
            _ = signals.interrupt.recv() => return,
            _ = signals.hang_up.recv() => {
                if let Some(admin) = app.admin() {
                    info!("SIGHUP: reading the tokens and certificates of the admin API again");
                    admin.reload();
                }
                if !app.has_file_provider() {
                    if app.admin().is_none() {
                        // Without anything to read again, Traefik dies of it, as any process does.
                        return;
                    }
                    tell_of_reload();
                    let _ = sd_notify::notify(false, &[sd_notify::NotifyState::Ready]);
                    continue;
                }
                info!("SIGHUP: looking at the dynamic files again");
                tell_of_reload();
                look = Some(app.look_again());
            }
            () = reloaded(app, look) => {
                look = None;
                let _ = sd_notify::notify(false, &[sd_notify::NotifyState::Ready]);
            }
            _ = signals.user.recv() => {
                info!("SIGUSR1: opening the access log anew");
                app.reopen_logs();
            }
            () = &mut watchdog => {}
        }
    }
}

/// What systemd wants to hear of a service of type `notify-reload`: that it begins, and when.
fn tell_of_reload() {
    let mut states = vec![sd_notify::NotifyState::Reloading];
    states.extend(sd_notify::NotifyState::monotonic_usec_now());
    let _ = sd_notify::notify(false, &states);
}

/// Completes when the reload that somebody has asked for is over; never, if nobody has.
async fn reloaded(app: &App, look: Option<u64>) {
    match look {
        Some(look) => app.reloaded(look).await,
        None => std::future::pending().await,
    }
}

/// The signals that the program answers. Those that came before they are asked for are not lost.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
    user: Signal,
}

impl Signals {
    /// Takes them over from the system, within a runtime.
    fn listen() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
            user: signal(SignalKind::user_defined1())?,
        })
    }

    /// Completes when the program is told to stop.
    async fn stop(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Tells systemd's watchdog that all is well, at half its interval, for ever: if there is a `/ping`, whenever that
/// answers. Nobody hears of it where there is no watchdog.
async fn watchdog(ping: Option<SocketAddr>) {
    let micros = std::env::var("WATCHDOG_USEC").ok().and_then(|micros| micros.parse().ok());
    let Some(micros) = micros.filter(|&micros: &u64| micros > 1) else {
        return std::future::pending().await;
    };
    let mut interval = tokio::time::interval(Duration::from_micros(micros / 2));
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        if let Some(ping) = ping {
            let asked = spawn_blocking(move || app::healthcheck::ask_at(ping)).await;
            if let Err(problem) = asked.unwrap_or_else(|panic| Err(panic.into())) {
                warn!(error = %problem, "the watchdog is told nothing: /ping does not answer");
                continue;
            }
        }
        let _ = sd_notify::notify(false, &[sd_notify::NotifyState::Watchdog]);
    }
}

/// Sockets that systemd hands over, by the name of their entry point.
fn inherited_sockets() -> BTreeMap<String, TcpListener> {
    let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
    let mut sockets = BTreeMap::new();
    let mut handed = listenfd::ListenFd::from_env();
    for (position, name) in names.split(':').enumerate().take(handed.len()) {
        match handed.take_tcp_listener(position) {
            Ok(Some(socket)) => {
                if sockets.insert(name.to_owned(), socket).is_some() {
                    error!(
                        entryPointName = name,
                        "several sockets have this name; the last counts"
                    );
                }
            }
            Ok(None) => {}
            Err(problem) => warn!(entryPointName = name, error = %problem, "not a TCP listener"),
        }
    }
    sockets
}

/// `doorward demo`: backends, a proxy in front of them, and a tour.
fn run_demo(args: &[String]) -> anyhow::Result<ExitCode> {
    let options = demo::DemoOptions::parse(args.iter().cloned())?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let input = std::io::BufReader::new(std::io::stdin());
    runtime.block_on(demo::run(options, &mut std::io::stdout(), input, |setting| async move {
        let loaded = loader::load_file(&setting.static_file, &Disk).map_err(|problems| {
            let lines: Vec<_> = problems.iter().map(Diagnostic::one_line).collect();
            anyhow::anyhow!(lines.join("\n"))
        })?;
        let app = spawn_blocking(move || App::start(&loaded.config, BTreeMap::new()));
        let app = app.await??;
        setting.stop.cancelled().await;
        app.begin_shutdown();
        app.drained().await;
        spawn_blocking(move || app.finish()).await?;
        Ok(())
    }))?;
    Ok(ExitCode::SUCCESS)
}

/// `doorward bans`: asks a running proxy who is banned.
fn bans(args: &[String]) -> anyhow::Result<ExitCode> {
    let Some(command) = app::bans::Command::read(args) else {
        if args.iter().any(|arg| matches!(arg.as_str(), "-h" | "-help" | "--help")) {
            return print(app::bans::USAGE);
        }
        say(app::bans::USAGE);
        return Ok(ExitCode::FAILURE);
    };
    match command.load(&environment(), &Disk) {
        Ok(config) => print(&command.carry_out(&config)?),
        Err(problems) => Ok(reported(&problems)),
    }
}

/// `doorward healthcheck`: asks a running proxy for `/ping`.
fn healthcheck(args: &[String]) -> anyhow::Result<ExitCode> {
    let loaded = match load(args) {
        Ok(loaded) => loaded,
        Err(code) => return Ok(code),
    };
    match app::healthcheck::ask(&loaded.config) {
        Ok(url) => print(&format!("OK: {url}\n")),
        Err(error) => {
            say(&format!("{error:#}\n"));
            Ok(ExitCode::FAILURE)
        }
    }
}
