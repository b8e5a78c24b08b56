# The images of the operator and of the runner: one static binary each on an empty file system, as a user without rights.
#
#   docker build --target operator -t sopwith/operator .
#   docker build --target runner -t sopwith/runner .
#
# BUILD_IMAGE is any image with Rust, a C compiler and /etc/ssl/certs/ca-certificates.crt.
ARG BUILD_IMAGE=docker.io/library/rust:1.95-bookworm

FROM ${BUILD_IMAGE} AS build
WORKDIR /src
COPY . .
# One compilation for both. The sources are touched, as the cached target folder may be newer than other sources of the
# same name. A static glibc resolves names and needs no files but the certificates.
RUN --mount=type=cache,target=/target \
    find . -name '*.rs' -exec touch {} + \
 && target=$(rustc -vV | sed -n 's/^host: //p') \
 && RUSTFLAGS="-C target-feature=+crt-static" CARGO_TARGET_DIR=/target \
    cargo build --release --locked --target "$target" -p sopwith-operator -p sopwith-runner \
 && mkdir -p /out \
 && cp "/target/$target/release/sopwith-operator" "/target/$target/release/sopwith-runner" /out/

FROM scratch AS base
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
ENV SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt
USER 65532:65532

FROM base AS operator
COPY --from=build /out/sopwith-operator /sopwith-operator
ENTRYPOINT ["/sopwith-operator"]

FROM base AS runner
COPY --from=build /out/sopwith-runner /sopwith-runner
ENTRYPOINT ["/sopwith-runner"]
