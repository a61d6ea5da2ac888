"""The KV cache: fixed-size blocks from one pool, a block table per sequence."""
