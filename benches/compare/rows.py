"""The rows of the comparison: what is done to which proxies, and the figures that come of it.

Every row yields a dict: title, columns (key, heading), goals (column -> highest ratio to NGINX), own_goals (who,
column, highest ratio to itself in another form), figures (who, column, highest median),
samples (contestant -> a dict a round), failures (contestant -> words), facts (contestant -> what
TLS came to), and where it matters base (contestant -> whom it is a ratio to) and own_base
(contestant -> itself with fewer routers, or as own_heading says).
"""

import os
import socket
import ssl
import time

import checks
import configs
import loads
import measure
from servers import Proxy, StartFailure, get, read_reply

LOAD_COLUMNS = [("rps", "req/s"), ("cpu_us", "CPU/req"), ("p50_ms", "p50"), ("p99_ms", "p99"), ("pss_mib", "PSS")]
BASE_ROUTERS = 10

LOADS = {
    "http-1k": ("http 1 KiB, 64 keep-alive connections", False, loads.wrk, {}, {"cpu_us": 1.15, "p99_ms": 1.1}),
    "https-1k": ("https 1 KiB, 64 keep-alive connections", True, loads.wrk, {"secure": True}, {"cpu_us": 1.15}),
    "h2-1k": ("h2 over TLS 1 KiB, 16 connections of 16 streams", True, loads.h2load, {}, {"cpu_us": 1.3}),
    "http-close": ("http 1 KiB, a connection per request, 64 at once", False, loads.wrk, {"close": True},
                   {"cpu_us": 1.3}),
    "tls-handshake": ("https 1 KiB, a full TLS 1.3 handshake per request (P-256, X25519), 32 at once", True,
                      loads.handshakes, {}, {"cpu_us": 1.3}),
    "http-1m": ("http 1 MiB, 16 keep-alive connections", False, loads.wrk,
                {"connections": 16, "path": "/1m", "size": 1024 * 1024}, {"cpu_us": 1.0}),
}
NAMES = [*LOADS, "gzip", "middlewares", "hardened", "hardened-h2", "routers", "start", "idle", "reload"]


def run(name, workspace):
    """Runs the row of this name."""
    if name in LOADS:
        title, tls, load, options, goals = LOADS[name]
        row = _row(title, LOAD_COLUMNS, goals)
        contestants = [(kind, BASE_ROUTERS) for kind in workspace.proxies]
        return _measure(workspace, row, contestants + _before(workspace, row), tls, load, options)
    others = {"gzip": _gzip, "middlewares": _middlewares, "hardened": _hardened, "hardened-h2": _hardened_h2,
              "routers": _routers, "start": _start, "idle": _idle, "reload": _reload}
    return others[name](workspace)


def _row(title, columns, goals=None):
    return {"title": title, "columns": columns, "goals": goals or {}, "samples": {}, "failures": {}, "facts": {}}


_LAYOUTS = {"ten": "ten middlewares", "hardened": "hardened"}


def label(kind, routers, layout=None):
    """How a contestant is called where the number of routers or what they do differs."""
    if layout in _LAYOUTS:
        return f"{kind}, {_LAYOUTS[layout]}"
    return kind if routers == BASE_ROUTERS else f"{kind} {routers:,}"


def _fail(row, who, error):
    row["failures"].setdefault(who, []).append(str(error))


def _measure(workspace, row, contestants, tls, load, options):
    """Starts all, then round by round asks each in turn, beginning with another one every round."""
    alive = []
    try:
        for kind, routers, *layout in contestants:
            who = label(kind, routers, *layout)
            try:
                proxy = workspace.keep(Proxy(workspace, kind, routers, "".join(layout) or "one", tls=tls))
                proxy.wait(workspace.start_limit)
                checks.proxied(workspace, proxy)
                if tls:
                    row["facts"][who] = checks.secure(workspace, proxy)
                load(workspace, proxy, workspace.warm_up, **options)
                alive.append((who, proxy))
            except (StartFailure, loads.LoadFailure, OSError) as error:
                _fail(row, who, error)
        for turn in range(workspace.rounds):
            first = turn % len(alive) if alive else 0
            for who, proxy in alive[first:] + alive[:first]:
                try:
                    sample, facts = _sample(workspace, proxy, load, options)
                except (StartFailure, loads.LoadFailure, OSError) as error:
                    _fail(row, who, error)
                    continue
                row["samples"].setdefault(who, []).append({**sample, "round": turn})
                row["facts"].setdefault(who, {}).update(facts)
                for error in sample["errors"]:
                    _fail(row, who, f"round {turn + 1}: {error}")
            workspace.tell(f"round {turn + 1} of {workspace.rounds}")
    finally:
        workspace.stop_proxies()
    ciphers = {facts["cipher"] for facts in row["facts"].values() if facts.get("cipher")}
    if len(ciphers) > 1:
        row["note"] = f"the proxies chose different ciphers: {', '.join(sorted(ciphers))}"
    return row


def _sample(workspace, proxy, load, options):
    pids = proxy.pids()
    asked, before = workspace.backend.requests(), measure.cpu_seconds_each(pids)
    result = load(workspace, proxy, workspace.seconds, **options)
    # Closing what the generator left behind is part of the price.
    time.sleep(0.05)
    if set(proxy.pids()) != set(pids):
        raise StartFailure(f"{proxy.name}: its processes changed under load: {proxy.last_words()}")
    after = measure.cpu_seconds_each(pids)
    spent = {pid: after[pid] - before[pid] for pid in pids}
    passed = workspace.backend.requests() - asked
    if passed < result["requests"]:
        result["errors"].append(f"{result['requests']} replies, but the backend saw {passed} requests")
    answered = max(1, result["requests"])
    sample = {
        "rps": result["requests"] / result["seconds"], "cpu_us": sum(spent.values()) / answered * 1e6,
        "p50_ms": result["p50_ms"], "p99_ms": result["p99_ms"], "pss_mib": measure.pss_mib(pids),
        "requests": result["requests"], "cpu_cores": sum(spent.values()) / result["seconds"],
        "errors": result["errors"],
    }
    time.sleep(0.15)
    return sample, result["facts"]


def _before(workspace, row, *layout):
    """The older Doorward as a contestant, where one was named."""
    if not workspace.before or "doorward" not in workspace.proxies:
        return []
    row["own_base"], row["own_heading"] = {"doorward": "before"}, "before"
    row["own_goals"] = [("doorward", "cpu_us", 1.03)]
    return [("before", BASE_ROUTERS, *layout)]


def _gzip(workspace):
    row = _row("http 64 KiB of HTML compressed on its way, 16 keep-alive connections", LOAD_COLUMNS, {"cpu_us": 1.0})
    contestants = [(kind, BASE_ROUTERS, "gzip") for kind in workspace.proxies if kind != "haproxy"]
    row["note"] = f"gzip of level {configs.GZIP_LEVEL} in both; HAProxy has one level, of another library"
    options = {"connections": 16, "path": "/page.html", "size": 1024, "headers": ["Accept-Encoding: gzip"]}
    return _measure(workspace, row, contestants + _before(workspace, row, "gzip"), False, loads.wrk, options)


def _middlewares(workspace):
    row = _row("http 1 KiB keep-alive through ten middlewares that look at the request", LOAD_COLUMNS)
    return _beside_itself(workspace, row, "ten", "without them", 1.1, False, loads.wrk)


def _hardened(workspace):
    row = _row("http 1 KiB keep-alive with the profile hardened", LOAD_COLUMNS)
    return _beside_itself(workspace, row, "hardened", "safe", 1.05, False, loads.wrk)


def _hardened_h2(workspace):
    row = _row("h2 over TLS 1 KiB with the profile hardened", LOAD_COLUMNS)
    return _beside_itself(workspace, row, "hardened", "safe", 1.05, True, loads.h2load)


def _beside_itself(workspace, row, layout, heading, goal, tls, load):
    """Doorward in another layout, as a ratio to itself in the ordinary one."""
    if "doorward" not in workspace.proxies:
        row["note"] = "Doorward only, and it is not among the proxies"
        return row
    other = label("doorward", BASE_ROUTERS, layout)
    row["own_base"], row["own_heading"] = {other: "doorward"}, heading
    row["own_goals"] = [(other, "cpu_us", goal)]
    contestants = [("doorward", BASE_ROUTERS), ("doorward", BASE_ROUTERS, layout)]
    return _measure(workspace, row, contestants, tls, load, {})


def _routers(workspace):
    row = _row("http 1 KiB keep-alive, the last of 10 / 10,000 / 100,000 host routers asked for", LOAD_COLUMNS)
    contestants = [(kind, count) for count in (BASE_ROUTERS, 10_000) for kind in workspace.proxies]
    contestants += [(kind, 100_000) for kind in workspace.proxies if kind == "doorward"]
    row["own_base"] = {label(kind, count): kind for kind, count in contestants if count != BASE_ROUTERS}
    row["base"] = {label(kind, count): label("nginx", count) for kind, count in contestants}
    row["own_goals"] = [(label("doorward", count), "cpu_us", 1.2) for count in (10_000, 100_000)]
    return _measure(workspace, row, contestants, False, loads.wrk, {})


def _start(workspace):
    """Alone on the machine, one after the other: from the start of the process to the first reply."""
    row = _row("start to the first answer of the last router, memory then, and cost of doing nothing",
               [("first_ms", "first answer"), ("start_cpu_ms", "CPU"), ("pss_mib", "PSS"), ("threads", "threads"),
                ("idle_cpu_ms", "CPU/s idle")])
    contestants = [(kind, count) for count in (BASE_ROUTERS, 10_000) for kind in workspace.proxies]
    contestants += [(kind, 100_000) for kind in workspace.proxies if kind == "doorward"]
    row["base"] = {label(kind, count): label("nginx", count) for kind, count in contestants}
    row["figures"] = [(label("doorward", 10_000), "first_ms", 500), (label("doorward", 10_000), "pss_mib", 100)]
    for turn in range(min(3, workspace.rounds)):
        for kind, routers in contestants:
            who = label(kind, routers)
            if who in row["failures"]:
                continue
            try:
                proxy = workspace.keep(Proxy(workspace, kind, routers))
                first = proxy.wait(workspace.start_limit)
                spent = measure.cpu_seconds(proxy.pids())
                # The first answer may come before the last worker is up.
                time.sleep(1)
                pids = proxy.pids()
                idle = measure.cpu_seconds(pids)
                time.sleep(1)
                row["samples"].setdefault(who, []).append({
                    "round": turn, "first_ms": first * 1e3, "start_cpu_ms": spent * 1e3,
                    "pss_mib": measure.pss_mib(pids), "threads": measure.threads(pids),
                    "idle_cpu_ms": (measure.cpu_seconds(pids) - idle) * 1e3})
            except (StartFailure, OSError) as error:
                _fail(row, who, error)
            finally:
                workspace.stop_proxies()
        workspace.tell(f"start {turn + 1}")
    return row


def _idle(workspace):
    """Connections that asked once and then stay; the kernel's share is not in it."""
    row = _row(f"memory of an idle keep-alive connection ({workspace.idle:,} open)",
               [("http_kib", "http KiB"), ("https_kib", "https KiB"), ("pss_mib", "PSS before")])
    for kind in workspace.proxies:
        try:
            sample = {"round": 0}
            for name in ("http", "https"):
                proxy = workspace.keep(Proxy(workspace, kind, BASE_ROUTERS, tls=True,
                                             connections=workspace.idle + 1024))
                proxy.wait(workspace.start_limit)
                sample[f"{name}_kib"], sample["pss_mib"] = _idle_cost(workspace, proxy, name == "https")
                workspace.stop_proxies()
            row["samples"][kind] = [sample]
        except (StartFailure, OSError) as error:
            _fail(row, kind, error)
        finally:
            workspace.stop_proxies()
    return row


def _idle_cost(workspace, proxy, secure):
    context = ssl.create_default_context(cafile=workspace.certificate)
    context.set_alpn_protocols(["http/1.1"])
    port = proxy.https_port if secure else proxy.http_port
    request = f"GET /1k HTTP/1.1\r\nHost: {proxy.last_host()}\r\n\r\n".encode()

    def open_connection():
        connection = socket.create_connection(("127.0.0.1", port), timeout=10)
        if secure:
            connection = context.wrap_socket(connection, server_hostname=proxy.last_host())
        connection.sendall(request)
        status, _, _ = read_reply(connection)
        if status != 200:
            raise StartFailure(f"{proxy.name}: status {status} on a connection meant to idle")
        return connection

    held = []
    try:
        for _ in range(100):
            open_connection().close()
        time.sleep(0.5)
        before = measure.pss_mib(proxy.pids())
        for _ in range(workspace.idle):
            held.append(open_connection())
        # Longer than a page that is being loaded: from then on a connection is idle.
        time.sleep(5)
        after = measure.pss_mib(proxy.pids())
        closed = sum(_is_closed(connection) for connection in held)
        if closed:
            raise StartFailure(f"{proxy.name}: closed {closed} of {len(held)} idle connections")
        return (after - before) * 1024 / len(held), before
    finally:
        for connection in held:
            connection.close()


def _is_closed(connection):
    # Peeks below TLS: session tickets may wait there, an end must not.
    plain = socket.socket(fileno=os.dup(connection.fileno()))
    try:
        plain.setblocking(False)
        return plain.recv(1, socket.MSG_PEEK) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True
    finally:
        plain.close()


def _reload(workspace):
    """From the moment a changed file is in place to the first reply under its new host."""
    row = _row(f"reload: one router of {workspace.reload_routers:,} changed, providersThrottleDuration 100ms",
               [("served_ms", "served after"), ("cpu_ms", "CPU"), ("pss_mib", "PSS")])
    if "doorward" not in workspace.proxies:
        row["note"] = "Doorward only, and it is not among the proxies"
        return row
    row["figures"] = [("doorward, a file per router", "served_ms", 250), ("doorward, a file per router", "cpu_ms", 50)]
    for layout, who in (("tenants", "doorward, a file per router"), ("one", "doorward, one file")):
        try:
            proxy = workspace.keep(Proxy(workspace, "doorward", workspace.reload_routers, layout=layout))
            proxy.wait(workspace.start_limit)
            time.sleep(2)
            samples = row["samples"].setdefault(who, [])
            for turn in range(max(5, workspace.rounds)):
                samples.append({"round": turn, **_change_one(workspace, proxy, layout, turn)})
        except (StartFailure, OSError) as error:
            _fail(row, who, error)
        finally:
            workspace.stop_proxies()
    return row


def _change_one(workspace, proxy, layout, turn):
    pids, changed = proxy.pids(), f"changed{turn}.bench.test"
    if get(proxy.http_port, changed, "/1k")[0] == 200:
        raise StartFailure(f"{changed} is served before it is configured")
    before = measure.cpu_seconds(pids)
    if layout == "tenants":
        configs.write_tenant(proxy, proxy.routers - 1, changed, workspace.backend.port)
    else:
        configs.write_dynamic(workspace, proxy, False, workspace.backend.port, last_host=changed)
    written = time.monotonic()
    while get(proxy.http_port, changed, "/1k", timeout=10)[0] != 200:
        if time.monotonic() - written > workspace.start_limit:
            raise StartFailure(f"a change is not served after {workspace.start_limit} s")
        time.sleep(0.005)
    served = time.monotonic() - written
    # The rest of the work a change makes, and the throttle's pause before the next one.
    time.sleep(1)
    return {"served_ms": served * 1e3, "cpu_ms": (measure.cpu_seconds(pids) - before) * 1e3,
            "pss_mib": measure.pss_mib(pids)}
