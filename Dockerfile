# One image runs every process of the service: `api` (the default), `worker`, `bootstrap …`.
#
#   docker build -t slipway .
#   docker run --rm --read-only --tmpfs /tmp -e REDIS_URL=… slipway worker
#
# Needs BuildKit (Docker 23 or later has it on). It runs as user 10001 with a read-only root file system; /tmp must be
# writable. Settings come from the environment, or from files named like the variables in the folder SECRETS_PATH.

# A tag for people and a digest (of the index of all platforms) for machines; raise both together.
ARG PYTHON_IMAGE=python:3.13.15-slim-trixie@sha256:7c61056e61ac89e852de05f3dc6fa51a6dd2181797bceed46aa725dd7cb2cd3b

FROM ${PYTHON_IMAGE} AS builder
ARG UV_VERSION=0.13.9
RUN --mount=type=cache,target=/root/.cache/pip \
    python -m venv /opt/uv && /opt/uv/bin/pip install --disable-pip-version-check "uv==${UV_VERSION}"
ENV UV_COMPILE_BYTECODE=1 \
    UV_LINK_MODE=copy \
    UV_NO_DEFAULT_GROUPS=1 \
    UV_PROJECT_ENVIRONMENT=/srv/venv \
    UV_PYTHON_DOWNLOADS=never
WORKDIR /srv/slipway
# Dependencies before code: this layer is made anew only when the lock file changes.
RUN --mount=type=cache,target=/root/.cache/uv \
    --mount=type=bind,source=pyproject.toml,target=pyproject.toml \
    --mount=type=bind,source=uv.lock,target=uv.lock \
    /opt/uv/bin/uv sync --locked --no-install-project
COPY app app
RUN /srv/venv/bin/python -m compileall -q -j 0 --invalidation-mode unchecked-hash app

FROM ${PYTHON_IMAGE}
# What installs software is of no use to a service, and of some to an intruder.
RUN find / -xdev \( -path '*/ensurepip' -o -path '*/site-packages/pip' -o -path '*/dist-packages/pip' \
        -o -path '*/pip-*.dist-info' -o -path '/usr/share/python-wheels' -o -path '*/bin/pip*' \) -prune -exec rm -rf {} + \
    && groupadd --gid 10001 slipway \
    && useradd --uid 10001 --gid 10001 --no-log-init --no-create-home --home-dir /tmp --shell /usr/sbin/nologin slipway \
    && install -d -o 10001 -g 10001 -m 0750 /run/slipway
ENV PATH=/srv/venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    ENVIRONMENT=production \
    HOST=0.0.0.0 \
    PORT=8000
WORKDIR /srv/slipway
COPY --from=builder /srv/venv /srv/venv
COPY langgraph.json ./
COPY docs docs
COPY --from=builder /srv/slipway/app app
USER 10001:10001
EXPOSE 8000
# For a worker, replace it by `python -m app health worker`.
HEALTHCHECK --interval=30s --timeout=10s --start-period=180s --retries=3 CMD ["python", "-m", "app", "health", "api"]
ENTRYPOINT ["python", "-m", "app"]
CMD ["api"]

# Last, so that a new revision reuses every layer above.
ARG VERSION=0.1.0
ARG REVISION=unknown
ARG CREATED=unknown
LABEL org.opencontainers.image.title="Slipway" \
      org.opencontainers.image.description="A LangGraph agent as a service: api and worker" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}"
