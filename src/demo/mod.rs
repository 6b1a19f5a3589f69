//! `doorward demo`: Doorward in front of small backends that behave like Odoo's pods, with two
//! tenants over TLS. It starts the proxy through a function it is given, so that it stands beside
//! the application and not above it. Whatever way it ends, its files are removed.

mod client;
mod console;
mod files;
mod fleet;
mod odoo;
mod options;
mod pages;
mod tour;
mod websocket;

#[cfg(test)]
mod stand_in;

use std::io::{BufRead, Write};
use std::path::PathBuf;
use std::pin::pin;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use self::client::Client;
use self::files::Files;
use self::fleet::Fleet;
pub use self::odoo::{Backend, Behaviour, PortError};
pub use self::options::{DemoOptions, HELP, OptionError};

/// How long the proxy may take to stop.
const STOP_LIMIT: Duration = Duration::from_secs(10);

/// What the proxy is started with.
#[derive(Clone, Debug)]
pub struct ProxySetting {
    /// The static configuration, YAML. It names the dynamic file by its absolute path.
    pub static_text: String,
    /// The file that holds that text.
    pub static_file: PathBuf,
    /// The directory of the dynamic file, and of nothing else.
    pub dynamic_directory: PathBuf,
    /// Cancelled when the proxy shall stop.
    pub stop: CancellationToken,
}

/// Runs the demo. `start_proxy` makes the future that is the proxy: it serves until
/// [`ProxySetting::stop`] is cancelled. Commands are read from `input`, a line each.
///
/// With [`DemoOptions::tour`] it fails when anything on the tour did.
pub async fn run<Start, Proxy>(
    options: DemoOptions,
    output: &mut dyn Write,
    input: impl BufRead + Send + 'static,
    start_proxy: Start,
) -> anyhow::Result<()>
where
    Start: FnOnce(ProxySetting) -> Proxy,
    Proxy: Future<Output = anyhow::Result<()>>,
{
    if options.help {
        return Ok(output.write_all(HELP.as_bytes())?);
    }
    fleet::check_front_ports(&options)?;
    let mut fleet = Fleet::start(&options).await?;
    let files = Files::write(&options).context("the demo's files cannot be written")?;
    let client = Client::new(&options)?;
    let stop = CancellationToken::new();
    let mut proxy = pin!(start_proxy(ProxySetting {
        static_text: files.static_text().to_owned(),
        static_file: files.static_file(),
        dynamic_directory: files.dynamic_directory(),
        stop: stop.clone(),
    }));
    let interactive = options.tour.is_none();
    let session = async {
        client.wait_for_proxy().await?;
        console::introduce(output, &options, &files)?;
        match options.tour {
            Some(length) => tour::run(output, &client, &mut fleet, length).await,
            None => console::run(output, input, &client, &mut fleet).await,
        }
    };
    let result = tokio::select! {
        ended = &mut proxy => match ended {
            // The signal that ends the demo may have reached the proxy first.
            Ok(()) if interactive => Ok(()),
            Ok(()) => Err(anyhow!("the proxy stopped by itself")),
            Err(error) => Err(error.context("the proxy cannot run")),
        },
        result = session => {
            stop.cancel();
            match timeout(STOP_LIMIT, proxy).await {
                Ok(stopped) => result.and(stopped.context("the proxy did not stop well")),
                Err(_) => result.and(Err(anyhow!("the proxy did not stop in {STOP_LIMIT:?}"))),
            }
        }
    };
    fleet.stop_all().await;
    result
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;
    use std::io::Cursor;

    use super::stand_in::{self, Fault};
    use super::*;

    /// Ports below the range from which the system gives out its own, a block for each test.
    fn options(block: u16, line: &str) -> DemoOptions {
        let base = 21_000 + block * 500;
        let ports = format!(
            "--http-port {} --https-port {} --admin-port {} --backend-port-base {base} {line}",
            base + 400,
            base + 401,
            base + 402
        );
        DemoOptions::parse(ports.split_whitespace().map(str::to_owned)).unwrap()
    }

    async fn demo(options: DemoOptions, commands: &'static str, fault: Fault) -> (bool, String) {
        let mut output = Vec::new();
        let front = options.clone();
        let result = run(options, &mut output, Cursor::new(commands), |setting| {
            stand_in::serve(front, setting, fault)
        })
        .await;
        let mut text = String::from_utf8(output).unwrap();
        let good = result.is_ok();
        if let Err(error) = result {
            write!(text, "{error:#}").unwrap();
        }
        (good, text)
    }

    #[tokio::test]
    async fn the_tour_is_green_with_a_proxy_that_does_its_work() {
        let (good, text) = demo(options(0, "--for 4s"), "", Fault::None).await;
        assert!(good, "{text}");
        for words in ["north-1 is stopped", "south-standby", "WebSocket", "nothing failed"] {
            assert!(text.contains(words), "{words}: {text}");
        }
    }

    #[tokio::test]
    async fn the_tour_fails_with_a_proxy_that_does_not_try_another_pod() {
        let (good, text) = demo(options(1, "--for 6s"), "", Fault::NoRetry).await;
        assert!(!good, "{text}");
        assert!(text.contains("north goes on without north-1"), "{text}");
    }

    #[tokio::test]
    async fn the_tour_fails_with_a_proxy_that_mixes_tenants() {
        let (good, text) = demo(options(2, "--for 6s"), "", Fault::MixedTenants).await;
        assert!(!good, "{text}");
    }

    #[tokio::test]
    async fn commands_stop_and_start_pods() {
        let commands = "help\nstatus\nstop north-1\nstop nort-2\nstart north-1\nfly\nquit\n";
        let (good, text) = demo(options(3, ""), commands, Fault::None).await;
        assert!(good, "{text}");
        for words in [
            "north-1 is stopped",
            "did you mean `north-2`?",
            "north-1 runs",
            "no command `fly`",
            "https://north.localhost:22901/web",
        ] {
            assert!(text.contains(words), "{words}: {text}");
        }
    }

    #[tokio::test]
    async fn a_taken_port_is_named_with_what_to_do() {
        let options = options(4, "--for 1s");
        let taken = std::net::TcpListener::bind(("127.0.0.1", options.https_port)).unwrap();
        let (good, text) = demo(options.clone(), "", Fault::None).await;
        assert!(!good);
        assert!(text.contains("port 23401 is taken"), "{text}");
        assert!(text.contains("--https-port"), "{text}");
        drop(taken);
        let _taken = std::net::TcpListener::bind(("127.0.0.1", 23_103)).unwrap();
        let (good, text) = demo(options, "", Fault::None).await;
        assert!(!good);
        assert!(text.contains("port 23103 is taken"), "{text}");
        assert!(text.contains("--backend-port-base"), "{text}");
    }

    #[tokio::test]
    async fn a_proxy_that_cannot_start_is_said() {
        let mut output = Vec::new();
        let result = run(options(5, "--for 1s"), &mut output, Cursor::new(""), |_| async {
            Err(anyhow!("no such thing"))
        });
        let error = format!("{:#}", result.await.unwrap_err());
        assert_eq!(error, "the proxy cannot run: no such thing");
    }

    #[tokio::test]
    async fn help_starts_nothing() {
        let mut output = Vec::new();
        let options = DemoOptions { help: true, ..DemoOptions::default() };
        let result = run(options, &mut output, Cursor::new(""), |_| async {
            panic!("the proxy is not asked for")
        });
        result.await.unwrap();
        assert_eq!(output, HELP.as_bytes());
    }
}
