"""LiveStar: watch live video with a streaming video language model and speak only when something changed.

The library runs in a plain Python process, on a CPU if need be.  It knows nothing of Ray, Redis or gRPC.
Importing this package loads nothing heavy; import the module that holds what you need.
"""

__version__ = "0.1.0"
