"""The success classifier: is the task done in this picture? Trained from marked frames, judged with a debounce, kept as one artefact."""
