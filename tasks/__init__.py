"""One thin Prefect task per phase: call the library, publish what a person wants to see."""

import logging

# Prefect sends what `hilserl` logs to the run's page (`extra_loggers`), but leaves its level at WARNING.
logging.getLogger("hilserl").setLevel(logging.INFO)
