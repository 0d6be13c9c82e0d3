"""The WAN transport and its collectives: TCP, framed, with a byte ledger. Runs in the trainer process.

Why not gloo over torch.distributed: its collectives are latency-bound on long fat pipes (one connection per pair, a
ring of 2(n-1) dependent steps), a message that it does not expect aborts the process, a peer that stops answering is
noticed after its own time-outs only and is not named, and it cannot say how many bytes it moved. So the data path is
our own: TCP, framed (`frames`), several streams per pair (`mesh`, `stream`), one reactor thread per worker
(`reactor`), collectives as state machines that know no socket (`collective_state`), and a ledger exact to the byte
(`ledger`). torch does the arithmetic.
"""
