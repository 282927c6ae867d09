"""`hilserl export`: a trained policy for LeRobot's tools, or as ONNX."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from hilserl.errors import ConfigError

if TYPE_CHECKING:
    from hilserl.export.source import PolicySource


def run_export(name: str, to: str, out: Path, *, force: bool = False) -> None:
    """Export the policy `name` to the folder `out`, and say what was written and what to do with it.

    Args:
        name: Name of a run, or the folder of a run or a policy.
        to: `lerobot` or `onnx`.
        out: Folder to write.
        force: Replace `out` if an earlier export is there.

    Raises:
        ConfigError: `out` exists.
        CheckpointError: There is no such policy, or the export does not act as it does.
    """
    from hilserl.export.source import PolicySource
    from hilserl.runs import newest_policy

    _require_free(out, force=force)
    folder = Path(name) if (Path(name) / "policy.json").is_file() else newest_policy(name)
    source = PolicySource.read(folder)
    print(f"policy: {folder}")
    print(f"success: {source.success or 'not evaluated'}")
    print("writing, and loading it back to compare (10-20 s) ...", flush=True)
    if to == "lerobot":
        _to_lerobot(source, out)
    else:
        _to_onnx(source, out)


def _to_lerobot(source: PolicySource, out: Path) -> None:
    from hilserl.export.lerobot_folder import export_lerobot

    written = export_lerobot(source, out)
    why = "which LeRobot 0.6.1 has itself" if written.reason is None else f"for the plugin lerobot_policy_hilserl, since {written.reason}"
    print(f"written: {out}, policy type `{written.policy_type}`, {why}")
    print(f"checked: loaded by LeRobot, {written.comparison}")
    if source.environment is None:
        actions = ", ".join(source.action.names)
        print(
            f"note: it returns [{actions}] in [-1, 1], not joint angles. LeRobot loads and runs it, but `lerobot-rollout` cannot\n"
            "      drive an arm with it: docs/export.md has the loop that assembles the state and decodes the actions."
        )
    if written.reason is not None:
        print("next: in LeRobot's environment, from a checkout of hilserl: uv pip install . ./plugins/lerobot_policy_hilserl")
    print(f"next: {out / 'README.md'} says what the policy expects, and how to load it")


def _to_onnx(source: PolicySource, out: Path) -> None:
    from hilserl.export.onnx_model import INTERFACE_FILE, MODEL_FILE, OPSET, export_onnx

    written = export_onnx(source, out)
    print(f"written: {out / MODEL_FILE} (opset {OPSET}; inputs {', '.join(written.inputs)}; output action)")
    print(f"checked: onnxruntime against torch, {written.comparison}")
    if len(written.inputs) > 1:
        print("note: crop and resize are outside the graph; it takes images as the preprocessor leaves them")
    print(f"next: {out / INTERFACE_FILE} names every input with its unit; docs/export.md shows how to run the graph")


def _require_free(out: Path, *, force: bool) -> None:
    """Refuse to replace anything but an earlier export, and that only when told to."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not out.is_dir() or not ({"config.json", "interface.json"} & {file.name for file in out.iterdir()}):
        raise ConfigError(f"{out} exists and is not an earlier export. Give another folder with --out.")
    if not force:
        raise ConfigError(f"{out} exists. Give another folder with --out, or --force to replace it.")
