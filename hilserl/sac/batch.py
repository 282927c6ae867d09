"""What one update is given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class TensorBatch:
    """Transitions on the training device; B rows.

    Attributes:
        state, next_state: Physical units, (B, S).
        images, next_images: By camera: features of a frozen encoder, (B, F) or (B, C, H, W), or uint8 (B, H, W, C), shifted at random.
        action: (B, A) in [-1, 1].
        reward: Discounted sum over the steps of the return, (B,).
        terminated: 1.0 where the task ended within them, (B,).
        discount: Of the next state's value, `discount ** steps`, (B,).
    """

    state: Tensor
    next_state: Tensor
    images: Mapping[str, Tensor]
    next_images: Mapping[str, Tensor]
    action: Tensor
    reward: Tensor
    terminated: Tensor
    discount: Tensor
