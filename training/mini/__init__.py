"""Recipe of livestar-mini: where its footage comes from, and the scripted streams that it learns from."""
