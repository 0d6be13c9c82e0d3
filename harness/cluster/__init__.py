"""The same on the hosts of a Dask or Ray cluster. In the runner, and in the remote process that a cluster starts."""
