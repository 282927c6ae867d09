"""An arm driven by a finished policy: to do its task, or to be evaluated, with the clock, lease and people of a training."""
