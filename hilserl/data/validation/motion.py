"""D08, D19: what the arm did against what it was told, frame by frame: gripper labels, idle ends, jumps, resets."""

from __future__ import annotations

import numpy as np

from hilserl.config.models import TrainConfig
from hilserl.data.convert import place
from hilserl.data.dataset import Dataset, Episode
from hilserl.data.validation.findings import Finding, exclude, few
from hilserl.data.validation.state import StateLayout
from hilserl.schema import ACTION_KEY, STATE_COMPONENTS, STATE_KEY

# A command below this is none.
_RESTING = 0.05
# After a command ends, the servo moves on for this many frames.
_SETTLING = 2
# Of the jaw's range on the 0-100 scale: what a held jaw does not move.
_HELD_SPAN = 0.10
_JAW_SPAN_RAD = 1.9199
# Ends of an episode that are still for longer than this are worth cutting [s].
_IDLE_S = 0.5
_MIN_RUN = 3
# A jump is faster than any servo, and far from what the recording does elsewhere.
_JUMP_OVER_LIMIT = 1.5
_JUMP_OVER_MEDIAN = 8.0
_MAX_TOOL_SPEED_M_S = 1.5


def check_motion(config: TrainConfig, dataset: Dataset, layout: StateLayout | None) -> list[Finding]:
    """Compare commands with measured motion inside each episode."""
    if layout is None:
        return []
    state, action = dataset.column(STATE_KEY), dataset.column(ACTION_KEY)
    last = np.zeros(len(state), bool)
    last[[episode.stop - 1 for episode in dataset.episodes]] = True
    joints, tool = layout.joints_rad(state), layout.values(state, "ee_pos")
    findings = _jumps(dataset, joints, tool, last)
    rest = _resting(config, action, last)
    findings += _idle_ends(dataset, joints, tool, rest)
    if config.dataset.action_from == "column":
        findings += _uncommanded(config, dataset, tool, action, last)
        if "gripper" in config.action_names and joints is not None:
            findings += _gripper_label(config, dataset, joints[:, 5], action[:, config.action_names.index("gripper")])
    return findings


def _steps(values: np.ndarray, last: np.ndarray) -> np.ndarray:
    """Largest change from each row to the next over the columns, shape (N,); 0 on an episode's last row."""
    steps = np.zeros(len(values))
    steps[:-1] = np.abs(np.diff(values, axis=0)).max(axis=1)
    steps[last] = 0
    return steps


def _jumps(dataset: Dataset, joints: np.ndarray | None, tool: np.ndarray | None, last: np.ndarray) -> list[Finding]:
    """D19: inside an episode the arm never is elsewhere a frame later: a reset, or two episodes in one."""
    values, unit = (joints, "rad") if joints is not None else (tool, "m")
    if values is None:
        return []
    steps = _steps(values, last)
    moving = steps[steps > 0]
    speed = STATE_COMPONENTS["joint_vel"].limit if unit == "rad" else _MAX_TOOL_SPEED_M_S
    limit = max(_JUMP_OVER_LIMIT * speed / dataset.fps, _JUMP_OVER_MEDIAN * float(np.median(moving)) if len(moving) else 0.0)
    rows = np.flatnonzero(steps > limit)
    if not len(rows):
        return []
    where, episodes = _where(dataset, rows + 1)
    message = (
        f"the arm jumps by {steps[rows[0]]:.3g} {unit} in one frame ({len(rows)} times, in episodes {few(episodes)}): a reset inside an "
        "episode, or a resumed recording that mixed two. The critic would learn a motion that no arm makes"
    )
    remedy = f"{exclude(episodes, 'to train without')}\n# or record those episodes again"
    return [Finding("D19", "warns", where, message, remedy)]


def _resting(config: TrainConfig, action: np.ndarray, last: np.ndarray) -> np.ndarray:
    """Mark frames without a command, shape (N,)."""
    if config.dataset.action_from == "joints":
        spread = np.maximum(np.ptp(action, axis=0), 1e-9)
        return _steps(action / spread, last) < 0.005
    motion = np.abs(action[:, :3]).max(axis=1) < _RESTING
    if "gripper" in config.action_names:
        gripper = action[:, config.action_names.index("gripper")]
        motion &= (gripper == 1) if config.dataset.gripper == "discrete" else (np.abs(gripper) < _RESTING)
    return motion


def _idle_ends(dataset: Dataset, joints: np.ndarray | None, tool: np.ndarray | None, rest: np.ndarray) -> list[Finding]:
    """D19: frames before the first and after the last motion of an episode."""
    last = np.zeros(len(rest), bool)
    last[[episode.stop - 1 for episode in dataset.episodes]] = True
    values, resolution = (joints, 0.005) if joints is not None else (tool, 0.001)
    still = rest if values is None else rest & (_steps(values, last) < resolution)
    least = max(_MIN_RUN, round(_IDLE_S * dataset.fps))
    heads: list[tuple[Episode, int]] = []
    tails: list[tuple[Episode, int]] = []
    for episode in dataset.episodes:
        part = still[episode.start : episode.stop]
        if part.all():
            heads.append((episode, len(part)))
            continue
        head, tail = int(np.argmin(part)), int(np.argmin(part[::-1]))
        if head >= least:
            heads.append((episode, head))
        if tail >= least:
            tails.append((episode, tail))
    findings = []
    for found, where, harm in (
        (heads, "first", "the policy learns to wait at the start"),
        (tails, "last", "the policy learns to stop, and a late reward is diluted over frames without motion"),
    ):
        if found:
            episode, count = max(found, key=lambda pair: pair[1])
            frames = sum(count for _, count in found)
            start = 0 if where == "first" else episode.length - count
            message = (
                f"the {where} {count} frames stand still ({frames} idle frames in episodes {few([e.index for e, _ in found])}): {harm}"
            )
            place = f"episode {episode.index} frame {start} to {start + count - 1}"
            findings.append(Finding("D19", "warns", place, message, f"hilserl dataset trim {dataset.root} --into NEW_FOLDER"))
    return findings


def _uncommanded(config: TrainConfig, dataset: Dataset, tool: np.ndarray | None, action: np.ndarray, last: np.ndarray) -> list[Finding]:
    """D19: the arm moves for a while although nothing was commanded: a scripted reset, or a hand."""
    if tool is None:
        return []
    scale_m = config.dataset.action_scale_m or config.robot.action_scale_m
    settled = _settled(np.abs(action[:, :3]).max(axis=1) < _RESTING, dataset)
    runs = _runs(settled & (_steps(tool, last) > 0.25 * scale_m), dataset, _MIN_RUN)
    if not runs:
        return []
    where, episodes = _where(dataset, np.array([start for start, _ in runs]))
    start, stop = runs[0]
    message = (
        f"the arm moves for {stop - start} frames without a command ({len(runs)} times, in episodes {few(episodes)}): reset frames "
        "inside the episode, or a hand. The policy would learn that doing nothing moves the arm"
    )
    remedy = f"{exclude(episodes, 'to train without')}\n# or record those episodes again"
    return [Finding("D19", "warns", where, message, remedy)]


def _gripper_label(config: TrainConfig, dataset: Dataset, jaw_rad: np.ndarray, command: np.ndarray) -> list[Finding]:
    """D08: while the label says hold, the jaw holds; and it moves the way the label says."""
    if config.dataset.gripper == "discrete":
        command = command - 1
    last = np.zeros(len(jaw_rad), bool)
    last[[episode.stop - 1 for episode in dataset.episodes]] = True
    moved = np.append(np.diff(jaw_rad), 0.0)
    moved[last] = 0
    findings = _opposed(config, dataset, command, moved)
    travel = np.abs(moved).sum()
    runs = _runs(_settled(np.abs(command) < _RESTING, dataset), dataset, _MIN_RUN)
    slipped = [(start, stop) for start, stop in runs if abs(moved[start:stop].sum()) > _HELD_SPAN * _JAW_SPAN_RAD]
    if not slipped or travel < _HELD_SPAN * _JAW_SPAN_RAD:
        return findings
    share = sum(abs(moved[start:stop].sum()) for start, stop in slipped) / travel
    where, episodes = _where(dataset, np.array([start for start, _ in slipped]))
    start, stop = slipped[0]
    message = (
        f"the label says hold for {stop - start} frames while the jaw {'closes' if moved[start:stop].sum() < 0 else 'opens'} by "
        f"{abs(moved[start:stop].sum()) / _JAW_SPAN_RAD:.0%} of its range ({share:.0%} of its travel, in episodes {few(episodes)}): "
        "the label was taken from how fast the leader moved, and the policy would learn that holding closes the gripper"
    )
    remedy = f"{exclude(episodes, 'to train without')}\n# or record again with the command that was sent"
    findings.append(Finding("D08", "stops" if share > 0.25 else "warns", where, message, remedy))
    return findings


def _opposed(config: TrainConfig, dataset: Dataset, command: np.ndarray, moved: np.ndarray) -> list[Finding]:
    """D07: positive opens."""
    pushing = (np.abs(command) > 0.5) & (np.abs(moved) > 0.01 * _JAW_SPAN_RAD)
    if pushing.sum() < 10:
        return []
    agrees = float((np.sign(command[pushing]) == np.sign(moved[pushing])).mean())
    if agrees >= 0.25:
        return []
    where, _ = _where(dataset, np.flatnonzero(pushing))
    message = f"in {1 - agrees:.0%} of {int(pushing.sum())} steps the jaw moves against its command: it would open where it must close"
    what = "exchange the classes 0 and 2" if config.dataset.gripper == "discrete" else "change the sign of `gripper`"
    remedy = f"# {what} in a copy of the dataset: -1 or class 0 closes, 1 or class 2 opens"
    return [Finding("D07", "stops", where, message, remedy)]


def _settled(resting: np.ndarray, dataset: Dataset) -> np.ndarray:
    """Keep the resting frames that have rested for a while, so that the servo has stopped."""
    settled = resting.copy()
    for shift in range(1, _SETTLING + 1):
        settled[shift:] &= resting[:-shift]
    for episode in dataset.episodes:
        # What was before an episode is no part of it.
        start = episode.start
        settled[start : start + _SETTLING] = resting[start : start + _SETTLING] & resting[start]
    return settled


def _runs(mask: np.ndarray, dataset: Dataset, least: int) -> list[tuple[int, int]]:
    """Find stretches of true inside episodes, at least so long, as (start, stop)."""
    begins = np.zeros(len(mask), bool)
    begins[[episode.start for episode in dataset.episodes]] = True
    before = np.append(False, mask[:-1]) & ~begins
    starts = np.flatnonzero(mask & ~before)
    after = np.append(mask[1:] & ~begins[1:], False)
    stops = np.flatnonzero(mask & ~after) + 1
    long = stops - starts >= least
    return list(zip(starts[long].tolist(), stops[long].tolist(), strict=True))


def _where(dataset: Dataset, rows: np.ndarray) -> tuple[str, list[int]]:
    episodes = sorted({int(index) for index in dataset.frames["episode_index"].gather(rows)})
    return place(dataset, int(rows[0])), episodes
