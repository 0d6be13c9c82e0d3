"""Constants of the transport that the cost model shares: how much waits in the kernel, how often somebody looks."""

# Bytes that may wait in the kernel for the window. A stream alone may take much, so that the link stays busy while this
# process waits for a core; several share less, so that none holds what another could send sooner.
UNSENT_ALONE, UNSENT_SHARED = 1 << 22, 1 << 20
TICKS = 20  # looks at who is late, per timeout
