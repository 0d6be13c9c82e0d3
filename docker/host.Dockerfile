# The host image: the few files that a root file system needs around a host's own /usr. See compose.host.yaml.
# It needs no base image and runs no command, so it can be built without a network.
FROM scratch
COPY docker/host-root/ /
