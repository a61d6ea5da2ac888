"""One set of weights, one KV pool, one batching loop: all the streams of one device."""
