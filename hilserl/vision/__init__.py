"""Vision encoders: an image to features, one file per encoder."""
