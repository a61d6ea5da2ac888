"""Annotated videos: reading, checking and converting the formats that say what happens when."""
