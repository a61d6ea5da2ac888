"""The public gRPC API: admission, authentication, placement of streams, fan-out of events.

May import `livestar.types`, `livestar.config`, `livestar.errors` and grpc; neither torch nor Ray nor redis,
and no other package of this repository.
"""
