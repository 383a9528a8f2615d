# defragd's image: Debian 12, one binary, user 65532. How far it is tested: deploy/README.md. `make dist` builds the published
# image from the last stage, on nothing instead of Debian, with static binaries in place of the first stage.
#
#   docker build --build-arg REVISION="$(git rev-parse HEAD)" -t defragd .
#   docker run --rm --read-only --cap-drop ALL --security-opt no-new-privileges \
#     -v /etc/defragd:/etc/defragd:ro -v defragd:/var/lib/defragd -p 127.0.0.1:9379:9379 defragd \
#     serve --config /etc/defragd/config.yaml --data-dir /var/lib/defragd \
#     --web.listen-address 0.0.0.0:9379 --web.bearer-token-file /etc/defragd/token
#
# Without arguments it listens only on the container's own loopback, so set the address and, with it, a token.
#
# Meant to be reproducible: the lock file, the same paths and no time in every build. Pin both images below by digest (--build-arg),
# and make the builder set the files' times (SOURCE_DATE_EPOCH with rewrite-timestamp=true in BuildKit, --timestamp in buildah).

# The same Debian in both stages, so that the binary is linked with the glibc that it runs with.
ARG RUST_IMAGE=rust:1-bookworm
ARG BASE_IMAGE=debian:12-slim

FROM ${RUST_IMAGE} AS build

# etcd-client compiles etcd's .proto files: the compiler, and libprotobuf-dev for Google's types that they import.
RUN apt-get update \
 && apt-get install --yes --no-install-recommends protobuf-compiler libprotobuf-dev \
 && rm -rf /var/lib/apt/lists/*

WORKDIR /src
COPY . .
ARG REVISION=unknown
# jemalloc takes the page size of the machine that builds it; kernels on arm64 have pages of up to 64 KiB.
RUN if [ "$(uname -m)" = aarch64 ]; then export JEMALLOC_SYS_WITH_LG_PAGE=16; fi; \
    DEFRAGD_REVISION="${REVISION}" RUSTFLAGS="--remap-path-prefix=${CARGO_HOME}=/cargo" \
    cargo build --release --locked --bin defragd
# Set the final image's files and owners here, so that its stage has nothing to run.
RUN mkdir -p /image/usr/local/bin /image/var/lib/defragd \
 && install -m 0755 target/release/defragd /image/usr/local/bin/defragd \
 && chown -R 65532:65532 /image/var/lib/defragd

FROM ${BASE_IMAGE}

ARG VERSION=0.1.0
ARG REVISION=unknown
ARG BASE_IMAGE
LABEL org.opencontainers.image.title="defragd" \
      org.opencontainers.image.description="Exports the fragmentation of etcd clusters and runs rolling defragmentations" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.base.name="${BASE_IMAGE}"

# Public CAs, for gates with a public URL. etcd's own CA comes with the configuration.
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /image/usr/local/bin/ /usr/local/bin/
COPY --from=build --chown=65532:65532 /image/var/lib/defragd /var/lib/defragd
COPY LICENSE /usr/share/doc/defragd/LICENSE

# A number, so that Kubernetes' runAsNonRoot can check it. It owns only the data directory; the root file system may be
# read-only. It must be able to read mounted keys and tokens.
USER 65532:65532
WORKDIR /var/lib/defragd
EXPOSE 9379
# Only in Docker's image format: OCI images drop it (deploy/README.md, Image).
# Requests http://127.0.0.1:9379. For another address, TLS or a password set DEFRAGD_SERVER and what `defragd health --help` lists.
HEALTHCHECK --interval=30s --timeout=5s --start-period=20s CMD ["/usr/local/bin/defragd", "health"]
ENTRYPOINT ["/usr/local/bin/defragd"]
CMD ["serve"]
