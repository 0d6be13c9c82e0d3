# A node of Longhaul, or its runner. BASE_IMAGE is any Debian or Ubuntu image with Python 3.11 or later.
#   docker build -t longhaul .
#   docker build -t longhaul --build-arg BASE_IMAGE=my-registry-free-base .
ARG BASE_IMAGE=python:3.11-slim-bookworm
FROM ${BASE_IMAGE}

RUN apt-get update \
 && apt-get install -y --no-install-recommends iproute2 iptables python3-venv \
 && rm -rf /var/lib/apt/lists/*

WORKDIR /opt/longhaul
COPY pyproject.toml constraints.txt README.md ./
COPY netsim netsim
COPY algorithms algorithms
COPY harness harness
COPY reports reports
COPY topologies topologies
COPY suites suites
COPY scenarios scenarios
RUN python3 -m venv .venv \
 && .venv/bin/python -m pip install --no-cache-dir --constraint constraints.txt --editable .

ENV PATH=/opt/longhaul/.venv/bin:${PATH}
ENTRYPOINT ["longhaul"]
