//! `--for`: a tour of what the proxy must do, with a pod that dies on the way. Each step counts its
//! requests and whom they were answered by; one that fails does not stop the next.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail, ensure};
use http::StatusCode;
use tokio::time::{Instant, sleep, timeout_at};

use super::client::{Client, Reply, limited};
use super::fleet::Fleet;
use super::websocket::Message;

const NORTH: &str = "north.localhost";
const SOUTH: &str = "south.localhost";

/// How long the proxy may take to notice that a pod is back or gone.
const NOTICE_LIMIT: Duration = Duration::from_secs(5);

/// Between two requests of somebody who waits for a change.
const POLL: Duration = Duration::from_millis(100);

/// One line of the table.
#[derive(Default)]
struct Step {
    name: &'static str,
    requests: u32,
    failed: u32,
    by: BTreeMap<String, u32>,
    note: String,
    error: Option<anyhow::Error>,
}

/// Runs the tour, keeps requests coming until `length` is over, and says how it went.
pub(super) async fn run(
    output: &mut dyn Write,
    client: &Client,
    fleet: &mut Fleet,
    length: Duration,
) -> anyhow::Result<()> {
    let deadline = Instant::now() + length;
    let mut steps = Vec::new();
    let all = async {
        steps_in_order(output, client, fleet, &mut steps).await?;
        steady(output, client, &mut steps, deadline).await
    };
    // The steady part ends by itself at the deadline; a step that it interrupts has hung.
    let in_time = timeout_at(deadline + NOTICE_LIMIT, all).await;
    write!(output, "\n{}", table(&steps))?;
    output.flush()?;
    match in_time {
        Ok(result) => result?,
        Err(_) => bail!("the tour was not over after {length:?}: give it more by `--for`"),
    }
    let failures: Vec<_> = steps
        .iter()
        .filter_map(|step| Some(format!("{}: {:#}", step.name, step.error.as_ref()?)))
        .collect();
    ensure!(failures.is_empty(), "of {} steps failed\n  {}", steps.len(), failures.join("\n  "));
    let requests: u32 = steps.iter().map(|step| step.requests).sum();
    let failed: u32 = steps.iter().map(|step| step.failed).sum();
    if failed == 0 {
        writeln!(output, "{requests} requests, and nothing failed")?;
    } else {
        writeln!(output, "{requests} requests; {failed} failed until a loss was noticed")?;
    }
    Ok(output.flush()?)
}

async fn steps_in_order(
    output: &mut dyn Write,
    client: &Client,
    fleet: &mut Fleet,
    steps: &mut Vec<Step>,
) -> anyhow::Result<()> {
    let mut step = Step::new("plain HTTP is sent to HTTPS");
    let done = redirected(&mut step, client).await;
    step.finish(output, steps, done)?;

    let mut step = Step::new("north is answered by both pods");
    let done = only(&mut step, client, NORTH, 8, &["north-1", "north-2"]).await;
    step.finish(output, steps, done)?;

    let mut step = Step::new("south is answered by its own pod");
    let done = only(&mut step, client, SOUTH, 4, &["south-1"]).await;
    step.finish(output, steps, done)?;

    let mut step = Step::new("Odoo is told who asks and how");
    let done = forwarded(&mut step, client).await;
    step.finish(output, steps, done)?;

    let mut step = Step::new("the database manager is closed");
    let done = database_closed(&mut step, client).await;
    step.finish(output, steps, done)?;

    let mut step = Step::new("ping answers on the admin port");
    let done = ping(&mut step, client).await;
    step.finish(output, steps, done)?;

    let mut cookie = None;
    let mut step = Step::new("a session stays on its pod");
    let done = sticky(&mut step, client, &mut cookie).await;
    step.finish(output, steps, done)?;

    let mut step = Step::new("a WebSocket through the proxy");
    let done = websocket(&mut step, client, NORTH, None).await;
    step.finish(output, steps, done)?;

    fleet.stop("north-1").await?;
    writeln!(output, "north-1 is stopped")?;
    let mut step = Step::new("north goes on without north-1");
    let done = session_moves(&mut step, client, cookie.as_deref()).await;
    step.finish(output, steps, done)?;

    let mut step = Step::new("a WebSocket without north-1");
    let done = websocket(&mut step, client, NORTH, Some("north-2")).await;
    step.finish(output, steps, done)?;

    fleet.resume("north-1").await?;
    writeln!(output, "north-1 runs again")?;
    let mut step = Step::new("north-1 gets requests again");
    let done = comes_to(&mut step, client, NORTH, "north-1").await;
    step.finish(output, steps, done)?;

    fleet.stop("south-1").await?;
    writeln!(output, "south-1 is stopped")?;
    let mut step = Step::new("south goes over to its standby");
    let done = comes_to(&mut step, client, SOUTH, "south-standby").await;
    step.finish(output, steps, done)?;

    fleet.resume("south-1").await?;
    writeln!(output, "south-1 runs again")?;
    let mut step = Step::new("south comes back from its standby");
    let done = comes_to(&mut step, client, SOUTH, "south-1").await;
    step.finish(output, steps, done)
}

/// A request to each tenant, over and over, until the time is over.
async fn steady(
    output: &mut dyn Write,
    client: &Client,
    steps: &mut Vec<Step>,
    deadline: Instant,
) -> anyhow::Result<()> {
    let mut step = Step::new("requests until the time is over");
    let mut done = Ok(());
    while done.is_ok() && Instant::now() < deadline {
        done = page(&mut step, client, NORTH, None).await.map(drop);
        if done.is_ok() {
            done = page(&mut step, client, SOUTH, None).await.map(drop);
        }
        sleep(POLL).await;
    }
    step.finish(output, steps, done)
}

async fn redirected(step: &mut Step, client: &Client) -> anyhow::Result<()> {
    let reply = step.count(client.get_plain(NORTH, "/web?a=1").await)?;
    let wanted = format!("https://{}/web?a=1", client.authority(NORTH));
    let location = reply.location().unwrap_or("nowhere");
    let redirect = [StatusCode::MOVED_PERMANENTLY, StatusCode::PERMANENT_REDIRECT];
    ensure!(redirect.contains(&reply.status), "it is answered with {}", reply.status);
    ensure!(location == wanted, "it leads to {location} and not to {wanted}");
    Ok(())
}

async fn only(
    step: &mut Step,
    client: &Client,
    host: &str,
    count: u32,
    pods: &[&str],
) -> anyhow::Result<()> {
    for _ in 0..count {
        page(step, client, host, None).await?;
    }
    let seen: Vec<_> = step.by.keys().map(String::as_str).collect();
    ensure!(seen == pods, "it was answered by {}", seen.join(", "));
    Ok(())
}

async fn forwarded(step: &mut Step, client: &Client) -> anyhow::Result<()> {
    let reply = page(step, client, NORTH, None).await?;
    let text = String::from_utf8_lossy(&reply.body);
    let host = client.authority(NORTH);
    for (name, value) in [
        ("x-forwarded-for", "127.0.0.1"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", &host),
    ] {
        let row = format!("<th>{name}</th><td>{value}</td>");
        ensure!(text.contains(&row), "the pod did not get `{name}: {value}`");
    }
    Ok(())
}

async fn database_closed(step: &mut Step, client: &Client) -> anyhow::Result<()> {
    for host in [NORTH, SOUTH] {
        let reply = step.count(client.get(host, "/web/database/manager", None).await)?;
        let pod = reply.pod().unwrap_or("the proxy");
        ensure!(
            reply.status == StatusCode::FORBIDDEN && reply.pod().is_none(),
            "{pod} answered with {} for {host}",
            reply.status
        );
    }
    Ok(())
}

async fn ping(step: &mut Step, client: &Client) -> anyhow::Result<()> {
    let reply = step.count(client.get_admin("/ping").await)?;
    ensure!(reply.status == StatusCode::OK, "it is answered with {}", reply.status);
    Ok(())
}

/// Gets a session on north-1, which is the pod that will be stopped, and stays there.
async fn sticky(
    step: &mut Step,
    client: &Client,
    cookie: &mut Option<String>,
) -> anyhow::Result<()> {
    for _ in 0..8 {
        let reply = page(step, client, NORTH, None).await?;
        if reply.pod() == Some("north-1") {
            *cookie = reply.cookie().map(str::to_owned);
            break;
        }
    }
    let cookie = cookie.as_deref().context("north-1 came with no cookie")?;
    for _ in 0..5 {
        let reply = page(step, client, NORTH, Some(cookie)).await?;
        let pod = reply.pod().unwrap_or("nobody");
        ensure!(pod == "north-1", "the session went to {pod}");
    }
    Ok(())
}

/// The session's pod is gone: no request may fail, and a new cookie leads to the other pod.
async fn session_moves(
    step: &mut Step,
    client: &Client,
    cookie: Option<&str>,
) -> anyhow::Result<()> {
    let mut cookie = cookie.map(str::to_owned);
    let mut failure = None;
    for _ in 0..20 {
        match page(step, client, NORTH, cookie.as_deref()).await {
            Ok(reply) => cookie = reply.cookie().map(str::to_owned).or(cookie),
            Err(error) => failure = Some(error),
        }
    }
    failure.map_or(Ok(()), Err)
}

/// A message goes through and back; with `pod`, only that pod may be there.
async fn websocket(
    step: &mut Step,
    client: &Client,
    host: &str,
    pod: Option<&str>,
) -> anyhow::Result<()> {
    step.requests += 1;
    let talk = limited(async {
        let (mut socket, name) = client.websocket(host).await?;
        let greeting = socket.read(NOTICE_LIMIT).await?;
        let greeted = matches!(&greeting, Message::Text(text) if text.contains(&name));
        ensure!(greeted, "it began with {greeting:?}");
        ensure!(pod.is_none_or(|pod| pod == name), "it went to {name}");
        for text in ["hello", &"long ".repeat(20_000)] {
            socket.send_text(text).await?;
            let answer = socket.read(NOTICE_LIMIT).await?;
            ensure!(answer == Message::Text(text.to_owned()), "a message came back changed");
        }
        socket.send_close().await?;
        ensure!(socket.read(NOTICE_LIMIT).await? == Message::Close, "it did not close");
        Ok(name)
    });
    match talk.await {
        Ok(name) => {
            *step.by.entry(name).or_default() += 1;
            Ok(())
        }
        Err(error) => {
            step.failed += 1;
            Err(error)
        }
    }
}

/// Requests until a pod answers one of them; what fails on the way is shown, and no error.
async fn comes_to(step: &mut Step, client: &Client, host: &str, pod: &str) -> anyhow::Result<()> {
    let begin = Instant::now();
    loop {
        let reply = page(step, client, host, None).await;
        let waited = begin.elapsed();
        if reply.is_ok_and(|reply| reply.pod() == Some(pod)) {
            step.note = format!("after {} ms", waited.as_millis());
            return Ok(());
        }
        ensure!(waited < NOTICE_LIMIT, "{pod} got no request in {NOTICE_LIMIT:?}");
        sleep(POLL).await;
    }
}

/// A page of a tenant, from one of the tenant's own pods.
async fn page(
    step: &mut Step,
    client: &Client,
    host: &str,
    cookie: Option<&str>,
) -> anyhow::Result<Reply> {
    let reply = client.get(host, "/web", cookie).await.and_then(|reply| {
        let tenant = host.split('.').next().unwrap_or(host);
        let pod = reply.pod().unwrap_or("the proxy");
        if reply.status == StatusCode::OK && pod.starts_with(tenant) {
            Ok(reply)
        } else {
            Err(anyhow!("{pod} answered with {} for {host}", reply.status))
        }
    });
    step.count(reply)
}

impl Step {
    fn new(name: &'static str) -> Self {
        Self { name, ..Self::default() }
    }

    /// Counts a request by its reply.
    fn count(&mut self, reply: anyhow::Result<Reply>) -> anyhow::Result<Reply> {
        self.requests += 1;
        match &reply {
            Ok(reply) => {
                let by = reply.pod().unwrap_or("doorward").to_owned();
                *self.by.entry(by).or_default() += 1;
            }
            Err(_) => self.failed += 1,
        }
        reply
    }

    /// Says how it went, and becomes a line of the table.
    fn finish(
        mut self,
        output: &mut dyn Write,
        steps: &mut Vec<Self>,
        done: anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        self.error = done.err();
        match &self.error {
            None => writeln!(output, "ok      {}", self.name)?,
            Some(error) => writeln!(output, "FAILED  {}: {error:#}", self.name)?,
        }
        output.flush()?;
        steps.push(self);
        Ok(())
    }
}

fn table(steps: &[Step]) -> String {
    let mut text = format!("{:<34} {:>8} {:>6}  answered by\n", "step", "requests", "failed");
    for step in steps {
        let mut by: Vec<_> =
            step.by.iter().map(|(name, count)| format!("{name} {count}")).collect();
        if !step.note.is_empty() {
            by.push(step.note.clone());
        }
        let Step { name, requests, failed, .. } = step;
        let by = by.join(", ");
        // Writing to a string does not fail.
        let _ = writeln!(text, "{name:<34} {requests:>8} {failed:>6}  {by}");
    }
    text
}
