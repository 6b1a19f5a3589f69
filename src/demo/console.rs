//! The demo as a person uses it: what to open and what to try, and commands that stop and start
//! pods.

use std::collections::BTreeSet;
use std::io::{self, BufRead, Write};
use std::time::Duration;

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc::{Receiver, channel};
use tokio::time::{Instant, sleep};

use super::client::Client;
use super::files::Files;
use super::fleet::Fleet;
use super::options::DemoOptions;
use crate::config::diagnostics::did_you_mean;

/// How long a pod that runs again may take until requests reach it.
const RETURN_LIMIT: Duration = Duration::from_secs(5);

const COMMANDS: [&str; 5] = ["stop", "start", "status", "help", "quit"];

const COMMAND_HELP: &str = "  stop POD     close its ports and connections, as a pod's end does
  start POD    open them again
  status       the pods, and who answers for the tenants now
  quit         stop everything
";

/// Says what runs, what to open and what to try.
pub(super) fn introduce(
    output: &mut dyn Write,
    options: &DemoOptions,
    files: &Files,
) -> io::Result<()> {
    let (https, http, admin) = (options.https_port, options.http_port, options.admin_port);
    let curl = format!("curl --cacert {}", files.authority_file().display());
    let north = format!("https://north.localhost:{https}");
    let south = format!("https://south.localhost:{https}");
    writeln!(output, "Doorward runs in front of four small Odoos.\n")?;
    writeln!(output, "Open (the certificate is for development: tell the browser to go on)")?;
    writeln!(output, "  {north}/web        two pods, north-1 and north-2")?;
    writeln!(output, "  {south}/web        one pod, south-1, with south-standby behind it")?;
    writeln!(output, "\nTry")?;
    writeln!(output, "  {curl} {north}/web")?;
    writeln!(output, "  {curl} -i {north}/web/database/manager        # 403: closed at the edge")?;
    writeln!(output, "  curl -i http://north.localhost:{http}/        # 301: HTTPS only")?;
    writeln!(
        output,
        "  {curl} -iN --http1.1 -m 2 -H 'Connection: Upgrade' -H 'Upgrade: websocket' \
         -H 'Sec-WebSocket-Version: 13' -H 'Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==' \
         {north}/websocket        # 101: the bus"
    )?;
    writeln!(output, "  curl http://localhost:{admin}/api/http/services")?;
    writeln!(output, "  curl http://localhost:{admin}/metrics")?;
    writeln!(output, "\nPods")?;
    for pod in options.pods() {
        writeln!(output, "  {:<14} pages on {}, bus on {}", pod.name, pod.http, pod.bus)?;
    }
    writeln!(output, "\nConfiguration, which takes effect when it is changed")?;
    writeln!(output, "  {}\n", files.dynamic_file().display())?;
    output.flush()
}

/// Obeys commands until `quit` or a signal. When the input ends, only a signal ends the demo.
pub(super) async fn run(
    output: &mut dyn Write,
    input: impl BufRead + Send + 'static,
    client: &Client,
    fleet: &mut Fleet,
) -> anyhow::Result<()> {
    writeln!(output, "See it fail over: `stop north-1`, reload the page, `start north-1`.")?;
    write!(output, "{COMMAND_HELP}")?;
    output.flush()?;
    let mut lines = lines(input)?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    loop {
        let line = tokio::select! {
            Some(line) = lines.recv() => line,
            _ = interrupt.recv() => break,
            _ = terminate.recv() => break,
        };
        let mut words = line.split_whitespace();
        let (command, name) = (words.next(), words.next().unwrap_or_default());
        let result = match command {
            None => continue,
            Some("quit" | "exit") => break,
            Some("stop") => stop(output, client, fleet, name).await,
            Some("start") => start(output, client, fleet, name).await,
            Some("status") => status(output, client, fleet).await,
            Some("help") => write!(output, "{COMMAND_HELP}").map_err(Into::into),
            Some(other) => {
                let meant = did_you_mean(other, COMMANDS);
                let meant = match meant {
                    Some(meant) => format!("did you mean `{meant}`?"),
                    None => format!("there are {}", COMMANDS.join(", ")),
                };
                writeln!(output, "no command `{other}`: {meant}").map_err(Into::into)
            }
        };
        if let Err(error) = result {
            writeln!(output, "{error:#}")?;
        }
        output.flush()?;
    }
    writeln!(output, "stopping")?;
    Ok(())
}

async fn stop(
    output: &mut dyn Write,
    client: &Client,
    fleet: &mut Fleet,
    name: &str,
) -> anyhow::Result<()> {
    fleet.stop(name).await?;
    writeln!(output, "{name} is stopped")?;
    answered_by(output, client, tenant_of(name)).await
}

async fn start(
    output: &mut dyn Write,
    client: &Client,
    fleet: &mut Fleet,
    name: &str,
) -> anyhow::Result<()> {
    fleet.resume(name).await?;
    writeln!(output, "{name} runs")?;
    let tenant = tenant_of(name);
    // A standby is asked only in need, so its return is not seen in the answers.
    let deadline = Instant::now() + RETURN_LIMIT;
    while name != "south-standby" && Instant::now() < deadline {
        if answering(client, tenant).await.contains(name) {
            break;
        }
        sleep(Duration::from_millis(200)).await;
    }
    answered_by(output, client, tenant).await
}

async fn status(output: &mut dyn Write, client: &Client, fleet: &Fleet) -> anyhow::Result<()> {
    for pod in fleet.pods() {
        let (http, bus) = pod.ports();
        let state = if pod.is_running() { "running" } else { "stopped" };
        let (name, requests) = (pod.name(), pod.requests());
        writeln!(output, "  {name:<14} {state}  pages {http}  bus {bus}  {requests} requests")?;
    }
    for tenant in ["north", "south"] {
        answered_by(output, client, tenant).await?;
    }
    Ok(())
}

async fn answered_by(output: &mut dyn Write, client: &Client, tenant: &str) -> anyhow::Result<()> {
    let pods: Vec<_> = answering(client, tenant).await.into_iter().collect();
    Ok(writeln!(output, "  {tenant}.localhost is answered by {}", pods.join(", "))?)
}

/// Who answers a few requests of a tenant.
async fn answering(client: &Client, tenant: &str) -> BTreeSet<String> {
    let mut pods = BTreeSet::new();
    for _ in 0..4 {
        pods.insert(match client.get(&format!("{tenant}.localhost"), "/web", None).await {
            Ok(reply) => match reply.pod() {
                Some(pod) => pod.to_owned(),
                None => format!("Doorward with {}", reply.status),
            },
            Err(error) => format!("nobody ({error:#})"),
        });
    }
    pods
}

fn tenant_of(pod: &str) -> &str {
    pod.split_once('-').map_or(pod, |(tenant, _)| tenant)
}

/// The lines of the input. Its thread is left alone at the end: nothing can wake it from reading.
fn lines(input: impl BufRead + Send + 'static) -> anyhow::Result<Receiver<String>> {
    let (sender, receiver) = channel(16);
    let read = move || {
        for line in input.lines().map_while(Result::ok) {
            if sender.blocking_send(line).is_err() {
                break;
            }
        }
    };
    std::thread::Builder::new()
        .name("demo-input".to_owned())
        .spawn(read)
        .context("the input cannot be read")?;
    Ok(receiver)
}
