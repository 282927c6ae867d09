"""What the policy would see now, beside a demonstration: the picture, and every number of the state as it is scaled."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hilserl.config.models import TrainConfig
from hilserl.data.normalize import MAX_NORMALISED
from hilserl.data.picture import write_model_input
from hilserl.data.preprocess import Preprocessor
from hilserl.doctor.demonstrations import Demonstrations
from hilserl.doctor.findings import Finding
from hilserl.errors import HilserlError
from hilserl.schema import IMAGE_PREFIX, STATE_KEY

_FLAT = 3.0  # standard deviation of a picture that shows nothing, of 255
_OTHER_LIGHT = 50.0  # difference of the mean brightness, of 255
_UNUSUAL = 2.0  # a scaled number; demonstrations lie in [-1, 1]


def examine_sight(
    config: TrainConfig, observation: Mapping[str, NDArray[Any]], demonstrations: Demonstrations | None, picture: Path
) -> Iterator[Finding]:
    """Put one live observation through the preprocessor; write the pictures side by side to `picture` (PNG)."""
    try:
        seen = Preprocessor.from_config(config)(observation)
    except HilserlError as error:
        yield Finding("FAIL", "preprocessor", str(error))
        return
    yield from _state(seen[STATE_KEY], demonstrations)
    pairs = {}
    for name in config.observation.images:
        key = IMAGE_PREFIX + name
        before = None if demonstrations is None else demonstrations.images.get(key)
        pairs[f"{name} now"] = (observation[key], seen[key])
        if before is not None:
            pairs[f"{name} demonstrated"] = (before, before)
        yield _picture(name, seen[key], before, picture)
    if pairs:
        picture.parent.mkdir(parents=True, exist_ok=True)
        write_model_input(picture, pairs)


def _state(state: NDArray[np.float32], demonstrations: Demonstrations | None) -> Iterator[Finding]:
    if demonstrations is None:
        yield Finding("note", "state", "no demonstrations here to compare it with; the training compares it before the first update")
        return
    normalizer = demonstrations.normalizer
    scaled = normalizer.normalize(state)
    numbers = [f"{name} {value:+.2f}" for name, value in zip(normalizer.names, scaled, strict=True)]
    far = [text for text, value in zip(numbers, scaled, strict=True) if not abs(value) <= MAX_NORMALISED]
    unusual = [text for text, value in zip(numbers, scaled, strict=True) if _UNUSUAL < abs(value) <= MAX_NORMALISED]
    if far:
        yield Finding(
            "FAIL", "state", f"far from every demonstration (which lie in ±1): {', '.join(far)}.",
            "Another unit (degrees for radians), another calibration, or a failed sensor: calibrate again, or record anew.",
        )  # fmt: skip
    elif unusual:
        yield Finding("note", "state", f"unlike the demonstrations (which lie in ±1): {', '.join(unusual)}.", "Start where they start.")
    else:
        yield Finding("ok", "state", f"as scaled for the policy: {', '.join(numbers)}")


def _picture(name: str, seen: NDArray[np.uint8], before: NDArray[np.uint8] | None, file: Path) -> Finding:
    if seen.std() < _FLAT:
        return Finding(
            "FAIL", f"sight {name}", f"the picture is flat (all about {seen.mean():.0f} of 255).", "Take the cap off; switch light on."
        )
    if before is None:
        return Finding("note", f"sight {name}", f"no demonstration here to compare it with; look at {file}")
    change = float(abs(seen.mean() - before.mean()))
    if change > _OTHER_LIGHT:
        return Finding(
            "note", f"sight {name}", f"{change:.0f} of 255 {'brighter' if seen.mean() > before.mean() else 'darker'} than demonstrated.",
            f"Light the scene as it was, fix the exposure; look at {file}.",
        )  # fmt: skip
    return Finding("ok", f"sight {name}", f"as bright as demonstrated ({change:.0f} of 255 off); look at {file}")
