"""Runs one load generator against one port and brings its words into one form.

A result is a dict: requests, seconds, p50_ms, p99_ms, errors (words, empty when all went well) and
facts (what the generator saw of TLS and HTTP versions).
"""

import json
import os
import re
import subprocess

from servers import CORES, in_child

# wrk has its percentiles only for scripts.
_WRK_SCRIPT = """\
done = function(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format(
    '\\nRESULT {"requests":%d,"us":%d,"bytes":%d,"connect":%d,"read":%d,"write":%d,"status":%d,"timeout":%d,"p50":%d,"p99":%d}\\n',
    summary.requests, summary.duration, summary.bytes, errors.connect, errors.read, errors.write,
    errors.status, errors.timeout, latency:percentile(50), latency:percentile(99)))
end
"""


class LoadFailure(Exception):
    """A generator that failed or that nobody understands."""


def _run(command, seconds):
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                              timeout=seconds + 30, check=False,
                              preexec_fn=lambda: in_child(CORES.others))
    except subprocess.TimeoutExpired as error:
        raise LoadFailure(f"{command[0]} did not end") from error
    if done.returncode != 0:
        raise LoadFailure(f"{command[0]} ended with {done.returncode}: {(done.stderr + done.stdout)[-400:]}")
    return done.stdout


def wrk(workspace, proxy, seconds, *, secure=False, connections=64, path="/1k", size=1024, close=False, headers=()):
    """HTTP/1.1, as fast as it goes, over `connections` connections."""
    script = os.path.join(workspace.path, "percentiles.lua")
    if not os.path.exists(script):
        with open(script, "w", encoding="ascii") as file:
            file.write(_WRK_SCRIPT)
    # A name, not an address, where a name is sent in the TLS handshake.
    url = f"https://localhost:{proxy.https_port}" if secure else f"http://127.0.0.1:{proxy.http_port}"
    command = ["wrk", "-t", str(workspace.threads), "-c", str(connections), "-d", f"{max(1, round(seconds))}s",
               "--timeout", "10s", "-s", script, "-H", f"Host: {proxy.last_host()}"]
    for header in headers:
        command += ["-H", header]
    if close:
        command += ["-H", "Connection: close"]
    found = re.search(r"^RESULT (.*)$", _run([*command, url + path], seconds), re.MULTILINE)
    if not found:
        raise LoadFailure("wrk gave no result")
    seen = json.loads(found[1])
    errors = [f"{kind}: {seen[kind]}" for kind in ("connect", "read", "write", "status", "timeout") if seen[kind]]
    if seen["bytes"] < seen["requests"] * size:
        errors.append(f"short replies: {seen['bytes']} bytes in {seen['requests']} requests")
    facts = {"bytes per reply": f"{seen['bytes'] / max(1, seen['requests']):,.0f}"} if headers else {}
    return _result(seen["requests"], seen["us"] / 1e6, seen["p50"] / 1e3, seen["p99"] / 1e3, errors, facts)


def h2load(workspace, proxy, seconds, *, connections=16, streams=16, path="/1k"):
    """HTTP/2 over TLS; percentiles from its log of every request."""
    log = os.path.join(workspace.path, "h2load.log")
    if os.path.exists(log):
        os.remove(log)
    out = _run(["h2load", "-D", str(max(1, round(seconds))), "-c", str(connections), "-m", str(streams),
                "-t", str(workspace.threads), "--log-file", log,
                "--connect-to", f"127.0.0.1:{proxy.https_port}",
                f"https://{proxy.last_host()}:{proxy.https_port}{path}"], seconds)
    facts = {}
    for key, pattern in (("tls", r"TLS Protocol: (\S+)"), ("cipher", r"Cipher: (\S+)"),
                         ("group", r"Server Temp Key: (\S+)"), ("protocol", r"Application protocol: (\S+)")):
        found = re.search(pattern, out)
        facts[key] = found[1] if found else None
    total = re.search(r"requests: (\d+) total, \d+ started, (\d+) done, (\d+) succeeded, (\d+) failed, "
                      r"(\d+) errored, (\d+) timeout", out)
    spent = re.search(r"finished in ([\d.]+)(us|ms|s|m)", out)
    codes = re.search(r"status codes: (\d+) 2xx, (\d+) 3xx, (\d+) 4xx, (\d+) 5xx", out)
    if not (total and spent and codes):
        raise LoadFailure(f"h2load is not understood: {out[-400:]}")
    succeeded, failed = int(total[3]), int(total[4]) + int(total[6])
    errors = [f"failed: {failed}"] if failed else []
    errors += [f"{kind}: {count}" for kind, count in zip(("3xx", "4xx", "5xx"), codes.groups()[1:]) if count != "0"]
    if (facts["tls"], facts["protocol"]) != ("TLSv1.3", "h2"):
        errors.append(f"not HTTP/2 over TLS 1.3: {facts}")
    with open(log, encoding="ascii") as lines:
        times = sorted(int(line.split()[2]) for line in lines if line.count("\t") >= 2)
    lasted = float(spent[1]) * {"us": 1e-6, "ms": 1e-3, "s": 1, "m": 60}[spent[2]]
    return _result(succeeded, lasted, _percentile(times, 50) / 1e3, _percentile(times, 99) / 1e3, errors, facts)


def handshakes(workspace, proxy, seconds, *, connections=32, path="/1k", size=1024):
    """A full TLS 1.3 handshake for every request; the generator itself checks that it was one."""
    seen = json.loads(_run([workspace.loadgen, f"127.0.0.1:{proxy.https_port}", proxy.last_host(), path, str(size),
                            str(connections), str(seconds), str(workspace.threads)], seconds))
    errors = [f"{name}: {count}" for name, count in seen["errors"].items()]
    facts = {"tls": "TLSv1.3", "group": "X25519", "cipher": " ".join(sorted(seen["cipher_suites"]))}
    return _result(seen["requests"], seen["duration_us"] / 1e6, seen["p50_us"] / 1e3, seen["p99_us"] / 1e3,
                   errors, facts)


def _result(requests, seconds, p50, p99, errors, facts):
    if not requests:
        errors = [*errors, "no request was answered"]
    return {"requests": requests, "seconds": seconds, "p50_ms": p50, "p99_ms": p99, "errors": errors, "facts": facts}


def _percentile(values, percent):
    return values[max(0, -(-len(values) * percent // 100) - 1)] if values else 0
