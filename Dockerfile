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

RUN apt-get update \
 && apt-get install -y --no-install-recommends iproute2 iptables \
 && { python3 -c 'import ensurepip' || apt-get install -y --no-install-recommends python3 python3-venv; } \
 && rm -rf /var/lib/apt/lists/*

WORKDIR /opt/longhaul
# Dependencies first: a change of the source then leaves this layer as it is.
COPY pyproject.toml constraints.txt ./
RUN python3 -m venv .venv \
 && .venv/bin/python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["dependencies"], sep="\n")' > /tmp/requirements.txt \
 && .venv/bin/python -m pip install --no-cache-dir --constraint constraints.txt --requirement /tmp/requirements.txt \
 && rm /tmp/requirements.txt

COPY netsim netsim
COPY algorithms algorithms
COPY harness harness
COPY reports reports
COPY topologies topologies
COPY suites suites
COPY scenarios scenarios
RUN .venv/bin/python -m pip install --no-cache-dir --no-deps --editable .

ENV PATH=/opt/longhaul/.venv/bin:${PATH}
ENTRYPOINT ["longhaul"]
