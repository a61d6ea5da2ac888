"""Attention of a ragged batch over the paged KV cache; one module per backend, one interface."""
