"""How well a model knows what to say and when: metrics, the floors beside them, calibration and reports."""
