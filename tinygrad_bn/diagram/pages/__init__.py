"""HTML pages: the page of a picture, the stepper, fused against composed."""
