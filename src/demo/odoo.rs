//! A backend that behaves like an Odoo pod with prefork workers: a web port that answers in
//! HTTP/1.0 and closes after every reply, and a bus port that keeps connections and speaks
//! WebSocket. Stopping one closes its listeners and its connections, as a pod's end does.

use std::convert::Infallible;
use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use super::pages::{self, Upgrade};
use super::websocket::{Message, Side, Socket};

/// Odoo pings a WebSocket after this much silence.
const PING_AFTER: Duration = Duration::from_secs(45);

/// How the backends differ from Odoo's ways.
#[derive(Clone, Copy, Debug, Default)]
pub struct Behaviour {
    /// The web port keeps its connections instead of closing after every reply.
    pub keep_alive: bool,
    /// How long a page takes.
    pub delay: Duration,
}

/// One pod with its two ports.
pub struct Backend {
    pod: Arc<Pod>,
    http_port: u16,
    bus_port: u16,
    running: Option<Running>,
}

/// What the pages of a pod know.
pub(super) struct Pod {
    pub(super) name: String,
    pub(super) behaviour: Behaviour,
    pub(super) requests: AtomicU64,
}

/// A port that cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("port {port}: {source}")]
pub struct PortError {
    /// The port.
    pub port: u16,
    /// What the system says.
    pub source: io::Error,
}

struct Running {
    stop: CancellationToken,
    tasks: [JoinHandle<()>; 2],
}

#[derive(Clone, Copy)]
enum Role {
    Web,
    Bus,
}

impl Backend {
    /// Starts a pod on two ports of the loopback address; zero is any free one.
    pub async fn start(
        name: &str,
        http_port: u16,
        bus_port: u16,
        behaviour: Behaviour,
    ) -> Result<Self, PortError> {
        let requests = AtomicU64::new(0);
        let pod = Arc::new(Pod { name: name.to_owned(), behaviour, requests });
        let mut backend = Self { pod, http_port, bus_port, running: None };
        backend.resume().await?;
        Ok(backend)
    }

    /// Starts it again after [`Self::stop`]. Does nothing while it runs.
    pub async fn resume(&mut self) -> Result<(), PortError> {
        if self.running.is_some() {
            return Ok(());
        }
        let web = listen(&mut self.http_port).await?;
        let bus = listen(&mut self.bus_port).await?;
        let stop = CancellationToken::new();
        let tasks = [
            tokio::spawn(serve(web, Role::Web, Arc::clone(&self.pod), stop.clone())),
            tokio::spawn(serve(bus, Role::Bus, Arc::clone(&self.pod), stop.clone())),
        ];
        self.running = Some(Running { stop, tasks });
        Ok(())
    }

    /// Closes both listeners and every connection; when it returns, nothing answers any more.
    pub async fn stop(&mut self) {
        if let Some(Running { stop, tasks }) = self.running.take() {
            stop.cancel();
            for task in tasks {
                // A panic of the task has ended it as well.
                let _ = task.await;
            }
        }
    }

    /// Whether it answers.
    pub fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.pod.name
    }

    /// How many requests it has answered, without health checks.
    pub fn requests(&self) -> u64 {
        self.pod.requests.load(Ordering::Relaxed)
    }

    /// The ports of pages and of the bus.
    pub fn ports(&self) -> (u16, u16) {
        (self.http_port, self.bus_port)
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        if let Some(running) = &self.running {
            running.stop.cancel();
        }
    }
}

/// Listens on a port; zero becomes the one that the system gives out.
async fn listen(port: &mut u16) -> Result<TcpListener, PortError> {
    let wrong = |source| PortError { port: *port, source };
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).await.map_err(wrong)?;
    let address = listener.local_addr().map_err(wrong)?;
    *port = address.port();
    Ok(listener)
}

async fn serve(listener: TcpListener, role: Role, pod: Arc<Pod>, stop: CancellationToken) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(converse(stream, role, Arc::clone(&pod)));
                }
                // Out of descriptors, mostly: others must end before the next one can be taken.
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            },
        }
    }
    drop(listener);
    connections.shutdown().await;
}

/// Serves one connection to its end. The WebSocket runs in the same task, so that a stopped pod
/// takes it along.
async fn converse(stream: TcpStream, role: Role, pod: Arc<Pod>) {
    // Only latency depends on it.
    let _ = stream.set_nodelay(true);
    let upgrade = Upgrade::default();
    let service = service_fn(|request| {
        let (pod, upgrade) = (Arc::clone(&pod), upgrade.clone());
        async move {
            Ok::<_, Infallible>(match role {
                Role::Web => pages::web(request, &pod).await,
                Role::Bus => pages::bus(request, &pod, &upgrade),
            })
        }
    });
    let keep = matches!(role, Role::Bus) || pod.behaviour.keep_alive;
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .keep_alive(keep)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    if connection.await.is_err() {
        return;
    }
    if let Some((upgraded, tenant)) = upgrade.take()
        && let Ok(stream) = upgraded.await
    {
        // A lost connection is how most of them end.
        let _ = bus(Socket::new(TokioIo::new(stream), Side::Server), &pod, &tenant).await;
    }
}

async fn bus(
    mut socket: Socket<TokioIo<hyper::upgrade::Upgraded>>,
    pod: &Pod,
    tenant: &str,
) -> io::Result<()> {
    let greeting = serde_json::json!({ "type": "greeting", "pod": pod.name, "tenant": tenant });
    socket.send_text(&greeting.to_string()).await?;
    loop {
        match socket.read(PING_AFTER).await? {
            Message::Text(text) => socket.send_text(&text).await?,
            Message::Binary(bytes) => socket.send_binary(&bytes).await?,
            Message::Close => return Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{SinkExt as _, StreamExt as _};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio_tungstenite::tungstenite::Message as Sent;
    use tokio_tungstenite::tungstenite::protocol::Role as SocketRole;
    use tokio_tungstenite::{WebSocketStream, client_async};

    use super::*;

    async fn backend(behaviour: Behaviour) -> Backend {
        Backend::start("north-1", 0, 0, behaviour).await.unwrap()
    }

    /// Sends bytes and reads until the other side closes.
    async fn talk(port: u16, request: &str) -> String {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    async fn open(port: u16) -> WebSocketStream<TcpStream> {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.unwrap();
        let (socket, response) = client_async("ws://north.test/websocket", stream).await.unwrap();
        assert_eq!(response.headers()["x-demo-pod"], "north-1");
        socket
    }

    #[tokio::test]
    async fn the_web_port_closes_after_every_reply_as_odoos_workers_do() {
        let backend = backend(Behaviour::default()).await;
        let request = "GET /web?q='b' HTTP/1.1\r\nHost: north.test\r\n\
                       X-Forwarded-For: 10.1.1.1\r\nCookie: a=<i>\r\n\r\n";
        let answer = talk(backend.ports().0, &request.repeat(2)).await;
        assert!(answer.starts_with("HTTP/1.0 200 OK\r\n"), "{answer}");
        assert_eq!(answer.matches("HTTP/1.").count(), 1, "{answer}");
        for part in [
            "connection: close",
            "x-demo-pod: north-1",
            "<h1>north.test</h1>",
            "its request number 1,",
            "<th>x-forwarded-for</th><td>10.1.1.1</td>",
            "<td>a=&lt;i&gt;</td>",
            "<code>/web?q=&#39;b&#39;</code>",
        ] {
            assert!(answer.contains(part), "{part}: {answer}");
        }
        assert_eq!(backend.requests(), 1);
    }

    #[tokio::test]
    async fn a_body_is_read_before_the_connection_is_closed() {
        let backend = backend(Behaviour::default()).await;
        let body = "x".repeat(4 << 20);
        let length = body.len();
        let head = format!("POST /web HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n");
        let answer = talk(backend.ports().0, &format!("{head}{body}")).await;
        assert!(answer.starts_with("HTTP/1.0 200 OK\r\n"), "{answer}");
    }

    #[tokio::test]
    async fn the_web_port_keeps_connections_when_told_to() {
        let backend = backend(Behaviour { keep_alive: true, delay: Duration::ZERO }).await;
        let first = "GET /nothing HTTP/1.1\r\nHost: a\r\n\r\n";
        let last = "GET /slow?ms=1 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
        let answer = talk(backend.ports().0, &format!("{first}{last}")).await;
        assert!(answer.starts_with("HTTP/1.1 404 Not Found\r\n"), "{answer}");
        assert!(answer.contains("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert!(answer.ends_with("north-1 took 1ms\n"), "{answer}");
    }

    #[tokio::test]
    async fn both_ports_are_healthy_and_know_their_paths() {
        let backend = backend(Behaviour::default()).await;
        let (web, bus) = backend.ports();
        for (port, path, status, body) in [
            (web, "/web/health", "200", "{\"status\": \"pass\"}"),
            (web, "/web/login", "200", "<input name=\"login\">"),
            (web, "/web/database/manager", "200", "must not let the public"),
            (web, "/websocket", "500", "Couldn't bind"),
            (bus, "/websocket/health", "200", "{\"status\": \"pass\"}"),
            (bus, "/web/health", "200", "{\"status\": \"pass\"}"),
            (bus, "/web", "404", "no pages"),
            (bus, "/websocket", "426", "sec-websocket-version: 13"),
        ] {
            let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
            let answer = talk(port, &request).await;
            assert_eq!(answer.split(' ').nth(1), Some(status), "{path}: {answer}");
            assert!(answer.contains(body), "{path}: {answer}");
        }
    }

    #[tokio::test]
    async fn the_bus_greets_and_echoes() {
        let backend = backend(Behaviour::default()).await;
        let mut socket = open(backend.ports().1).await;
        let greeting = socket.next().await.unwrap().unwrap().into_text().unwrap();
        assert!(greeting.contains("\"pod\":\"north-1\""), "{greeting}");
        assert!(greeting.contains("\"tenant\":\"north.test\""), "{greeting}");
        for message in [Sent::text("héllo"), Sent::binary(vec![0, 1, 2])] {
            socket.send(message.clone()).await.unwrap();
            assert_eq!(socket.next().await.unwrap().unwrap(), message);
        }
        socket.close(None).await.unwrap();
        assert!(socket.next().await.unwrap().unwrap().is_close());
    }

    #[tokio::test]
    async fn our_own_client_frames_are_understood_by_another_server() {
        let (client, server) = tokio::io::duplex(1 << 20);
        let mut client = Socket::new(client, Side::Client);
        let mut server = WebSocketStream::from_raw_socket(server, SocketRole::Server, None).await;
        let text = "x".repeat(70_000);
        client.send_text(&text).await.unwrap();
        assert_eq!(server.next().await.unwrap().unwrap(), Sent::text(&text));
        server.send(Sent::text("short")).await.unwrap();
        let answer = client.read(PING_AFTER).await.unwrap();
        assert_eq!(answer, Message::Text("short".to_owned()));
    }

    #[tokio::test]
    async fn a_stopped_pod_refuses_drops_its_sockets_and_comes_back_on_its_ports() {
        let mut backend = backend(Behaviour::default()).await;
        let (web, bus) = backend.ports();
        let mut socket = open(bus).await;
        socket.next().await.unwrap().unwrap();
        backend.stop().await;
        assert!(!backend.is_running());
        assert!(socket.next().await.unwrap().is_err());
        for port in [web, bus] {
            let refused = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        }
        backend.resume().await.unwrap();
        assert_eq!(backend.ports(), (web, bus));
        let answer = talk(web, "GET /web HTTP/1.0\r\n\r\n").await;
        assert!(answer.contains("200 OK"), "{answer}");
    }

    #[tokio::test]
    async fn a_taken_port_is_said_by_its_number() {
        let taken = backend(Behaviour::default()).await;
        let port = taken.ports().0;
        let error = Backend::start("other", 0, port, Behaviour::default()).await.err().unwrap();
        assert_eq!(error.port, port);
        assert!(error.to_string().starts_with(&format!("port {port}: ")), "{error}");
    }
}
