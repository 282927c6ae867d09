"""Read a configuration file, its parents and overrides into a `TrainConfig`."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from hilserl.config.models import TrainConfig
from hilserl.errors import ConfigError

# Where the demonstrations come from: exactly one of them.
_DEMONSTRATIONS = ("root", "sources", "record")
SHIPPED_CONFIGS = Path(__file__).resolve().parents[2] / "configs"


def load_config(path: str | Path, overrides: Mapping[str, Any] | None = None) -> TrainConfig:
    """Load a run's configuration.

    A YAML file may name a parent with `extends:` (a file beside it, or a shipped name); its own values
    win, key by key. Of `dataset.root`, `sources` and `record`, naming one replaces an inherited other.
    A `.json` file is read as a LeRobot train configuration.

    Args:
        path: File, or the name of a shipped one (`reach`, `configs/reach.yaml`).
        overrides: Values that win over the file: nested, or dotted keys such as `policy.utd_ratio`.

    Raises:
        ConfigError: Names the file, the key, the value, and the valid choices.
    """
    file = find_config(path)
    if file.suffix == ".json":
        from hilserl.config.lerobot import import_lerobot_config

        raw = import_lerobot_config(file).values
    else:
        raw = _read_yaml(file)
    given = expand_dotted(overrides or {})
    raw = inherit(raw, given)
    try:
        config = TrainConfig.model_validate(raw)
    except ValidationError as error:
        raise ConfigError(_describe(error, file, given)) from None
    if config.env is None:
        return config
    from hilserl.config.gymnasium_spaces import resolve_environment  # Gymnasium is imported only where one is configured

    try:
        return resolve_environment(config)
    except ConfigError as error:
        raise ConfigError(f"{file}: {error}") from error


def find_config(path: str | Path) -> Path:
    """Resolve a file name, or the name of a shipped configuration.

    Raises:
        ConfigError: Lists the shipped configurations.
    """
    given = Path(path)
    candidates = [given, SHIPPED_CONFIGS / given, SHIPPED_CONFIGS / f"{given}.yaml", SHIPPED_CONFIGS.parent / given]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    shipped = sorted(p.stem for p in SHIPPED_CONFIGS.glob("*.yaml"))
    close = difflib.get_close_matches(given.stem, shipped, n=1)
    hint = f" Did you mean `{close[0]}`?" if close else ""
    raise ConfigError(f"{path}: no such configuration file.{hint} Shipped: {', '.join(shipped)}.")


def merge(base: Mapping[str, Any], top: Mapping[str, Any]) -> dict[str, Any]:
    """Merge nested mappings; `top` wins. An empty mapping in `top` empties the section (`images: {}`)."""
    merged = dict(base)
    for key, value in top.items():
        old = merged.get(key)
        merged[key] = merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) and value else value
    return merged


def inherit(base: Mapping[str, Any], top: Mapping[str, Any]) -> dict[str, Any]:
    """Merge a configuration over its parent; demonstrations that `top` names replace those that `base` names."""
    dataset, inherited = top.get("dataset"), base.get("dataset")
    if isinstance(dataset, Mapping) and isinstance(inherited, Mapping):
        named = [name for name in _DEMONSTRATIONS if dataset.get(name)]
        replaced = set(_DEMONSTRATIONS) - set(named) if named else set()
        base = {**base, "dataset": {key: value for key, value in inherited.items() if key not in replaced}}
    return merge(base, top)


def expand_dotted(values: Mapping[str, Any]) -> dict[str, Any]:
    """Turn `{"policy.utd_ratio": 4}` into `{"policy": {"utd_ratio": 4}}`."""
    nested: dict[str, Any] = {}
    for key, value in values.items():
        head, _, rest = str(key).partition(".")
        nested = merge(nested, {head: expand_dotted({rest: value}) if rest else value})
    return nested


def parse_override(text: str) -> tuple[str, Any]:
    """Read `key=value` from the command line; the value is YAML.

    Raises:
        ConfigError: There is no `=`, or the value is no YAML.
    """
    key, separator, value = text.partition("=")
    if not separator or not key:
        raise ConfigError(f"override {text!r} is not `key=value`, such as `policy.utd_ratio=4`.")
    try:
        return key.strip(), yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise ConfigError(f"override {text!r}: the value is not YAML ({error}).") from None


class _UniqueKeys(yaml.SafeLoader):
    """Refuses a key that stands twice: YAML would keep the last one and forget the first without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Build a mapping whose keys are all different."""
        first: dict[Any, int] = {}
        for key_node, _ in node.value:
            key, line = self.construct_object(key_node, deep=True), key_node.start_mark.line + 1
            if key in first:
                raise yaml.constructor.ConstructorError(
                    None, None, f"`{key}` stands twice, in lines {first[key]} and {line}; only the last would count. Join them into one"
                )
            first[key] = line
        return super().construct_mapping(node, deep)


def _read_yaml(file: Path, seen: tuple[Path, ...] = ()) -> dict[str, Any]:
    if file.resolve() in seen:
        raise ConfigError(f"{file}: `extends` goes in a circle: {' -> '.join(p.name for p in seen)} -> {file.name}.")
    try:
        text = file.read_text(encoding="utf-8")
        raw = yaml.load(text, _UniqueKeys)  # a SafeLoader
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: cannot be read ({error}).") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{file}: is not valid YAML: {error}") from None
    if raw is None:
        raw = {}
    if not isinstance(raw, dict):
        raise ConfigError(f"{file}: must hold `key: value` lines, got {type(raw).__name__}.")
    parent = raw.pop("extends", None)
    if parent is None:
        return raw
    beside = file.parent / str(parent)
    parent_file = beside if beside.is_file() else SHIPPED_CONFIGS / f"{parent}.yaml"
    if not parent_file.is_file():
        raise ConfigError(f"{file}: `extends: {parent}` names no file (looked for {beside}) and no shipped configuration.")
    return inherit(_read_yaml(parent_file, (*seen, file.resolve())), raw)


def _describe(error: ValidationError, file: Path, overrides: Mapping[str, Any]) -> str:
    lines = []
    for item in error.errors():
        where = ".".join(str(part) for part in item["loc"])
        source = "override" if _stands_in(overrides, item["loc"]) else str(file)
        if item["type"] == "extra_forbidden":
            known = _known_keys(item["loc"][:-1])
            close = difflib.get_close_matches(str(item["loc"][-1]), known, n=1, cutoff=0.5)
            hint = f"Did you mean `{close[0]}`?" if close else f"Known here: {', '.join(known)}."
            lines.append(f"{source}: `{where}` is unknown (got {json.dumps(item['input'], default=str)}). {hint}")
        else:
            message = item["msg"].removeprefix("Value error, ")
            got = "" if item["type"] == "value_error" else f" (got {json.dumps(item['input'], default=str)})"
            lines.append(f"{source}: {f'`{where}`: ' if where else ''}{message}{got}.")
    return "\n".join(lines)


def _stands_in(values: Any, location: tuple[int | str, ...]) -> bool:
    """Whether a value of the configuration was given by an override, and not by the file."""
    for part in location:
        if not isinstance(values, Mapping) or part not in values:
            return not isinstance(values, Mapping)  # a part of a list or text that was given as a whole
        values = values[part]
    return bool(location)


def _known_keys(location: tuple[int | str, ...]) -> list[str]:
    model: Any = TrainConfig
    for part in location:
        if not (isinstance(model, type) and issubclass(model, BaseModel)):
            return []
        field = model.model_fields.get(str(part))
        if field is None:
            continue  # the key of a dict of models
        model = _model_in(field.annotation)
    return sorted(model.model_fields) if isinstance(model, type) and issubclass(model, BaseModel) else []


def _model_in(annotation: Any) -> Any:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in get_args(annotation):
        found = _model_in(argument)
        if found is not None:
            return found
    return None
