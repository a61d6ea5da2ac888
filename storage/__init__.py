"""Session store and event log: Redis, and an in-memory twin that passes the same contract tests.

May import `livestar.types`, `livestar.config`, `livestar.errors` and redis; neither torch nor Ray nor grpc,
and no other package of this repository.
"""
