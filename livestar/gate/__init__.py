"""When to speak: the layouts in which a caption is verified against a new frame, and the thresholds that decide."""
