"""One thin Prefect task per phase: call the library, publish what a person wants to see."""
