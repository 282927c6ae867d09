"""Find everything that is wrong with a dataset, at once, before anything is decoded."""

from hilserl.data.validation.findings import Finding, ValidationReport
from hilserl.data.validation.run import validate_dataset, validation_inputs

__all__ = ["Finding", "ValidationReport", "validate_dataset", "validation_inputs"]
