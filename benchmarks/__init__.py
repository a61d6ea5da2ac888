"""Measurements, one script per question; results are named files in results/.  Run them with `make bench`."""
