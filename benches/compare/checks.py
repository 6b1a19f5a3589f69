"""Proves, before anything is measured, that a proxy does the job the row claims."""

import socket
import ssl

import servers


def proxied(workspace, proxy):
    """The last router leads to our backend, and a host nobody configured does not."""
    before = workspace.backend.requests()
    status, head, body = servers.get(proxy.http_port, proxy.last_host(), "/1k")
    passed = workspace.backend.requests() - before
    if status != 200 or f"x-backend: {workspace.token}" not in head.lower() or body != b"d" * 1024:
        raise servers.StartFailure(f"{proxy.name}: {proxy.last_host()} is not proxied: status {status}")
    if passed != 1:
        raise servers.StartFailure(f"{proxy.name}: one request became {passed} at the backend")
    status, head, _ = servers.get(proxy.http_port, "nobody.bench.test", "/1k")
    if status == 200 or workspace.token in head:
        raise servers.StartFailure(f"{proxy.name}: a host that is not configured is answered with {status}")


def secure(workspace, proxy):
    """TLS 1.3, our P-256 certificate, both HTTP versions by ALPN, and a proxied reply."""
    seen = {}
    for protocol in ("http/1.1", "h2"):
        context = ssl.create_default_context(cafile=workspace.certificate)
        context.set_alpn_protocols([protocol])
        with socket.create_connection(("127.0.0.1", proxy.https_port), timeout=5) as plain, \
                context.wrap_socket(plain, server_hostname=proxy.last_host()) as connection:
            seen = {"tls": connection.version(), "protocol": connection.selected_alpn_protocol(),
                    "cipher": connection.cipher()[0]}
            if seen["tls"] != "TLSv1.3" or seen["protocol"] != protocol:
                raise servers.StartFailure(f"{proxy.name}: asked for TLSv1.3 and {protocol}, got {seen}")
            if protocol == "http/1.1":
                connection.sendall(f"GET /1k HTTP/1.1\r\nHost: {proxy.last_host()}\r\n"
                                   "Connection: close\r\n\r\n".encode())
                status, head, _ = servers.read_reply(connection)
                if status != 200 or f"x-backend: {workspace.token}" not in head.lower():
                    raise servers.StartFailure(f"{proxy.name}: https is not proxied: status {status}")
    return seen
