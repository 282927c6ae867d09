"""The model card: what a policy does, what it needs, how well it works, how to run it."""

from __future__ import annotations

from hilserl.export.source import PolicySource
from hilserl.schema import IMAGE_PREFIX, STATE_KEY

_FRONT_MATTER = """---
library_name: lerobot
pipeline_tag: robotics
tags: [{tags}]
---
"""


def model_card(source: PolicySource, policy_type: str) -> str:
    """Write the card of an exported policy, as Markdown.

    Args:
        source: The policy and what is known about it.
        policy_type: `gaussian_actor` or `hilserl`.
    """
    plugin = (
        "LeRobot 0.6.1 loads it without anything else."
        if policy_type == "gaussian_actor"
        else "It needs the plugin `lerobot_policy_hilserl` in LeRobot's environment (from a checkout of hilserl: "
        "`uv pip install . ./plugins/lerobot_policy_hilserl`)."
    )
    body = "the SO-101 arm" if source.environment is None else f"the Gymnasium environment `{source.environment}`"
    tags = ", ".join(dict.fromkeys(["lerobot", "hilserl", policy_type, "so101" if source.environment is None else "gymnasium"]))
    load = "" if policy_type == "gaussian_actor" else "import lerobot_policy_hilserl  # registers the policy type\n"
    return f"""{_FRONT_MATTER.format(tags=tags)}
# {source.name}

A policy for {body}, trained with hilserl (SAC with prior data and human interventions).
{plugin} It acts deterministically.

- task: {source.facts.get("task", "not noted")}
- success: {source.success or "not evaluated"}
- environment steps of training: {source.facts.get("environment_steps", "not noted")}
- run: {source.facts.get("run_id", "not noted")}

## What it sees

{interface_table(source)}

## What it does

`action`, {len(source.action.names)} numbers in [-1, 1]: {", ".join(f"`{name}`" for name in source.action.names)}.
{_meaning(source)}

## How to load it

```python
from lerobot.configs import PreTrainedConfig
from lerobot.policies import get_policy_class, make_pre_post_processors
{load}
config = PreTrainedConfig.from_pretrained(folder)
policy = get_policy_class(config.type).from_pretrained(folder, config=config)
preprocessor, postprocessor = make_pre_post_processors(config, pretrained_path=folder)
action = postprocessor(policy.select_action(preprocessor(batch)))
```
"""


def interface_table(source: PolicySource) -> str:
    """Describe each observation: shape, unit and names, as a Markdown table."""
    lines = ["| observation | shape | what |", "|---|---|---|"]
    for key, feature in source.observation.items():
        if key == STATE_KEY:
            lines.append(f"| `{key}` | {feature.shape} | {', '.join(feature.names)} [{feature.unit}] |")
        else:
            view = source.policy.preprocessor.views[key.removeprefix(IMAGE_PREFIX)]
            lines.append(
                f"| `{key}` | {(*view.native, 3)} | RGB as the camera delivers it; "
                f"crop [top, left, height, width] = {list(view.crop)}, then {view.resize[0]}x{view.resize[1]} |"
            )
    return "\n".join(lines)


def _meaning(source: PolicySource) -> str:
    if source.environment:
        return "They are scaled to the bounds of the environment's action space."
    robot = source.config.get("robot", {})
    scale = ""
    if {"action_scale_m", "control_hz"} <= robot.keys():
        scale = (
            f"A delta of 1 moves the tool by {robot['action_scale_m']} m along an axis of the base frame, "
            f"{robot['control_hz']:g} times a second. "
        )
    gripper = "`gripper` closes at -1 and opens at 1. " if "gripper" in source.action.names else ""
    return (
        f"{scale}{gripper}They are **not** joint angles, and the state is not what LeRobot assembles from an arm:\n"
        "`lerobot-rollout` cannot run this policy on an arm by itself.\n"
        "`docs/export.md` of hilserl has the loop that decodes the actions and assembles the state."
    )
