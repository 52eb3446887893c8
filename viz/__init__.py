"""Programs that draw the pictures in `viz/gallery`: `python -m viz` runs them all."""
