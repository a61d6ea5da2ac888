"""Published benchmarks: their annotation files, and how this model answers them.

OmniStar-RNG is narration, scored as any annotated video.  StreamingBench and OVO-Bench ask questions at moments of a video; they
become `Question`s, which `asking.py` answers.
"""
