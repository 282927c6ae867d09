"""The actor process: observes, acts or lets the human act, journals and streams."""
