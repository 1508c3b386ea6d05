"""Other vector services on the same vectors: `sh benchmarks/peers/install.sh`, then `python -m benchmarks.peers`.

Each is one file behind `port.Peer`, and runs in an environment of its own, where nothing of sealpool is installed.
"""
