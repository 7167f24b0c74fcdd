# batchcam for GPU machines: docker build -t batchcam . && docker run --gpus all --shm-size 2g --user "$(id -u)" -v "$PWD:/work" batchcam demo
# For records that name the commit: docker build --build-arg VERSION="$(python -m setuptools_scm)" -t batchcam .
# torch's wheels bring their own CUDA libraries; the base image brings what the NVIDIA container toolkit looks for.
FROM nvidia/cuda:12.8.1-base-ubuntu24.04

# no libGL: batchcam depends on opencv-python-headless
# hadolint ignore=DL3008
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
        python3 python3-venv \
    && rm -rf /var/lib/apt/lists/*

ENV PATH=/opt/batchcam/bin:$PATH \
    PYTHONUNBUFFERED=1
RUN python3 -m venv /opt/batchcam

# dependencies first: a change of our code does not download torch again
COPY pyproject.toml setup.cfg setup.py README.md LICENSE /src/
COPY batchcam/__init__.py /src/batchcam/
RUN pip install --no-cache-dir '/src[worker]'
COPY batchcam /src/batchcam
COPY jobs /src/jobs
# there is no git here to ask
ARG VERSION
RUN SETUPTOOLS_SCM_PRETEND_VERSION="$VERSION" pip install --no-cache-dir --no-deps --force-reinstall /src \
    && useradd --create-home --uid 10001 batchcam

USER 10001
WORKDIR /work
ENTRYPOINT ["batchcam"]
CMD ["--help"]
