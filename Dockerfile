# syntax=docker/dockerfile:1
#
#   docker build -t tollgate .
#
# Beside the gateway, in one network namespace (a sidecar, or --network host): the server stays on loopback.
#   docker run --network host -v "$PWD/policies:/policies:ro" -v tollgate-data:/data tollgate
#
# For others to reach it, it has to listen on another address. There callers prove themselves; the first start prints a
# key to begin with, and keeps what it has of it in /data. Without TLS (TOLLGATE_TLS_CERTIFICATE_FILE,
# TOLLGATE_TLS_KEY_FILE) credentials can be read on the way: let something in front of it end TLS.
#   docker run -p 127.0.0.1:8181:8181 -e TOLLGATE_LISTEN=0.0.0.0:8181 -v "$PWD/policies:/policies:ro" \
#     -v tollgate-data:/data tollgate

FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --profile dist --locked --bin tollgate \
    && install -D -m 0755 target/dist/tollgate /out/tollgate \
    && strip /out/tollgate

FROM debian:bookworm-slim
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates curl \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --user-group --no-create-home --shell /usr/sbin/nologin tollgate \
    && install -d -o tollgate -g tollgate -m 0750 /data \
    && install -d -m 0755 /policies
COPY --from=build /out/tollgate /usr/local/bin/tollgate
COPY LICENSE /usr/share/doc/tollgate/LICENSE

# The environment beats the config file, and flags beat the environment.
ENV TOLLGATE_POLICIES=/policies \
    TOLLGATE_DATA=/data \
    TOLLGATE_LISTEN=127.0.0.1:8181 \
    TOLLGATE_LISTEN_HEALTH=127.0.0.1:8182
USER 10001:10001
VOLUME ["/policies", "/data"]
EXPOSE 8181

# Ready means that a bundle is active. The listener for health checks speaks plain HTTP and asks for no certificate, whatever
# the other one does; two containers that share a network namespace need two ports.
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s --retries=3 \
    CMD curl -fsS -o /dev/null "http://${TOLLGATE_LISTEN_HEALTH}/health/ready" || exit 1

ENTRYPOINT ["/usr/local/bin/tollgate"]
CMD ["serve"]
