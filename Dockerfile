# One image for every service, and for the whole system in one container:
#   docker build -t hpc-batch-sim:latest .
#   docker run --rm -v $(pwd)/outputs:/app/outputs -e NUM_JOBS=5 -e API_PORT=8080 hpc-batch-sim:latest
ARG PYTHON_IMAGE=python:3.13-slim

FROM ${PYTHON_IMAGE} AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /build
# The requirements come before the sources, so that a changed line of code does not install them again.
COPY requirements/run.txt requirements/build.txt requirements/
RUN python -m venv --without-pip /opt/venv \
    && pip --python /opt/venv/bin/python install --require-hashes -r requirements/run.txt
RUN python -m venv /opt/tools \
    && /opt/tools/bin/pip install --require-hashes -r requirements/build.txt
COPY pyproject.toml README.md LICENSE ./
COPY batchsim batchsim
COPY common common
COPY services services
RUN /opt/tools/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /wheels . \
    && pip --python /opt/venv/bin/python install --no-deps --no-index /wheels/*.whl


FROM ${PYTHON_IMAGE}
LABEL org.opencontainers.image.title="hpc-batch-sim" \
      org.opencontainers.image.description="One simulation, a million runs, any number of containers, and results you can trust." \
      org.opencontainers.image.licenses="MIT"
# A container's own loopback cannot be reached from outside, so the API listens on all of its addresses;
# BIND_ADDRESS says which address of the host the port is published on.
# HOME is writable for whatever user the container runs as.
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    HOME=/tmp \
    API_HOST=0.0.0.0 \
    BIND_ADDRESS=127.0.0.1 \
    OUTPUT_DIR=/app/outputs
WORKDIR /app
COPY --from=build /opt/venv /opt/venv
COPY --chmod=755 deploy/entrypoint deploy/hand-over /usr/local/bin/
RUN install -d -o 1000 -g 1000 /app/outputs
EXPOSE 8080
# "live" and not "health": that Redis is away is no reason to replace this container.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-IS", "-c", "import os, urllib.request as r; r.urlopen(f'http://127.0.0.1:{os.environ.get(\"API_PORT\") or 8080}/health/live', timeout=4)"]
ENTRYPOINT ["entrypoint"]
CMD ["batchsim", "serve"]
