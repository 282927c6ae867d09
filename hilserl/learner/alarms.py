"""What goes wrong in training before it shows in success, each with its remedy.

Pure: metric values in, named states and sentences out. A rule must hold for several reports (about one a second)
before its alarm is raised, and fail for as many before it is cleared, so that noise neither raises nor clears it.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from hilserl.config.models import TrainConfig

Values = Mapping[str, float]

Q_ABOVE_BOUND = "q_above_bound"
_FEW, _SOME, _MANY = 3, 10, 30  # reports
_DEAD_GRADIENT = 1e-8
_ALIVE_LOSS = 1e-6
_EXPLODED = 100.0  # times the median of the reports before
_LOWEST_TEMPERATURE, _HIGHEST_TEMPERATURE = 1e-4, 1.0
_LOST_SUCCESS = 0.25
_FAR_FROM_DEMONSTRATIONS = 2.0  # standard deviations from picture to picture
_RISING_INTERVENTIONS = 0.15
_WRONGLY_REWARDED = 0.05
_JUDGED_EPISODES = 20


@dataclass(frozen=True)
class Alarm:
    """One alarm of a run.

    Attributes:
        name: Such as `q_above_bound`; the metric is `alarm/<name>`.
        step: Environment step at which it was raised.
        value: The number that raised it.
        message: What is wrong, with the value, and the remedy.
        cleared_step: Environment step at which it was cleared; None while it stands.
    """

    name: str
    step: int
    value: float
    message: str
    cleared_step: int | None = None


@dataclass(frozen=True)
class Rule:
    """When an alarm is raised.

    Attributes:
        name: Of the alarm.
        reports: For how many reports in a row it must hold.
        value: The number in question; None where the metrics say nothing.
        is_wrong: Whether that number is wrong.
        message: A sentence with `{value}`, and the remedy.
    """

    name: str
    reports: int
    value: Callable[[Values], float | None]
    is_wrong: Callable[[float], bool]
    message: str


class Alarms:
    """All rules of a run, and what they said.

    Attributes:
        raised: Every alarm so far, in the order of being raised.
    """

    def __init__(self, config: TrainConfig, target_entropy: float) -> None:
        self.raised: list[Alarm] = []
        self._rules = rules(config, target_entropy)
        self._streak = {rule.name: 0 for rule in self._rules}
        self._standing: dict[str, int] = {}  # place in `raised`

    def check(self, values: Values, step: int) -> tuple[dict[str, float], list[Alarm]]:
        """Judge one report.

        Returns:
            `alarm/<name>` 0 or 1, of the rules for which there is a value; and the alarms raised or cleared now.
        """
        states: dict[str, float] = {}
        changes: list[Alarm] = []
        for rule in self._rules:
            value = rule.value(values)
            if value is None:
                continue
            stands = rule.name in self._standing
            # The streak counts the reports that speak for a change.
            self._streak[rule.name] = self._streak[rule.name] + 1 if rule.is_wrong(value) != stands else 0
            if self._streak[rule.name] >= rule.reports:
                self._streak[rule.name] = 0
                changes.append(self._change(rule, value, step))
            states[f"alarm/{rule.name}"] = float(rule.name in self._standing)
        return states, changes

    @property
    def standing(self) -> tuple[Alarm, ...]:
        """Those that were raised and not cleared, in the order of being raised."""
        return tuple(self.raised[place] for place in self._standing.values())

    def _change(self, rule: Rule, value: float, step: int) -> Alarm:
        if rule.name not in self._standing:
            alarm = Alarm(rule.name, step, value, rule.message.format(value=value))
            self._standing[rule.name] = len(self.raised)
            self.raised.append(alarm)
            return alarm
        place = self._standing.pop(rule.name)
        self.raised[place] = replace(self.raised[place], cleared_step=step)
        return self.raised[place]


def rules(config: TrainConfig, target_entropy: float) -> tuple[Rule, ...]:
    """Make the rules of a run.

    Args:
        config: Its configuration.
        target_entropy: Entropy that the temperature is driven to.
    """
    dims = len(config.action_names)
    lowest_entropy = target_entropy - 2.0 * dims
    most_owed = 2.0 * config.learner.max_owed_updates + 10.0 * config.policy.utd_ratio
    return (
        Rule(
            Q_ABOVE_BOUND,
            1,
            lambda v: v["q/mean"] - v["q/bound"] if {"q/mean", "q/bound"} <= v.keys() else None,
            lambda over: over > 0,
            "The mean Q-value is {value:.3g} above the largest possible return: the critic overestimates, and the policy will follow "
            "it. Raise `policy.num_critics` (with `policy.num_subsample_critics: 2`), or lower `policy.utd_ratio`.",
        ),
        Rule(
            "critic_loss_exploding",
            _FEW,
            _Growth("loss/critic"),
            lambda growth: growth > _EXPLODED,
            "The critic's loss is {value:.3g} times what it was: it diverges. Keep `policy.critic_layer_norm: true`, lower "
            "`policy.critic_lr`, and look for outliers with `hilserl validate`.",
        ),
        Rule(
            "temperature_low",
            _SOME,
            lambda v: v.get("temperature"),
            lambda temperature: temperature < _LOWEST_TEMPERATURE,
            "The temperature is {value:.3g}: the policy no longer explores, and its motions get small. Raise `policy.target_entropy` "
            "(or leave it out, for -dim(action)/2) and `policy.temperature_init`.",
        ),
        Rule(
            "temperature_high",
            _FEW,
            lambda v: v.get("temperature"),
            lambda temperature: temperature > _HIGHEST_TEMPERATURE,
            "The temperature is {value:.3g}: entropy outweighs the reward, and the arm will shake. Lower `policy.target_entropy` "
            "(or leave it out, for -dim(action)/2) or `policy.temperature_lr`.",
        ),
        Rule(
            "entropy_collapsed",
            _MANY,
            lambda v: v.get("entropy"),
            lambda entropy: entropy < lowest_entropy,
            f"The policy's entropy is {{value:.3g}}, the target is {target_entropy:.3g}: it has become deterministic too early. "
            "Raise `policy.temperature_init` or `policy.temperature_lr`, or lower `policy.bc_steps`.",
        ),
        Rule(
            "action_small",
            _MANY,
            lambda v: v.get("action/mean_abs"),
            lambda size: size < 0.05,
            "The mean |action| is {value:.3g}: the arm hardly moves. Check that the demonstrations' actions fill [-1, 1] (`hilserl "
            "validate` shows them) and `robot.action_scale_m`, or raise `policy.target_entropy`.",
        ),
        Rule(
            "action_saturated",
            _MANY,
            lambda v: v.get("action/mean_abs"),
            lambda size: size > 0.95,
            "The mean |action| is {value:.3g}: the policy is at its limits all the time. Raise `robot.action_scale_m` if the "
            "demonstrations are clipped too, or lower `policy.actor_lr`.",
        ),
        Rule(
            "critic_gradient_dead",
            _SOME,
            lambda v: _if_alive(v, "grad_norm/critic", "loss/critic"),
            lambda norm: norm < _DEAD_GRADIENT,
            "The critic's gradient is {value:.1g} although its loss is not zero: it learns nothing. Check the normalisation of the state "
            "and the encoder, and start again with another `seed`.",
        ),
        Rule(
            "actor_gradient_dead",
            _SOME,
            lambda v: _if_alive(v, "grad_norm/actor", "loss/actor"),
            lambda norm: norm < _DEAD_GRADIENT,
            "The actor's gradient is {value:.1g} although its loss is not zero: its actions are saturated, or its inputs constant. Lower "
            "`policy.actor_lr`, and start again with another `seed`.",
        ),
        Rule(
            "updates_behind",
            _SOME,
            _Backlog(most_owed),
            lambda share: share < 0.9,
            "The learner does {value:.0%} of the updates that it comes to owe, and falls behind. Nothing is skipped: the rest is "
            "done late. Lower `policy.utd_ratio`, set `learner.execution: auto`, or use a faster `learner.device`.",
        ),
        Rule(
            "past_best",
            1,
            lambda v: v["eval/best"] - v["eval/last"] if {"eval/best", "eval/last"} <= v.keys() else None,
            lambda lost: lost >= _LOST_SUCCESS,
            "Success is {value:.0%} below the best evaluation: training went on past its best. The best policy is kept and will be the "
            "one used; stop here, or lower `policy.utd_ratio`.",
        ),
        Rule(
            "regressed",
            1,
            lambda v: v.get("eval/regression"),
            lambda gap: gap > 0,
            "The last evaluation's interval lies {value:.0%} below the best one's: this is no noise, training went on past its best. "
            "`learner.on_regression` can stop it or roll it back; the best policy is kept and will be the one used.",
        ),
        Rule(
            "lighting_changed",
            _SOME,
            lambda v: v.get("drift/images"),
            lambda far: far > _FAR_FROM_DEMONSTRATIONS,
            "Where episodes begin the pictures are {value:.1f} standard deviations from the demonstrations', in colour or contrast: light, "
            "exposure, camera or the arm's start has changed (`drift/<camera>` says which). Restore it, or record demonstrations "
            "as it is now.",
        ),
        Rule(
            "interventions_rising",
            _SOME,
            lambda v: v.get("intervention/trend"),
            lambda rise: rise > _RISING_INTERVENTIONS,
            "The share of steps in which somebody intervenes rose by {value:.0%} within 20 episodes: the policy gets worse, or the scene "
            "has changed. Look at its last evaluation, at `drift/images`, and at where the interventions begin.",
        ),
        Rule(
            "wrongly_rewarded",
            1,
            lambda v: v.get("judge/wrongly_rewarded") if v.get("judge/rewarded_total", 0.0) >= _JUDGED_EPISODES else None,
            lambda share: share > _WRONGLY_REWARDED,
            "{value:.0%} of the last 20 rewarded episodes were no success, as the simulation knows: the policy learns what the judge "
            "takes for one. Stop; label the kept frames with `hilserl label --disagreements` and train the classifier again with them.",
        ),
        Rule(
            "checkpoint_failing",
            1,
            lambda v: v.get("checkpoint/failing"),
            lambda failing: failing > 0,
            "The last checkpoint could not be written; the one before is kept. Free space on the disk of HILSERL_HOME.",
        ),
        Rule(
            "link_disk_full",
            1,
            lambda v: v.get("link/disk_full"),
            lambda is_full: is_full > 0,
            "The disk is full, so no step is taken in; they wait in the actors' journals. Free space on the disk of HILSERL_HOME.",
        ),
    )


class _Growth:
    """A metric over the median of the reports before the last few."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._seen: deque[float] = deque(maxlen=100)

    def __call__(self, values: Values) -> float | None:
        value = values.get(self._name)
        if value is None or not math.isfinite(value):
            return None
        before = sorted(list(self._seen)[:-_FEW])
        self._seen.append(value)
        if len(before) < _SOME:
            return None
        return value / max(before[len(before) // 2], 1e-4)


class _Backlog:
    """Share of the updates that came to be owed which were done, over the last reports; 1 while little is owed.

    A learner that pays back a backlog does more than comes to be owed, so it is not behind.
    """

    def __init__(self, most_owed: float) -> None:
        self._most_owed = most_owed
        self._seen: deque[tuple[float, float]] = deque(maxlen=_SOME)

    def __call__(self, values: Values) -> float | None:
        if not {"utd/owed", "utd/done"} <= values.keys():
            return None
        owed, done = values["utd/owed"], values["utd/done"]
        self._seen.append((owed, done))
        first_owed, first_done = self._seen[0]
        came = done - first_done + owed - first_owed
        return (done - first_done) / came if owed > self._most_owed and came > 0 else 1.0


def _if_alive(values: Values, gradient: str, loss: str) -> float | None:
    """Return a gradient's norm, where a loss says that there is something to learn."""
    return values.get(gradient) if abs(values.get(loss, 0.0)) > _ALIVE_LOSS else None
