"""Find everything that is wrong with a dataset, at once, before it is converted."""

from hilserl.data.validation.findings import Alignment, Drift, Finding, ValidationReport
from hilserl.data.validation.run import validate_dataset, validate_sources, validation_inputs

__all__ = ["Alignment", "Drift", "Finding", "ValidationReport", "validate_dataset", "validate_sources", "validation_inputs"]
