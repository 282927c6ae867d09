"""`TrainOverrides`: `TrainConfig` with every field optional, for forms and command lines.

Built from the models, so it cannot drift from them: a flow parameter of this type shows in the
Prefect UI as a form with the bounds, choices and descriptions of the configuration, and a value out
of bounds is refused before a run exists. Checks that span fields need the whole configuration; they
run when the overrides have been merged into a file's values (`load_config`).
"""

from __future__ import annotations

import types
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, create_model, model_serializer
from pydantic.fields import FieldInfo

from hilserl.config.models import TrainConfig


class Overrides(BaseModel):
    """Base of the partial models: frozen, unknown keys refused, only what was set is written out."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    source: ClassVar[type[BaseModel]]

    @model_serializer(mode="wrap")
    def _only_what_was_set(self, handler: Any) -> dict[str, Any]:
        return {key: value for key, value in handler(self).items() if key in self.model_fields_set}


def partial_model(model: type[BaseModel], _made: dict[type[BaseModel], type[Overrides]] | None = None) -> type[Overrides]:
    """Build the all-optional twin of `model`: same bounds, choices and descriptions, no cross-field checks."""
    made = {} if _made is None else _made
    if model not in made:
        fields: dict[str, Any] = {name: _optional(info, made) for name, info in model.model_fields.items()}
        name = f"{model.__name__.removesuffix('Config')}Overrides"
        made[model] = create_model(name, __base__=Overrides, __doc__=model.__doc__, **fields)
        made[model].source = model
    return made[model]


def overrides_to_dict(overrides: Overrides | None) -> dict[str, Any]:
    """Return only the values that were set, nested as `load_config` takes them.

    A None is kept where the configuration knows None (it clears the value: `dataset.record`), and
    means "not set" elsewhere, as forms send it. An empty mapping of names is kept (`images: {}` is a
    policy without images), an empty section is not.
    """
    if overrides is None:
        return {}
    found: dict[str, Any] = {}
    for name in sorted(overrides.model_fields_set):
        value = getattr(overrides, name)
        nothing_set = isinstance(value, Overrides) and not overrides_to_dict(value)
        if not nothing_set and (value is not None or _knows_none(overrides.source.model_fields[name])):
            found[name] = _plain(value)
    return found


def _optional(info: FieldInfo, made: dict[type[BaseModel], type[Overrides]]) -> tuple[Any, Any]:
    annotation = _partial_annotation(info.annotation, made)
    if info.metadata:  # the bounds
        annotation = Annotated[annotation, *info.metadata]
    return annotation | None, Field(default=None, description=info.description)


def _partial_annotation(annotation: Any, made: dict[type[BaseModel], type[Overrides]]) -> Any:
    """Replace every model inside `annotation` by its partial twin."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return partial_model(annotation, made)
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return Annotated[_partial_annotation(arguments[0], made), *arguments[1:]]
    if origin in (Union, types.UnionType):
        return Union[tuple(_partial_annotation(argument, made) for argument in arguments)]  # noqa: UP007
    if origin is dict:
        return dict[arguments[0], _partial_annotation(arguments[1], made)]  # type: ignore[valid-type, misc]
    return annotation


def _plain(value: Any) -> Any:
    if isinstance(value, Overrides):
        return overrides_to_dict(value)
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return value


def _knows_none(info: FieldInfo) -> bool:
    return type(None) in get_args(info.annotation)


if TYPE_CHECKING:

    class TrainOverrides(Overrides):
        """What to change in a configuration file; see `TrainConfig` for the fields."""
else:
    TrainOverrides = partial_model(TrainConfig)
