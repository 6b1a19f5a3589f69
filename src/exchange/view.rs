//! What routing rules look at.
//!
//! A rule sees the canonical request and nothing else, so the `explain` command can build the
//! same view from a URL. Every text here is already normalised once, before any rule runs.

use std::net::IpAddr;
use std::sync::Arc;

use http::{HeaderMap, Method};

/// What rules look at: the canonical request, borrowed.
#[derive(Clone, Copy, Debug)]
pub struct RequestView<'a> {
    /// The host in lower case, without port, IPv6 brackets or trailing dot; empty if there is none.
    pub host: &'a str,
    /// What the host is an alias of, where that is looked up and it is one (`hostResolver`).
    pub flat_host: Option<&'a str>,
    /// The routing path: percent-decoded except for reserved characters.
    pub path: &'a str,
    /// The query as sent, without the question mark.
    pub query: Option<&'a str>,
    /// The request method.
    pub method: &'a Method,
    /// The request headers.
    pub headers: &'a HeaderMap,
    /// The address of the peer, an IPv4-mapped address written as IPv4.
    pub client_ip: IpAddr,
}

/// What the host of a request is an alias of, among the request's extensions; see [`RequestView::flat_host`].
#[derive(Clone, Debug)]
pub struct FlatHost(pub Arc<str>);
