"""Programs that draw the pictures in `viz/gallery`: `python -m viz` runs them all."""

from pathlib import Path

GALLERY = Path(__file__).parent / "gallery"
