"""From a source to frames: files, folders of pictures and live addresses, sampled by media time.

The only package that imports av.  Start at `reader.py`: it is one source's thread, and calls all the others.
"""

from livestar.media.frame_queue import FrameQueue
from livestar.media.reader import ReaderStats, SourceReader
from livestar.media.source import display_name, stream_id_for

__all__ = ["FrameQueue", "ReaderStats", "SourceReader", "display_name", "stream_id_for"]
