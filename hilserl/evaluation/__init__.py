"""How good a policy is: episodes without help, on starts it never saw, and what can be said from them."""

from hilserl.evaluation.film import compose_picture
from hilserl.evaluation.paired import PairedTest, paired_test
from hilserl.evaluation.play import Attendant, BrokenOff, Nobody, play_episode
from hilserl.evaluation.result import Episode, EvaluationResult
from hilserl.evaluation.run import STAGE, can_render, evaluate_policy, load_fitting
from hilserl.evaluation.starts import IN_TRAINING_SEED, Start, starts
from hilserl.intervals import mean_interval, wilson_interval

__all__ = [
    "IN_TRAINING_SEED",
    "STAGE",
    "Attendant",
    "BrokenOff",
    "Episode",
    "EvaluationResult",
    "Nobody",
    "PairedTest",
    "Start",
    "can_render",
    "compose_picture",
    "evaluate_policy",
    "load_fitting",
    "mean_interval",
    "paired_test",
    "play_episode",
    "starts",
    "wilson_interval",
]
