//! The first reader without sockets: the gate, hyper behind it, and the canonical head. No server, no backend: much
//! can be tried in a short time.

use std::cell::RefCell;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use doorward::entry_point::head::canonicalize;
use doorward::entry_point::{EntryPoint, LifeCycle, Shortage, Timeouts};
use doorward::exchange::EntryPointFacts;
use doorward::exchange::canonical::{FieldLimits, TargetRules, UnderscoreStrategy};
use doorward::exchange::forwarded::{self, ForwardedFacts, TrustedSources};
use doorward::upstream::headers::{RequestFacts, prepare_request, set_host, upgrade_of};
use doorward::wire::{BodyTimeout, GateControl, GateTimeouts, HeadLimits, RequestGate};
use http::header::{CONNECTION, CONTENT_LENGTH, HOST, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderValue, Request, Response, StatusCode, Version};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;

use crate::generate::Case;
use crate::pieces::Pieces;
use crate::reference::{Arrival, End, Fields, Message, outgoing, stream};

const SERVER: &str = "here";
const PEER: &str = "192.0.2.7";
const BACKEND: &str = "backend.test:8069";
const ARRIVAL: Arrival<'_> = Arrival { peer: PEER, server: SERVER, http2: false, backend: BACKEND };

/// The first reader.
pub(crate) struct Inside {
    runtime: tokio::runtime::Runtime,
    entry_point: Rc<EntryPoint>,
}

/// What came of one stream.
#[derive(Default)]
struct Seen {
    messages: Vec<Message>,
    refused: bool,
}

impl Inside {
    pub(crate) fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        Self { runtime, entry_point: Rc::new(entry_point()) }
    }

    /// What the two readers disagree on, if they do.
    pub(crate) fn check(&self, case: &Case) -> Result<usize, String> {
        let (messages, end) = stream(&case.bytes);
        let seen = self.read(case);
        let wanted: Vec<Message> = messages.iter().map(|one| outgoing(one, &ARRIVAL)).collect();
        let (whole, cut) = match wanted.split_last() {
            Some((last, whole)) if last.cut => (whole, Some(last)),
            _ => (wanted.as_slice(), None),
        };
        for (number, want) in whole.iter().enumerate() {
            match seen.messages.get(number) {
                None => return Err(format!("request {number} was not taken: {want:?}")),
                Some(got) if got != want => {
                    return Err(format!("request {number} is\n {got:?}\nand not\n {want:?}"));
                }
                Some(_) => {}
            }
        }
        match (seen.messages.get(whole.len()..).unwrap_or_default(), cut) {
            // Of a body that breaks off early, hyper may never have told.
            ([], _) => {}
            ([got], Some(want)) if got.cut && got.is_part_of(want) => {}
            (more, _) => return Err(format!("{more:?} is too much")),
        }
        // What is cut short may have been wrong before it was.
        if cut.is_none() && (end == End::Refused) != seen.refused && end != End::Short {
            return Err(format!("the end is {end:?}, but refused is {}", seen.refused));
        }
        Ok(wanted.len())
    }

    fn read(&self, case: &Case) -> Seen {
        let seen = Rc::new(RefCell::new(Seen::default()));
        let (gate, control) = RequestGate::new(
            Pieces::new(case.pieces()),
            Bytes::new(),
            HeadLimits::default(),
            GateTimeouts::default(),
        );
        let service = service_fn(|request| {
            let (door, control) = (Rc::clone(&self.entry_point), Arc::clone(&control));
            answer(door, control, Rc::clone(&seen), request)
        });
        let mut builder = hyper::server::conn::http1::Builder::new();
        // The client has sent everything before the first answer.
        builder.half_close(true).header_read_timeout(None).max_headers(1000);
        let served = builder.serve_connection(TokioIo::new(gate), service).with_upgrades();
        // A body that breaks off is an error here, and no news.
        let limited = async { tokio::time::timeout(Duration::from_secs(20), served).await };
        let _ = self.runtime.block_on(limited).expect("the connection does not end");
        seen.take()
    }
}

/// What Doorward does with a request from here to the backend, in the words of its modules.
async fn answer(
    door: Rc<EntryPoint>,
    control: Arc<GateControl>,
    seen: Rc<RefCell<Seen>>,
    request: Request<Incoming>,
) -> Result<Response<Empty<Bytes>>, Infallible> {
    let mut response = Response::new(Empty::new());
    let refuse = |mut response: Response<Empty<Bytes>>| {
        seen.borrow_mut().refused = true;
        *response.status_mut() = StatusCode::BAD_REQUEST;
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        control.answered(StatusCode::BAD_REQUEST);
        Ok(response)
    };
    let Ok(_in_flight) = control.admit() else { return refuse(response) };
    let (mut parts, body) = request.into_parts();
    if canonicalize(&door, &mut parts).is_err() {
        return refuse(response);
    }
    let (peer, server) = (HeaderValue::from_static(PEER), HeaderValue::from_static(SERVER));
    let websocket = parts.version == Version::HTTP_11
        && upgrade_of(&parts.headers).is_some_and(|upgrade| upgrade.is_websocket());
    let host = parts.headers.get(HOST).cloned();
    let facts = ForwardedFacts {
        peer_ip_text: &peer,
        trusted: false,
        tls: false,
        websocket,
        host: host.as_ref(),
        server_name: &server,
        connection_allow: &[],
        strip_forwarded_rfc7239: false,
    };
    forwarded::apply(&mut parts.headers, &facts);
    if parts.version != Version::HTTP_11 {
        parts.headers.remove(UPGRADE);
    }
    let facts = RequestFacts { append_forwarded_for: Some(&peer), hardened: false };
    prepare_request(&mut parts.headers, &facts);
    set_host(&mut parts.headers, &HeaderValue::from_static(BACKEND), true);
    let mut fields = Fields::new();
    for (name, value) in &parts.headers {
        if *name != CONTENT_LENGTH && *name != TRANSFER_ENCODING {
            let lines = fields.entry(name.as_str().to_owned()).or_default();
            lines.push(value.as_bytes().to_vec());
        }
    }
    let mut message = Message {
        method: parts.method.as_str().into(),
        target: parts.uri.path_and_query().map_or("/", |target| target.as_str()).into(),
        http10: false,
        fields,
        body: Vec::new(),
        cut: false,
    };
    let mut body = body;
    loop {
        match body.frame().await {
            Some(Ok(frame)) => message.body.extend(frame.into_data().unwrap_or_default()),
            Some(Err(_)) => message.cut = true,
            None => break,
        }
        if message.cut {
            break;
        }
    }
    let cut = message.cut;
    seen.borrow_mut().messages.push(message);
    if cut {
        return refuse(response);
    }
    if control.asked_to_close() {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    control.answered(StatusCode::OK);
    *response.status_mut() = StatusCode::OK;
    Ok(response)
}

fn entry_point() -> EntryPoint {
    let never = Timeouts { read: None, body: BodyTimeout::Total, write: None, idle: None };
    EntryPoint {
        position: 0,
        facts: Arc::new(EntryPointFacts::default()),
        address: SocketAddr::from(([127, 0, 0, 1], 80)),
        reuse_port: false,
        trusted: TrustedSources::new(false, &[]),
        connection_headers: Vec::new(),
        request_id: None,
        proxy_protocol: None,
        target: TargetRules::default(),
        underscores: UnderscoreStrategy::Keep,
        aliases: false,
        strict_tls_options: true,
        limits: FieldLimits { max_fields: 1000, max_bytes: 1 << 20 },
        timeouts: never,
        keep_alive_max_requests: 0,
        keep_alive_max_time: None,
        http2_max_concurrent_streams: 10,
        http2_max_decoder_table: 4096,
        metrics: None,
        life_cycle: LifeCycle { request_accept_grace: Duration::ZERO, grace: Duration::ZERO },
        shortage: Shortage::default(),
    }
}
