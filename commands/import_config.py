"""`hilserl import-config`: LeRobot's train configuration becomes ours, and a person is told what became of each field."""

from __future__ import annotations

from pathlib import Path

from hilserl.errors import ConfigError


def run_import_config(file: Path, out: Path | None, *, force: bool = False) -> Path:
    """Write `file` as YAML of ours to `out` (by default beside it); return where.

    Raises:
        ConfigError: The file cannot be translated, or `out` exists and `force` is not given.
    """
    from hilserl.config import load_config
    from hilserl.config.lerobot import describe_import, import_lerobot_config
    from hilserl.config.lerobot_yaml import to_yaml
    from hilserl.files import write_atomically

    target = out or file.with_suffix(".yaml")
    if target.suffix not in (".yaml", ".yml"):
        raise ConfigError(f"{target}: a configuration of ours is YAML. Give --out a name that ends in .yaml.")
    if target.exists() and not force:
        raise ConfigError(f"{target} exists. Give another name with --out, or --force to overwrite it.")
    imported = import_lerobot_config(file)
    from_json = load_config(file) if file.suffix == ".json" else None
    print(describe_import(imported))
    write_atomically(target, to_yaml(imported, file).encode())
    if from_json is not None and load_config(target) != from_json:
        raise AssertionError(f"{target} does not read back as {file}")  # a defect of ours
    print(f"\nwritten: {target}. Next: hilserl validate {target}")
    return target
