"""D02, D03: where the reward comes from, and what ended the episodes."""

from __future__ import annotations

import shlex

import numpy as np

from hilserl.config.models import Role, TrainConfig
from hilserl.data.convert import episode_ends, last_frames, place, rewards
from hilserl.data.dataset import DONE_KEY, REWARD_KEY, Dataset
from hilserl.data.validation.findings import Finding, Severity, exclude, few

_CHOICES = (
    "dataset: {reward_from: success_at_end}  # if every demonstration ends in success\n"
    "# or: dataset: {reward_from: none}  # to train without"
)


def check_reward(
    config: TrainConfig, dataset: Dataset, role: Role = "demonstration", *, alone: bool = True
) -> tuple[list[Finding], dict[int, int] | None]:
    """D02: there is a stated source of the reward, and it pays at least once.

    Args:
        config: Says where the reward comes from.
        dataset: The episodes to look at.
        role: What the dataset shows; failures are not rewarded.
        alone: No other dataset of the run may bring rewards.
    """
    has_column, chosen, place_ = REWARD_KEY in dataset.frames.columns, config.dataset.reward_from, f"`{REWARD_KEY}`"
    choices = (
        _CHOICES if role != "failure" else "dataset: {reward_from: none}  # in the entry of this source, since failures are not rewarded"
    )
    if not has_column and chosen in (None, "column"):
        says = ", and dataset.reward_from says `column`" if chosen == "column" else ""
        message = f"missing{says}, so every reward would be 0 and nothing would be learned"
        return [Finding("D02", "stops", place_, message, choices)], None
    if has_column and dataset.column(REWARD_KEY).ndim != 1:
        message = f"holds vectors of shape {dataset.column(REWARD_KEY).shape[1:]}, a reward is one number: nobody knows which"
        return [Finding("D02", "stops", place_, message, choices)], None
    if chosen == "classifier":
        return _classifier(config), None
    reward = _rewards(config, dataset)
    assert reward is not None
    source = chosen or "column"
    positives = {e.index: int((reward[e.start : e.stop] > 0).sum()) for e in dataset.episodes}
    with_any, total = sum(count > 0 for count in positives.values()), sum(positives.values())
    message = f"reward from `{source}`: {total} rewarded frames, in {with_any} of {len(positives)} episodes"
    findings = [Finding("D02", "informs", place_, message), *_payment(source, role, positives, alone=alone)]
    if has_column and chosen not in (None, "column"):
        message = f"the column exists and is ignored, because dataset.reward_from is `{chosen}`: what it knows of success is lost"
        findings.append(Finding("D02", "warns", place_, message, "# or: dataset: {reward_from: column}  # to use it"))
    early = np.flatnonzero((reward > 0) & ~last_frames(dataset))
    if len(early):
        message = f"{len(early)} rewards before the end of an episode, first at {place(dataset, int(early[0]))}: "
        message += "the return exceeds 1, and delay may pay"
        remedy = f"hilserl dataset trim {shlex.quote(str(dataset.root))} --into NEW_FOLDER\n"
        remedy += "# or: dataset: {reward_from: success_at_end}  # if every demonstration ends in success"
        findings.append(Finding("L13", "warns", place_, message, remedy))
    return findings, positives


def _payment(source: str, role: Role, positives: dict[int, int], *, alone: bool) -> list[Finding]:
    """Compare what was rewarded with what the dataset shows."""
    place_ = f"`{REWARD_KEY}`"
    paid, unpaid = [i for i, count in positives.items() if count], [i for i, count in positives.items() if not count]
    if role == "failure":
        if not paid:
            return []
        message = (
            f"a `failure` source is rewarded in episodes {few(paid)}: those rewards are ignored, and what succeeded is taken for a failure"
        )
        return [
            Finding(
                "D02",
                "warns",
                place_,
                message,
                "dataset: {reward_from: none}  # in the entry of this source\n# or say role: demonstration there",
            )
        ]
    if source == "none":
        message = "dataset.reward_from is `none`: the demonstrations carry no learning signal; only online rewards will teach the critic"
        return [
            Finding(
                "D02", "warns", place_, message, "# or: dataset: {reward_from: success_at_end}  # if every demonstration ends in success"
            )
        ]
    if not paid and alone:
        message = f"no frame of {len(positives)} episodes is rewarded: the critic would learn that nothing ever pays"
        return [Finding("D02", "stops", place_, message, _CHOICES)]
    if not paid:
        message = f"no frame of the {len(positives)} episodes of this {role} source is rewarded: they count as failures"
        remedy = "# or: dataset: {reward_from: success_at_end}  # in the entry of this source, if they end in success\n"
        remedy += "# or say role: failure there"
        return [Finding("D02", "warns", place_, message, remedy)]
    if unpaid:
        message = f"episodes without a reward: {few(unpaid)}; they count as failures, and the critic learns to avoid what they did"
        remedy = f"# leave them if they failed\n# or: {exclude(unpaid[:50], 'if they succeeded')}"
        return [Finding("D02", "warns", place_, message, remedy)]
    return []


def _classifier(config: TrainConfig) -> list[Finding]:
    folder, place_ = config.dataset.classifier, "dataset.classifier"
    remedy = (
        "# name the folder of a success classifier as dataset.classifier; `hilserl classifier train` makes one\n"
        "# or: dataset: {reward_from: success_at_end}  # if every demonstration ends in success"
    )
    if folder is None:
        message = "dataset.reward_from is `classifier`, and no classifier is named: nothing would be rewarded"
        return [Finding("D02", "stops", place_, message, remedy)]
    if not folder.exists():
        return [Finding("D02", "stops", place_, f"{folder}: no such folder, so nothing would be rewarded", remedy)]
    if not (folder / "classifier.json").is_file():
        message = f"{folder}: no success classifier, classifier.json is missing"
        remedy = "hilserl classifier train MARKED_DATASET --into NEW_FOLDER\n# and name that folder as dataset.classifier"
        return [Finding("D02", "stops", place_, message, remedy)]
    message = f"the reward is the verdict of {folder} on each frame, known once the video is decoded"
    return [Finding("D02", "informs", place_, message)]


def _rewards(config: TrainConfig, dataset: Dataset) -> np.ndarray | None:
    """Return the reward of every frame; None where nothing says it before the video is decoded."""
    source = config.dataset.reward_from or "column"
    if source == "classifier" or (source == "column" and REWARD_KEY not in dataset.frames.columns):
        return None
    return rewards(dataset, source)


def check_done(config: TrainConfig, dataset: Dataset) -> list[Finding]:
    """D03: whether the end of an episode was the task's or the clock's is known."""
    chosen, place_ = config.dataset.done_from, f"`{DONE_KEY}`"
    if DONE_KEY not in dataset.frames.columns:
        if chosen == "column_is_terminated":
            message = "missing, and dataset.done_from says `column_is_terminated`: no episode would ever end"
            return [Finding("D03", "stops", place_, message, "dataset: {done_from: episode_table}")]
        message = "missing; the episode table ends the episodes: terminated where the last frame was rewarded, else truncated"
        return [Finding("D03", "informs", place_, message)]
    reward = _rewards(config, dataset)
    if reward is None or reward.ndim != 1 or dataset.column(DONE_KEY).ndim != 1:
        return []  # Told as D02, or known once the classifier has seen the frames; the ends depend on the reward.
    done, is_last = dataset.column(DONE_KEY).astype(bool), last_frames(dataset)
    early, rewarded = np.flatnonzero(done & ~is_last), reward > 0
    if chosen == "column_is_terminated":
        return _terminal_column(config, dataset, done, rewarded, early)
    contradictions = []
    if len(early):
        contradictions.append(f"it is true {len(early)} times inside an episode, first at {place(dataset, int(early[0]))}")
    # True on every last frame is LeRobot's recorder: terminated or truncated. True on some says more than that.
    if not done[is_last].all() and (done != rewarded)[is_last].any():
        row = int(np.flatnonzero(is_last & (done != rewarded))[0])
        contradictions.append(f"on last frames it is neither always true nor equal to the reward, first at {place(dataset, row)}")
    if contradictions:
        severity: Severity = "stops" if chosen is None else "warns"
        message = (
            f"contradicts the episode table: {'; '.join(contradictions)}. Read wrongly, time-outs become terminals, or a success goes on"
        )
        remedy = (
            "dataset: {done_from: episode_table}  # to ignore it\n"
            "# or: dataset: {done_from: column_is_terminated}  # if it marks task ends only"
        )
        return [Finding("D03", severity, place_, message, remedy)]
    terminated, truncated = episode_ends(dataset, reward, "episode_table")
    message = f"by the episode table {int(terminated.sum())} episodes terminated (rewarded) and {int(truncated.sum())} were truncated"
    return [Finding("D03", "informs", place_, message)]


def _terminal_column(config: TrainConfig, dataset: Dataset, done: np.ndarray, rewarded: np.ndarray, early: np.ndarray) -> list[Finding]:
    place_ = f"`{DONE_KEY}`"
    if len(early):
        message = f"marks the task's end {len(early)} times inside an episode, first at {place(dataset, int(early[0]))}: "
        message += "the frames after it belong to no episode"
        remedy = f"dataset: {{done_from: episode_table}}\n# or: hilserl dataset trim {shlex.quote(str(dataset.root))} --into NEW_FOLDER"
        return [Finding("D03", "stops", place_, message, remedy)]
    unpaid = [episode for episode in dataset.episodes if done[episode.stop - 1] and not rewarded[episode.stop - 1]]
    timeouts = [episode.index for episode in unpaid if episode.length >= config.episode_steps]
    if timeouts:
        message = (
            f"episodes {timeouts[:10]} end unrewarded at the time limit ({config.episode_steps} steps) and are marked as task ends: "
            "their last state would be worth 0 for ever. The column was written as terminated-or-truncated"
        )
        return [Finding("D03", "stops", place_, message, "dataset: {done_from: episode_table}")]
    if unpaid:
        message = f"{len(unpaid)} episodes end without a reward as task ends: right for failures, wrong for recordings that merely stopped"
        remedy = "# leave it if they failed\n# or: dataset: {done_from: episode_table}  # if they merely stopped"
        return [Finding("D03", "warns", place_, message, remedy)]
    return [Finding("D03", "informs", place_, f"{int(done.sum())} task ends by the column")]
