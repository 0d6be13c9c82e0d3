# A node of Longhaul, or its runner. BASE_IMAGE is any Debian or Ubuntu image with Python 3.11 or later.
#   docker build -t longhaul .
#   docker build -t longhaul --build-arg BASE_IMAGE=ubuntu:24.04 .
ARG BASE_IMAGE=python:3.11-slim-bookworm
FROM ${BASE_IMAGE}

# Where pip finds packages, if not in its public index; an empty one says nothing. `docker history` shows them.
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ARG PIP_FIND_LINKS
ARG PIP_TRUSTED_HOST
ARG PIP_NO_CACHE_DIR=1
# Where torch comes from: see scripts/environment.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu

WORKDIR /opt/longhaul
COPY scripts scripts
RUN scripts/bootstrap demo && rm -rf /var/lib/apt/lists/*
# Dependencies first: a change of the source then leaves this layer as it is.
COPY pyproject.toml constraints.txt README.md LICENSE ./
RUN scripts/environment

COPY netsim netsim
COPY algorithms algorithms
COPY harness harness
COPY reports reports
COPY longhaul longhaul
COPY topologies topologies
COPY suites suites
COPY scenarios scenarios
COPY schemas schemas
RUN scripts/environment

ENV PATH=/opt/longhaul/.venv/bin:${PATH}
ENTRYPOINT ["longhaul"]
