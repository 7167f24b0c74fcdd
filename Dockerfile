# Two images, for those who explain and for those who read records (no torch, no GPU, a tenth of the size):
#
#   docker build -t batchcam .
#   docker build -t batchcam-auditor --target auditor .
#
# Both hold the versions of constraints.txt. For records and labels that name the commit, add
#   --build-arg VERSION="$(python -m setuptools_scm)" --build-arg REVISION="$(git rev-parse HEAD)"
#
# GPU brings what the NVIDIA container toolkit looks for, torch's wheels their own CUDA libraries. The Python of OS and
# of GPU has to be the same, as both link to it.
ARG OS=ubuntu:24.04
ARG GPU=nvidia/cuda:13.0.1-base-ubuntu24.04

FROM ${OS} AS pip
# hadolint ignore=DL3008
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends python3-venv \
    && apt-get clean && rm -rf /var/lib/apt/lists/*
ENV PIP_NO_CACHE_DIR=1 \
    PIP_PYTHON=/opt/batchcam/bin/python
RUN python3 -m venv /pip && python3 -m venv --without-pip /opt/batchcam

FROM pip AS wheel
COPY . /src
# there is no git here to ask
ARG VERSION
RUN SETUPTOOLS_SCM_PRETEND_VERSION="$VERSION" PIP_PYTHON='' /pip/bin/pip wheel --no-deps --wheel-dir /wheels /src

FROM pip AS auditor-build
COPY constraints.txt /
COPY --from=wheel /wheels /wheels
# packages' own tests are a twentieth of it
RUN /pip/bin/pip install --constraint /constraints.txt /wheels/*.whl \
    && find /opt/batchcam -type d -name tests -prune -exec rm -r {} +

FROM pip AS worker-build
COPY constraints.txt /
# what is pinned first: a change of our code does not download torch again
RUN /pip/bin/pip install --no-deps --requirement /constraints.txt
COPY --from=wheel /wheels /wheels
RUN /pip/bin/pip install --no-deps /wheels/*.whl && /pip/bin/pip check

FROM ${OS} AS auditor
# hadolint ignore=DL3008
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends openssh-client python3 \
    && apt-get clean && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 10001 batchcam
ENV PATH=/opt/batchcam/bin:$PATH \
    PYTHONUNBUFFERED=1
COPY --from=auditor-build /opt/batchcam /opt/batchcam
ARG VERSION
ARG REVISION
LABEL org.opencontainers.image.title="batchcam for auditors" \
    org.opencontainers.image.licenses="MIT" \
    org.opencontainers.image.version="$VERSION" \
    org.opencontainers.image.revision="$REVISION"
USER 10001
WORKDIR /work
ENTRYPOINT ["batchcam"]
CMD ["--help"]

FROM ${GPU} AS worker
# hadolint ignore=DL3008
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends openssh-client python3 \
    && apt-get clean && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 10001 batchcam
ENV PATH=/opt/batchcam/bin:$PATH \
    PYTHONUNBUFFERED=1
COPY --from=worker-build /opt/batchcam /opt/batchcam
ARG VERSION
ARG REVISION
LABEL org.opencontainers.image.title="batchcam" \
    org.opencontainers.image.licenses="MIT" \
    org.opencontainers.image.version="$VERSION" \
    org.opencontainers.image.revision="$REVISION"
USER 10001
WORKDIR /work
ENTRYPOINT ["batchcam"]
CMD ["--help"]
