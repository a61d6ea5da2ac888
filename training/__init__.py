"""Fine-tuning for when to speak (SCAM), on Ray Train: data, masks, loop, checkpoints back into serving format.

May import everything of `livestar`, and Ray and torch; neither redis nor grpc, nor `deployments`, `router`, `storage`.
"""
