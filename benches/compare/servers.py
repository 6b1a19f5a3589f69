"""Starts and stops the backend and the proxies, each with files of its own in a temporary folder.

Whatever is started here dies with this program: by stop(), or by the kernel when this program is
killed outright.
"""

import ctypes
import os
import random
import resource
import shutil
import signal
import socket
import subprocess
import time

import configs
import measure

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)
_next_port = [18080]


class StartFailure(Exception):
    """A server that did not come up, or did not answer as it should."""


def free_port():
    """A port below the range the kernel gives to clients, so that no load connection takes it."""
    while True:
        port = _next_port[0]
        _next_port[0] += 1
        if port > 30000:
            raise StartFailure("no free port between 18080 and 30000")
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


def file_limit():
    """Raises this process's limit of open files as far as allowed, and returns it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    hard = min(hard, 1_048_576) if hard != resource.RLIM_INFINITY else 1_048_576
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    return hard


class Cores:
    """Who runs where: with more than three cores, two for the proxies and the rest for the others."""

    def __init__(self):
        self.all = sorted(os.sched_getaffinity(0))
        self.split = len(self.all) > 3
        self.proxies = set(self.all[:2]) if self.split else set(self.all)
        self.others = set(self.all[2:]) if self.split else set(self.all)


CORES = Cores()


class Server:
    """A process this program started, and the processes that one started."""

    def __init__(self, name, command, folder, cores):
        self.name, self.folder = name, folder
        self.log = os.path.join(folder, "output.log")
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=folder,
                preexec_fn=lambda: in_child(cores), start_new_session=True)

    def pids(self):
        """All processes of this server; raises when it has ended."""
        if self.process.poll() is not None:
            raise StartFailure(f"{self.name} ended with {self.process.returncode}: {self.last_words()}")
        return measure.process_tree(self.process.pid)

    def last_words(self):
        """The end of what it printed and logged."""
        words = []
        for name in ("output.log", "error.log"):
            try:
                with open(os.path.join(self.folder, name), encoding="utf-8", errors="replace") as log:
                    words.append(log.read()[-600:].strip())
            except OSError:
                continue
        return " | ".join(word for word in words if word) or "(it said nothing)"

    def stop(self):
        """Ends it and its children; asks first, then insists."""
        family = measure.process_tree(self.process.pid)
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(timeout=3)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        for pid in family[1:]:
            try:
                if os.getpgid(pid) == self.process.pid:
                    os.kill(pid, signal.SIGKILL)
            except OSError:
                continue


def in_child(cores):
    """What a process started here does before it becomes its program."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    os.sched_setaffinity(0, cores)


class Backend(Server):
    """One NGINX worker that serves two files from memory and counts what it was asked."""

    def __init__(self, workspace, token):
        self.port, self.status_port = free_port(), free_port()
        folder = workspace.folder("backend")
        root = os.path.join(folder, "files")
        os.mkdir(root)
        for name, size in (("1k", 1024), ("1m", 1024 * 1024)):
            with open(os.path.join(root, name), "wb") as file:
                file.write(b"d" * size)
        with open(os.path.join(root, "page.html"), "wb") as file:
            file.write(_page(64 * 1024))
        # A copy, so that its code pages are not shared with the NGINX whose memory is measured.
        binary = shutil.copy(workspace.nginx, os.path.join(folder, "backend"))
        config = configs.backend(folder, self.port, self.status_port, token)
        super().__init__("backend", [binary, *configs.nginx_arguments(folder, config)], folder,
                         CORES.others)
        wait_for(self, self.port, "backend", "/1k", 30)

    def requests(self):
        """Requests answered so far, but for those that asked for this number."""
        status, _, body = get(self.status_port, "localhost", "/status")
        self._asked = getattr(self, "_asked", 0) + 1
        if status != 200:
            raise StartFailure(f"the backend's counter answers {status}")
        return int(body.split(b"requests\n")[1].split()[2]) - self._asked


def _page(size):
    """Text that compresses as a list view of a business application does, to about a sixth; always the same."""
    draw, rows, length = random.Random(1), [], 0
    words = "invoice partner amount total draft posted paid sale order product quantity company street name".split()
    while length < size:
        cells = "".join(f'<td class="o_data_cell {draw.choice(words)}">{draw.choice(words)} {draw.randrange(10**6)}</td>'
                        for _ in range(6))
        rows.append(f'<tr class="o_data_row" data-id="{draw.randrange(10**8)}">{cells}</tr>\n')
        length += len(rows[-1])
    return "".join(rows).encode()[:size]


class Proxy(Server):
    """One of the compared proxies, with `routers` host routers before one backend."""

    def __init__(self, workspace, kind, routers, layout="one", *, tls=False, connections=2048):
        self.kind, self.routers, self.connections = kind, routers, connections
        self.http_port, self.https_port, self.metrics_port = free_port(), free_port(), free_port()
        self.folder = workspace.folder(f"{kind}-{routers}")
        write = {"nginx": configs.nginx, "haproxy": configs.haproxy}.get(kind, configs.doorward)
        command = write(workspace, self, tls=tls, layout=layout,
                        backend_port=workspace.backend.port)
        self.started = time.monotonic()
        super().__init__(kind, command, self.folder, CORES.proxies)
        self.first_answer = None

    def last_host(self):
        """The host of the router that was written last."""
        return configs.host(self.routers - 1)

    def wait(self, limit):
        """Waits until the last router answers; returns the seconds since the start."""
        wait_for(self, self.http_port, self.last_host(), "/1k", limit)
        self.first_answer = time.monotonic() - self.started
        return self.first_answer


def get(port, host, path, timeout=2):
    """One plain GET on a connection of its own: status, head, body."""
    with socket.create_connection(("127.0.0.1", port), timeout=timeout) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        return read_reply(connection)


def read_reply(connection):
    """Reads to the end of the connection, or of the body when its length is given."""
    data = b""
    while True:
        head, found, body = data.partition(b"\r\n\r\n")
        length = None
        if found:
            for line in head.split(b"\r\n")[1:]:
                name, _, value = line.partition(b":")
                if name.lower() == b"content-length":
                    length = int(value)
        if length is not None and len(body) >= length:
            break
        more = connection.recv(65536)
        if not more:
            break
        data += more
    head, _, body = data.partition(b"\r\n\r\n")
    words = head.split(b" ", 2)
    status = int(words[1]) if len(words) > 1 and words[1].isdigit() else 0
    return status, head.decode("latin-1"), body


def wait_for(server, port, host, path, limit):
    """Asks every 2 ms until the answer is 200."""
    deadline = time.monotonic() + limit
    seen = "no connection"
    while time.monotonic() < deadline:
        if server.process.poll() is not None:
            raise StartFailure(f"{server.name} ended with {server.process.returncode}: {server.last_words()}")
        try:
            status, _, _ = get(port, host, path, timeout=5)
            if status == 200:
                return
            seen = f"status {status}"
        except OSError as error:
            seen = str(error)
        time.sleep(0.002)
    raise StartFailure(f"{server.name} does not answer after {limit} s ({seen}): {server.last_words()}")
