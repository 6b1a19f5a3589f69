"""Writes the configuration files: the same job for every proxy, each in its own language.

The job: accept http and https (HTTP/1.1 and HTTP/2), pick the backend by host name, add the
forwarding headers Traefik adds, keep connections on both sides open, and log nothing per request.
Everybody takes the first TLS cipher the client names.
"""

import json
import os

FOREVER = 1_000_000_000
IDLE_UPSTREAM = 512
# Doorward's own level cannot be set; NGINX gets the same.
GZIP_LEVEL = 5
# Ten that look at the request or change it, and let the response pass; together they leave this request as it is.
SHELF = {
    "addresses": "{ipAllowList: {sourceRange: [127.0.0.0/8, 10.0.0.0/8]}}",
    "limit": "{rateLimit: {average: 10000000, burst: 10000000}}",
    "escapes": "{encodedCharacters: {}}",
    "scheme": "{redirectScheme: {scheme: http}}",
    "moved": "{redirectRegex: {regex: '^http://old[.]example[.]com/(.*)', replacement: 'http://new.example.com/${1}'}}",
    "prefix": "{addPrefix: {prefix: /tenant}}",
    "versions": "{stripPrefixRegex: {regex: ['^/v[0-9]+/']}}",
    "rewrite": "{replacePathRegex: {regex: '^/old/(.*)', replacement: '/new/$1'}}",
    "strip": "{stripPrefix: {prefixes: [/tenant]}}",
    "mark": "{headers: {customRequestHeaders: {X-Tenant: t1}}}",
}


def host(index):
    """The host name of the router with this number."""
    return f"r{index:06d}.bench.test"


def write(folder, name, text):
    """Writes a file into the folder and returns its path."""
    path = os.path.join(folder, name)
    with open(path, "w", encoding="ascii") as file:
        file.write(text)
    return path


def nginx_arguments(folder, config):
    """Arguments that keep NGINX away from every path of the distribution."""
    return ["-p", folder, "-c", config, "-e", os.path.join(folder, "error.log")]


def _nginx_frame(folder, workers, connections, http):
    scratch = "".join(f"  {kind}_temp_path {folder}/{kind};\n"
                      for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    # Without this line workers give up root, and then the files in the private folder.
    user = "user root;\n" if os.geteuid() == 0 else ""
    return (f"{user}worker_processes {workers};\nworker_rlimit_nofile {2 * connections};\ndaemon off;\n"
            f"pid {folder}/nginx.pid;\nerror_log {folder}/error.log error;\n"
            f"events {{ worker_connections {connections}; }}\n"
            f"http {{\n  access_log off;\n  server_tokens off;\n{scratch}"
            f"  keepalive_requests {FOREVER};\n  keepalive_timeout 180s;\n{http}}}\n")


def backend(folder, port, status_port, token):
    """One worker; the files are in memory and stay open."""
    return write(folder, "nginx.conf", _nginx_frame(folder, 1, 4096, f"""\
  sendfile on;
  tcp_nopush on;
  open_file_cache max=100 inactive=1h;
  open_file_cache_valid 1h;
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    root {folder}/files;
    default_type application/octet-stream;
    types {{ text/html html; }}
    add_header X-Backend {token};
  }}
  server {{
    listen 127.0.0.1:{status_port};
    location = /status {{ stub_status; }}
  }}
"""))


def nginx(workspace, proxy, *, tls, layout, backend_port):
    """Two workers; one server block for each router."""
    folder = proxy.folder
    headers = "" if workspace.bare else f"""\
  proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
  proxy_set_header X-Forwarded-Host $http_host;
  proxy_set_header X-Forwarded-Port $server_port;
  proxy_set_header X-Forwarded-Proto $scheme;
  proxy_set_header X-Forwarded-Server {workspace.hostname};
  proxy_set_header X-Real-Ip $remote_addr;
"""
    listen = f"listen 127.0.0.1:{proxy.http_port};"
    secure = ""
    gzip = f"  gzip on; gzip_comp_level {GZIP_LEVEL}; gzip_proxied any; gzip_min_length 1024;\n" if layout == "gzip" else ""
    if tls:
        listen += f" listen 127.0.0.1:{proxy.https_port} ssl http2;"
        secure = f"""\
  ssl_certificate {workspace.certificate};
  ssl_certificate_key {workspace.key};
  ssl_protocols TLSv1.2 TLSv1.3;
"""
    servers = "".join(
        f"  server {{ {listen} server_name {host(index)}{' localhost' if index == 0 else ''}; "
        f"location / {{ proxy_pass http://backend; }} }}\n" for index in range(proxy.routers))
    config = write(folder, "nginx.conf", _nginx_frame(folder, 2, proxy.connections, f"""\
  server_names_hash_max_size 262144;
  server_names_hash_bucket_size 128;
  proxy_http_version 1.1;
  proxy_max_temp_file_size 0;
  proxy_set_header Connection "";
  proxy_set_header Host $http_host;
{headers}{secure}{gzip}\
  upstream backend {{
    server 127.0.0.1:{backend_port};
    keepalive {IDLE_UPSTREAM};
    keepalive_requests {FOREVER};
  }}
  server {{ {listen.replace(';', ' default_server;')} return 404; }}
{servers}"""))
    return [workspace.nginx, *nginx_arguments(folder, config)]


def haproxy(workspace, proxy, *, tls, layout, backend_port):
    """Two threads; the routers are a map file."""
    folder = proxy.folder
    names = [host(index) for index in range(proxy.routers)] + ["localhost"]
    hosts = write(folder, "hosts.map", "".join(f"{name} backend\n" for name in names))
    secure = ""
    if tls:
        secure = f"  bind 127.0.0.1:{proxy.https_port} ssl crt {workspace.bundle} alpn h2,http/1.1\n"
    headers = "" if workspace.bare else f"""\
  option forwardfor
  http-request set-header X-Forwarded-Host %[req.hdr(host)]
  http-request set-header X-Forwarded-Port %[dst_port]
  http-request set-header X-Forwarded-Proto https if {{ ssl_fc }}
  http-request set-header X-Forwarded-Proto http unless {{ ssl_fc }}
  http-request set-header X-Forwarded-Server {workspace.hostname}
  http-request set-header X-Real-Ip %[src]
"""
    config = write(folder, "haproxy.cfg", f"""\
global
  nbthread 2
  maxconn {proxy.connections}
  ssl-default-bind-options ssl-min-ver TLSv1.2 prefer-client-ciphers
defaults
  mode http
  timeout connect 5s
  timeout client 180s
  timeout server 180s
  timeout http-keep-alive 180s
  http-reuse always
frontend web
  bind 127.0.0.1:{proxy.http_port}
{secure}{headers}\
  use_backend %[req.hdr(host),lower,field(1,:),map({hosts})]
backend backend
  server one 127.0.0.1:{backend_port}
""")
    return [workspace.haproxy, "-db", "-f", config]


def doorward(workspace, proxy, *, tls, layout, backend_port):
    """Traefik's keys; the dynamic part in one file, or in a file for each router (`tenants`)."""
    folder = proxy.folder
    if layout == "tenants":
        os.mkdir(os.path.join(folder, "dynamic"))
        for index in range(proxy.routers):
            write_tenant(proxy, index, host(index), backend_port)
        source = f"directory: {folder}/dynamic"
    else:
        write_dynamic(workspace, proxy, tls, backend_port, shelf=_SHELVES.get(layout, {}))
        source = f"filename: {folder}/dynamic.yml"
    secure = f'  websecure:\n    address: "127.0.0.1:{proxy.https_port}"\n' if tls else ""
    profile = "core:\n  profile: hardened\n" if layout == "hardened" else ""
    config = write(folder, "doorward.yml", f"""\
{profile}\
global:
  checkNewVersion: false
  sendAnonymousUsage: false
log:
  level: ERROR
entryPoints:
  web:
    address: "127.0.0.1:{proxy.http_port}"
{secure}\
  metrics:
    address: "127.0.0.1:{proxy.metrics_port}"
metrics:
  prometheus:
    entryPoint: metrics
serversTransport:
  maxIdleConnsPerHost: {IDLE_UPSTREAM}
providers:
  providersThrottleDuration: 100ms
  file:
    {source}
    watch: true
""")
    program = workspace.before if proxy.kind == "before" else workspace.doorward
    return [program, f"--configFile={config}"]


def write_dynamic(workspace, proxy, tls, backend_port, last_host=None, shelf=None):
    """All routers in one file; the last router can be given another host, all can be given the middlewares of a shelf.
    Replaces it at once."""
    on_all = [f"      middlewares: [{', '.join(shelf)}]"] if shelf else []
    lines = ["http:", "  routers:"]
    for index in range(proxy.routers):
        name = last_host if last_host and index == proxy.routers - 1 else host(index)
        lines += _router(f"r{index:06d}", name, "web", "backend") + on_all
        if tls:
            names = [name, "localhost"] if index == 0 else [name]
            lines += _router(f"s{index:06d}", names, "websecure", "backend") + on_all + ["      tls: {}"]
    if shelf:
        lines += ["  middlewares:"] + [f"    {name}: {options}" for name, options in shelf.items()]
    lines += ["  services:"] + _service("backend", backend_port)
    if tls:
        pair = (f"certFile: {json.dumps(workspace.certificate)}", f"keyFile: {json.dumps(workspace.key)}")
        lines += ["tls:", "  certificates:", f"    - {pair[0]}", f"      {pair[1]}", "  stores:",
                  "    default:", "      defaultCertificate:", f"        {pair[0]}", f"        {pair[1]}"]
    _replace(proxy, "dynamic.yml", lines)


def write_tenant(proxy, index, name, backend_port):
    """The file of one tenant: its router and its service. Replaces it at once."""
    tenant = f"t{index:06d}"
    lines = ["http:", "  routers:", *_router(tenant, name, "web", tenant),
             "  services:", *_service(tenant, backend_port)]
    _replace(proxy, f"dynamic/{tenant}.yml", lines)


def _router(name, hosts, entry_point, service):
    hosts = [hosts] if isinstance(hosts, str) else hosts
    rule = " || ".join(f"Host(`{one}`)" for one in hosts)
    return [f"    {name}:", f'      rule: "{rule}"', "      entryPoints:", f"        - {entry_point}",
            f"      service: {service}"]


def _service(name, port):
    return [f"    {name}:", "      loadBalancer:", "        servers:", f'          - url: "http://127.0.0.1:{port}"']


def _replace(proxy, name, lines):
    # Written beside the watched folder and moved in: no reader ever sees half a file.
    os.replace(write(proxy.folder, "new.tmp", "\n".join(lines) + "\n"), os.path.join(proxy.folder, name))


_SHELVES = {"ten": SHELF, "gzip": {"compress": "{compress: {encodings: [gzip]}}"}}
