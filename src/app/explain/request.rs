//! The request as an entry point makes it canonical: the same steps that the data plane takes.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, OnceLock};

use http::header::HOST;
use http::request::Parts;
use http::{HeaderValue, StatusCode};
use tokio::time::Instant;

use super::options::Ask;
use super::subject::Subject;
use crate::entry_point::EntryPoint;
use crate::entry_point::head;
use crate::exchange::canonical::{canonical_host, routing_path};
use crate::exchange::forwarded::{self, ForwardedFacts};
use crate::exchange::view::RequestView;
use crate::exchange::{Body, ClientTls, Connection, Context, OpenWork, Request, Scheme};
use crate::tls::{Selected, TlsProfile, TlsRoutes};

/// A request that rules can be asked about.
pub(in crate::app) struct Canonical {
    pub(in crate::app) parts: Parts,
    pub(in crate::app) cx: Context,
    /// Whether the entry point believes this client's forwarded headers.
    pub(in crate::app) is_trusted: bool,
    /// What the TLS handshake depends on.
    pub(super) handshake: Handshake,
    path: String,
}

/// What a TLS handshake depends on besides options that can be built.
#[derive(Default)]
pub(super) struct Handshake {
    /// Why there is none.
    pub(super) refused: Option<String>,
    /// What must come to it.
    pub(super) needs: Option<String>,
    /// Nobody gets in without a certificate.
    pub(super) demands_certificate: bool,
}

/// Why a request does not come as far as the rules.
pub(in crate::app) struct Refused {
    /// `None`: the connection ends.
    pub(in crate::app) status: Option<StatusCode>,
    pub(in crate::app) reason: String,
}

impl Canonical {
    /// What `ask` becomes at one entry point.
    pub(in crate::app) fn of(
        ask: &Ask,
        subject: &Subject,
        door: &EntryPoint,
    ) -> anyhow::Result<Result<Self, Refused>> {
        let mut request = http::Request::builder()
            .method(ask.method.clone())
            .uri(ask.target.as_str())
            .body(())
            .map_err(|error| anyhow::anyhow!("`{}` cannot be sent: {error}", ask.target))?;
        *request.headers_mut() = ask.headers.clone();
        let mut parts = request.into_parts().0;
        let (tls, handshake) = match client_tls(ask, subject, door) {
            Ok(found) => found,
            Err(reason) => return Ok(Err(Refused { status: None, reason })),
        };
        let refused = |status, reason: &str| {
            Ok(Err(Refused { status: Some(status), reason: reason.to_owned() }))
        };
        if door.limits.measure(&parts.headers).is_none() {
            return refused(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "too many header fields");
        }
        if let Err(refusal) = head::canonicalize(door, &mut parts) {
            return refused(refusal.status, refusal.reason);
        }
        let is_trusted = door.trusted.trust(ask.client);
        let peer_ip_text = HeaderValue::from_str(&ask.client.to_string())?;
        let host = parts.headers.get(HOST).cloned();
        forwarded::apply(
            &mut parts.headers,
            &ForwardedFacts {
                peer_ip_text: &peer_ip_text,
                trusted: is_trusted,
                tls: tls.is_some(),
                websocket: false,
                host: host.as_ref(),
                server_name: &HeaderValue::from_static(""),
                connection_allow: &door.connection_headers,
                strip_forwarded_rfc7239: door.facts.hardened,
            },
        );
        let text = host.as_ref().and_then(|host| host.to_str().ok()).unwrap_or_default();
        let connection = Connection {
            entry_point: Arc::clone(&door.facts),
            peer: SocketAddr::new(ask.client, 40_000),
            peer_ip: ask.client,
            peer_ip_text,
            local: SocketAddr::new(ask.client, ask.port()),
            tls,
            opened: Instant::now(),
            work: OpenWork::default(),
            own: OnceLock::new(),
        };
        let cx = Context {
            connection: Arc::new(connection),
            host: Box::from(&*canonical_host(text)),
            authority: host,
            start: Instant::now(),
            request_id: None,
        };
        let path = routing_path(parts.uri.path()).into_owned();
        Ok(Ok(Self { parts, cx, is_trusted, handshake, path }))
    }

    /// What rules see of it.
    pub(in crate::app) fn view(&self) -> RequestView<'_> {
        RequestView {
            host: &self.cx.host,
            flat_host: None,
            path: &self.path,
            query: self.parts.uri.query(),
            method: &self.parts.method,
            headers: &self.parts.headers,
            client_ip: self.cx.connection.peer_ip,
        }
    }

    /// The same as a request without a body, for middlewares.
    pub(in crate::app) fn request(&self) -> Request {
        Request::from_parts(self.parts.clone(), Body::empty())
    }

    /// Server name and TLS options of the connection; `None` in clear text.
    pub(in crate::app) fn tls(&self) -> Option<(&str, &str)> {
        let tls = self.cx.connection.tls.as_ref()?;
        Some((&tls.server_name, &tls.options))
    }
}

/// What TLS would say of the connection, or why there would be none.
fn client_tls(
    ask: &Ask,
    subject: &Subject,
    door: &EntryPoint,
) -> Result<(Option<ClientTls>, Handshake), String> {
    if ask.scheme == Scheme::Http {
        return Ok((None, Handshake::default()));
    }
    let host = canonical_host(&ask.authority);
    // Clients do not name an address (RFC 6066, 3).
    let address = host.trim_matches(['[', ']']).parse::<IpAddr>().ok();
    let server_name = if address.is_some() { String::new() } else { host.into_owned() };
    let routes = subject.table.compiled.table.entry_points.get(door.position);
    let routes: Option<&TlsRoutes> = routes.and_then(|routes| routes.tls.as_deref());
    let mut handshake = Handshake::default();
    let options = match routes.map(|routes| routes.select(Some(&server_name))) {
        None => "default".into(),
        Some(Selected::Config(profile)) => {
            handshake = shaken(profile, &server_name, address, subject);
            Arc::clone(&profile.options_name)
        }
        Some(Selected::Refuse(broken)) => {
            let (name, reason) = (&broken.name, &broken.reason);
            return Err(format!("the TLS handshake is refused: TLS options {name}: {reason}"));
        }
    };
    let tls = ClientTls { server_name: server_name.into(), options, ..ClientTls::default() };
    Ok((Some(tls), handshake))
}

fn shaken(
    profile: &TlsProfile,
    server_name: &str,
    address: Option<IpAddr>,
    subject: &Subject,
) -> Handshake {
    let mut handshake = Handshake::default();
    if profile.demands_certificate() {
        handshake.demands_certificate = true;
        handshake.needs = Some("the client must show a certificate".to_owned());
    }
    let named = Some(server_name).filter(|_| address.is_none());
    let local = address.unwrap_or(IpAddr::from([127, 0, 0, 1]));
    if profile.for_connection(named, local).is_none() {
        let asked = address.map_or_else(|| server_name.to_owned(), |address| address.to_string());
        let why = format!("`sniStrict`, and no certificate that is configured covers `{asked}`");
        // What a resolver has obtained is not in the configuration.
        if subject.table.facts.resolvers.is_empty() {
            let options = &profile.options_name;
            handshake.refused =
                Some(format!("the TLS handshake is refused: TLS options {options} have {why}"));
        } else {
            let also = handshake.needs.map(|needs| format!("{needs}; ")).unwrap_or_default();
            handshake.needs = Some(format!(
                "{also}{why}: refused unless a certificates resolver has obtained one"
            ));
        }
    }
    handshake
}
