# The service alone, without PyTorch, for one of two kinds of machine:
#     docker build -t convoy .                                     CPU
#     docker build -t convoy:cuda --build-arg DEVICE=cuda .        NVIDIA GPU; run it with --gpus all
#     docker run -p 8000:8000 -v "$PWD/artifacts:/app/artifacts:ro" --stop-timeout 50 convoy
# Docker gives a container 10 seconds to stop. The service takes up to CONVOY_DRAIN_DELAY (0) + CONVOY_DRAIN_SECONDS (30) + 20.
ARG PYTHON=3.13

FROM python:${PYTHON}-slim AS build
ARG DEVICE=cpu
WORKDIR /app
COPY requirements/service-cpu.txt requirements/cuda.txt /requirements/
# Left out: pip, the tests of the libraries, and ONNX Runtime's library for C programs, which its Python module does not load.
RUN case "$DEVICE" in cpu) lock=service-cpu ;; cuda) lock=cuda ;; *) echo "DEVICE=$DEVICE must be cpu or cuda" >&2; exit 2 ;; esac \
    && python -m venv --without-pip /opt/venv \
    && python -m pip --python /opt/venv/bin/python install --no-cache-dir --disable-pip-version-check \
           --require-hashes -r "/requirements/$lock.txt" \
    && find /opt/venv -type d -name tests -prune -exec rm -r {} + \
    && rm -f /opt/venv/lib/python*/site-packages/onnxruntime/capi/libonnxruntime.so*
COPY LICENSE NOTICE ./
COPY schemas/ schemas/
COPY service/ service/
RUN python -m compileall -q .

FROM python:${PYTHON}-slim
ARG DEVICE=cpu
RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin convoy
WORKDIR /app
COPY --from=build /opt/venv /opt/venv
COPY --from=build /app ./
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    CONVOY_HOST=0.0.0.0 \
    CONVOY_DEVICE=${DEVICE}
USER 10001
EXPOSE 8000
# Ready, and not only alive: the check fails while no model serves.
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s CMD ["python", "-m", "service.healthcheck"]
CMD ["python", "-m", "service"]
