# Doorward in a container:
#   docker build -t doorward .
#   docker run -p 80:80 -p 443:443 -v "$PWD/config:/etc/doorward:ro" doorward
#
# The C library is linked dynamically, since a static glibc cannot look up names as the system is
# configured to. So the last stage is the same Debian as the first.

FROM rust:1.95.0-bookworm AS build
# Wins over rust-toolchain.toml, whose rustfmt and clippy are not needed here.
ENV RUSTUP_TOOLCHAIN=1.95.0
WORKDIR /build
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/build/target \
    cargo build --locked --profile dist --bin doorward \
 && install -D --strip target/dist/doorward /image/usr/local/bin/doorward \
 && install -d /image/etc/doorward/dynamic

FROM debian:12-slim
RUN apt-get update \
 && apt-get install --yes --no-install-recommends ca-certificates \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --uid 10001 --user-group --no-create-home --shell /usr/sbin/nologin doorward
COPY --from=build /image/ /
# A number, so that Kubernetes can see that it is not root. Docker lets anybody have ports 80 and 443
# in a container; elsewhere, add the capability NET_BIND_SERVICE or choose higher ports.
USER 10001:10001
EXPOSE 80 443 8080
# Asks /ping of the configuration in use, which must have `ping`.
HEALTHCHECK --interval=10s --timeout=6s --start-period=5s --retries=3 \
  CMD ["doorward", "healthcheck", "--configFile=/etc/doorward/doorward.yml"]
ENTRYPOINT ["doorward"]
CMD ["--configFile=/etc/doorward/doorward.yml"]
