"""D04, D16, D17: which named components the numbers of `observation.state` are, and in which unit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from hilserl.config.models import TrainConfig
from hilserl.data.dataset import Dataset
from hilserl.data.normalize import MAX_OVER_LIMIT, check_allowed, state_problems
from hilserl.data.recorded import recorded_state
from hilserl.data.validation.findings import Finding
from hilserl.data.writer import LEROBOT_JOINT_NAMES
from hilserl.errors import ConfigError, DatasetError
from hilserl.schema import STATE_COMPONENTS, STATE_KEY, policy_schema, state_components

# From LeRobot's units to radians, up to an offset of the gripper: degrees, and a jaw of 1.92 rad on a scale of 0-100.
LEROBOT_TO_RAD = np.array([np.pi / 180] * 5 + [1.9199 / 100])
# Computed from joint positions by the one kinematics, velocities by differences.
_COMPUTED = ("joint_vel", "ee_pos", "ee_euler")
_PLACE = f"`{STATE_KEY}`"


@dataclass(frozen=True)
class StateLayout:
    """Where the components lie in the recorded vector.

    Attributes:
        columns: Positions of each component's numbers.
        lerobot_units: Joints are LeRobot's degrees and 0-100 gripper, not radians.
    """

    columns: Mapping[str, tuple[int, ...]]
    lerobot_units: bool = False

    def values(self, state: np.ndarray, component: str) -> np.ndarray | None:
        """Take one component out of states, shape (N, S); None where it was not recorded."""
        return state[:, list(self.columns[component])] if component in self.columns else None

    def joints_rad(self, state: np.ndarray) -> np.ndarray | None:
        """Take the joint positions, shape (N, 6) [rad]; the gripper's offset is not restored, for differences only."""
        joints = self.values(state, "joint_pos")
        return joints if joints is None or not self.lerobot_units else joints * LEROBOT_TO_RAD


def state_layout(config: TrainConfig, dataset: Dataset) -> tuple[StateLayout | None, list[Finding]]:
    """Find the named components, as the conversion reads them: by `dataset.state`, else by the dataset's own names."""
    names, stated, size = dataset.names(STATE_KEY), config.dataset.state, dataset.shape(STATE_KEY)[0]
    try:
        recorded = recorded_state(config, dataset)
    except (ConfigError, DatasetError) as error:
        return None, [
            Finding("D04", "stops", "dataset.state", f"{error}: they would be taken for one another", _restate(config, names, size))
        ]
    if recorded is None:
        return None, [_unknown(config, names, size)]
    columns, end = {}, 0
    for part in recorded.components:
        columns[part] = tuple(range(end, end + len(STATE_COMPONENTS[part].labels)))
        end += len(columns[part])
    layout = StateLayout(columns, recorded.in_lerobot_units)
    known = [name for name in names or () if name.split(".")[0] in STATE_COMPONENTS]
    if stated and names and known and tuple(name for part in stated for name in STATE_COMPONENTS[part].scalars) != names:
        message = f"dataset.state says {list(stated)}, the dataset names its numbers otherwise: {_runs(names)}; one of both is wrong"
        return None, [Finding("D04", "stops", "dataset.state", message, "dataset: {state: null}  # to go by the dataset's own names")]
    held = dataset.column(STATE_KEY).shape[1:]
    if held == (size,):
        return layout, []
    message = f"the rows hold values of shape {held}, {size} numbers are declared: they would be taken for one another"
    return None, [Finding("D04", "stops", _PLACE, message, "# restore meta/info.json and data/ from the same recording")]


def _restate(config: TrainConfig, names: tuple[str, ...] | None, size: int) -> str:
    """Offer what `dataset.state` could be instead; it is wrong as it stands."""
    if names and all(name.split(".")[0] in STATE_COMPONENTS or name in LEROBOT_JOINT_NAMES for name in names):
        return "dataset: {state: null}  # to go by the dataset's own names"
    return _fitting(config, size) or f"# dataset.state must name the parts of the {size} numbers, in order, out of {list(STATE_COMPONENTS)}"


def _fitting(config: TrainConfig, size: int) -> str:
    """Offer parts that `size` numbers can be: the policy's, or the joints; empty where neither has so many."""
    for parts in (state_components(config), (STATE_COMPONENTS["joint_pos"],)):
        if sum(len(part.labels) for part in parts) == size:
            return f"dataset: {{state: [{', '.join(part.name for part in parts)}]}}  # if that is what the numbers are, in order"
    return ""


def _unknown(config: TrainConfig, names: tuple[str, ...] | None, size: int) -> Finding:
    wanted = policy_schema(config).observation[STATE_KEY].names
    if names is None:
        message = f"{size} numbers without names: nobody can say whether they are the policy's {len(wanted)}"
        return Finding("D04", "stops", _PLACE, message, _restate(config, names, size))
    scalars = [scalar for part in STATE_COMPONENTS.values() for scalar in part.scalars]
    foreign = [name for name in names if name not in scalars and name not in LEROBOT_JOINT_NAMES]
    if not foreign:
        order = [part for part in dict.fromkeys(name.split(".")[0] for name in names) if part in STATE_COMPONENTS]
        expected = [scalar for part in order for scalar in STATE_COMPONENTS[part].scalars]
        first = next((i for i, (a, b) in enumerate(zip(names, expected, strict=False)) if a != b), min(len(names), len(expected)) - 1)
        message = (
            f"{size} numbers, mixed: number {first} is `{names[first]}`, its component has `{expected[first] if expected else '?'}` there"
        )
        # dataset.state cannot overrule names that are known here.
        remedy = f"# bring the numbers and their names into the order of {order or list(STATE_COMPONENTS)[:4]} in a copy of the dataset"
    else:
        message = f"{size} numbers, the policy wants {len(wanted)}; {len(foreign)} have names that nobody knows here: {foreign[:4]}"
        remedy = f"# write a copy whose observation.state holds only known parts: {list(STATE_COMPONENTS)}"
        if len(foreign) == len(names):
            offered = _fitting(config, size)
            remedy = f"{offered}\n{remedy}" if offered else remedy
    return Finding("D04", "stops", _PLACE, f"{message}: the policy would learn from other numbers than it meets", remedy)


def check_state(config: TrainConfig, dataset: Dataset, layout: StateLayout) -> list[Finding]:
    """D04, D16, D17: the recorded components are the policy's, or enough to compute them; and they vary, in their unit."""
    names, wanted = dataset.names(STATE_KEY), policy_schema(config).observation[STATE_KEY].names
    state = dataset.column(STATE_KEY)
    size = state.shape[1]
    findings = []
    components = state_components(config)
    missing = [part.name for part in components if part.name not in layout.columns]
    impossible = [part for part in missing if part not in _COMPUTED or "joint_pos" not in layout.columns]
    if impossible:
        have = _runs(names) if names else list(layout.columns)
        message = f"{size} numbers, the policy wants {len(wanted)}; {impossible} was not recorded, and cannot be computed from {have}"
        left = [part for part in config.observation.state if part not in impossible]
        changes = [f"state: [{', '.join(left)}]"] if left and len(left) < len(config.observation.state) else []
        if "cube_from_tool" in impossible:
            message += ". The cube's position is known in simulation only: a policy that learns from it cannot run on an arm"
            changes.insert(0, "privileged: false")
        remedy = f"observation: {{{', '.join(changes)}}}" if changes else "# record the joints, from which the rest is computed"
        findings.append(Finding("D04", "stops", _PLACE, message, remedy))
    elif missing:
        unit = "LeRobot's units (degrees, gripper 0-100)" if layout.lerobot_units else "radians"
        message = f"{size} numbers, joints in {unit}; {missing} are computed from them by the kinematics, velocities by differences"
        findings.append(Finding("D04", "informs", _PLACE, message))
    elif names != wanted and names is not None:
        message = f"{_runs(names)} are recorded; the policy takes {[part.name for part in components]} from it, by name"
        findings.append(Finding("D04", "informs", _PLACE, message))
    unused = [part for part in layout.columns if part not in {component.name for component in components}]
    if "cube_from_tool" in unused:
        message = "the cube's position was recorded and is left out: it is known in simulation only, a policy with it cannot run on an arm"
        findings.append(Finding("D04", "informs", _PLACE, message))
    return findings + _scaling(config, state, layout)


def _scaling(config: TrainConfig, state: np.ndarray, layout: StateLayout) -> list[Finding]:
    """D16, D17: every number varies, inside what its unit allows."""
    components = state_components(config)
    known = [scalar for component in components for scalar in component.scalars]
    try:
        check_allowed(config.observation.allow_constant, known)
    except ConfigError as error:
        kept = ", ".join(name for name in config.observation.allow_constant if name in known)
        message, remedy = str(error), f"observation: {{allow_constant: [{kept}]}}  # with more of those names, if that is intended"
        return [Finding("D16", "stops", "observation.allow_constant", message, remedy)]
    findings = []
    # Joints decide what is computed from them, wanted or not.
    parts = [part for part in components if part.name in layout.columns]
    if "joint_pos" in layout.columns and not any(part.name == "joint_pos" for part in parts):
        parts.append(STATE_COMPONENTS["joint_pos"])
    for part in parts:
        values = layout.values(state, part.name)
        assert values is not None
        if layout.lerobot_units and part.name in ("joint_pos", "joint_vel"):
            findings += _lerobot_joints(part.name, values, layout)
            values = values * LEROBOT_TO_RAD
        wanted = {component.name for component in components}
        allowed = tuple(name for name in config.observation.allow_constant if name in part.scalars)
        problems = state_problems(values, (part,), allowed)
        over = [problem for problem in problems if problem.code == "D17"]
        for problem in problems:
            message, remedy = problem.message, "# leave those episodes out, or record them again"
            if problem.code == "D16":
                if part.name not in wanted:
                    continue
                every = ", ".join(dict.fromkeys((*config.observation.allow_constant, *_constant(config, state, layout))))
                remedy = f"observation: {{allow_constant: [{every}]}}  # if that is intended"
            if problem.code == "D17":
                if layout.lerobot_units and part.name.startswith("joint"):
                    continue  # told by _lerobot_joints, in the unit that was recorded
                if problem is not over[0]:
                    continue  # one finding for all of a component
                others = [other.scalars[0] for other in over[1:]]
                message += (
                    f", and so do {others}" if others else ""
                ) + f": a policy that meets {part.unit} on the arm would see values {_times(part.unit)}off"
                remedy = f"# convert `{problem.scalars[0]}` to {part.unit} in a copy of the dataset, or record it again"
                if part.name == "joint_pos" and len(over) > 1:
                    remedy = f"dataset: {{state: [{', '.join(layout.columns)}], joint_unit: deg}}\n# or {remedy.removeprefix('# ')}"
            findings.append(Finding(problem.code, "stops", _PLACE, message, remedy))
    return findings


def _constant(config: TrainConfig, state: np.ndarray, layout: StateLayout) -> list[str]:
    names = []
    for part in state_components(config):
        values = layout.values(state, part.name)
        if values is not None:
            scale = LEROBOT_TO_RAD if layout.lerobot_units and part.name.startswith("joint") else 1.0
            names += [name for name, spread in zip(part.scalars, np.ptp(values, axis=0) * scale, strict=True) if spread < part.resolution]
    return names


def _lerobot_joints(part: str, values: np.ndarray, layout: StateLayout) -> list[Finding]:
    """D17: values that are said to be degrees are not radians, and not more than a joint can turn."""
    largest = np.abs(values).max(axis=0)
    if part == "joint_pos" and (largest <= STATE_COMPONENTS["joint_pos"].limit + 0.1).all():
        message = (
            f"said to be degrees and 0-100 %, but no joint goes beyond {largest.max():.3g}: these look like radians, "
            "and read as degrees the arm would seem 57 times stiller than it was"
        )
        return [Finding("D17", "stops", _PLACE, message, f"dataset: {{state: [{', '.join(layout.columns)}], joint_unit: rad}}")]
    limits = MAX_OVER_LIMIT * STATE_COMPONENTS[part].limit / LEROBOT_TO_RAD
    over = np.flatnonzero(largest > limits)
    if not len(over):
        return []
    joint = STATE_COMPONENTS[part].scalars[over[0]]
    unit = "%" if over[0] == 5 else "deg"
    message = f"`{joint}` reaches {largest[over[0]]:.4g} {unit}, more than {limits[over[0]]:.4g}: raw servo ticks, or another unit"
    return [Finding("D17", "stops", _PLACE, message, "# convert it to degrees in a copy of the dataset, or record with use_degrees: true")]


def _times(unit: str) -> str:
    return "57 times " if unit.startswith("rad") else ""


def _runs(names: tuple[str, ...]) -> list[str]:
    return list(dict.fromkeys(name.split(".")[0] if name.split(".")[0] in STATE_COMPONENTS else name for name in names))[:12]
