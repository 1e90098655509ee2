# The service alone: no PyTorch. One file for both kinds of machine:
#     docker build -t convoy .                            CPU
#     docker build -t convoy:cuda --build-arg DEVICE=cuda .    NVIDIA GPU; run it with --gpus all
#     docker run -p 8000:8000 -v "$PWD/artifacts:/app/artifacts:ro" --stop-timeout 50 convoy
# Docker gives 10 seconds to stop, the service up to CONVOY_DRAIN_DELAY (0) + CONVOY_DRAIN_SECONDS (30) + 20.
ARG PYTHON=3.13

FROM python:${PYTHON}-slim AS build
ARG DEVICE=cpu
WORKDIR /build
COPY requirements/ requirements/
# Only what the lock file names, by hash. cuda.txt is service.txt with the CUDA libraries.
RUN python -m venv /opt/venv \
    && case "$DEVICE" in cpu) lock=service ;; cuda) lock=cuda ;; *) echo "DEVICE is cpu or cuda, not $DEVICE" >&2; exit 2 ;; esac \
    && /opt/venv/bin/pip install --no-cache-dir --disable-pip-version-check --require-hashes -r "requirements/$lock.txt"

FROM python:${PYTHON}-slim
ARG DEVICE=cpu
RUN useradd --system --uid 10001 --no-create-home convoy
WORKDIR /app
COPY --from=build /opt/venv /opt/venv
COPY schemas/ schemas/
COPY service/ service/
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    CONVOY_HOST=0.0.0.0 \
    CONVOY_DEVICE=${DEVICE}
USER convoy
EXPOSE 8000
# Ready, not merely alive: 503 while no model serves.
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s \
    CMD ["python", "-c", "import os, urllib.request; urllib.request.urlopen(f\"http://127.0.0.1:{os.environ.get('CONVOY_PORT', '8000')}/readyz\", timeout=2)"]
CMD ["python", "-m", "service"]
