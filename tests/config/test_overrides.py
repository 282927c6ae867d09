"""The flow's form: bounds and choices are the configuration's, and nothing but what was set comes out."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from hilserl.config import TrainConfig, load_config
from hilserl.config.overrides import TrainOverrides, overrides_to_dict


def resolve(schema, node):
    options = node.get("anyOf", [node])
    (found,) = [option for option in options if option.get("type") != "null"]
    return schema["$defs"][found["$ref"].rpartition("/")[2]] if "$ref" in found else found


def constraints(schema, node):
    found = resolve(schema, node)
    return {
        key: value
        for key, value in found.items()
        if key in ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "enum", "pattern", "const")
    }


def walk(full_schema, full, partial_schema, partial, path=""):
    """Yield (path, node of TrainConfig, node of TrainOverrides) for every field."""
    assert full["properties"].keys() == partial["properties"].keys()
    for name in full["properties"]:
        ours, theirs = full["properties"][name], partial["properties"][name]
        yield f"{path}{name}", ours, theirs
        inner, twin = resolve(full_schema, ours), resolve(partial_schema, theirs)
        if isinstance(inner.get("additionalProperties"), dict):  # a dict of models
            inner = resolve(full_schema, inner["additionalProperties"])
            twin = resolve(partial_schema, twin["additionalProperties"])
        if "properties" in inner:
            yield from walk(full_schema, inner, partial_schema, twin, f"{path}{name}.")


def test_every_field_has_the_same_bounds_choices_and_description():
    full, partial = TrainConfig.model_json_schema(), TrainOverrides.model_json_schema()
    count = 0
    for path, ours, theirs in walk(full, full, partial, partial):
        assert constraints(full, ours) == constraints(partial, theirs), path
        # A model without a description of the field shows its own, which the twin keeps.
        assert ours.get("description") == theirs.get("description"), path
        assert theirs.get("default", None) is None, path
        count += 1
    assert count > 80


def test_the_form_shows_bounds_and_choices():
    schema = TrainOverrides.model_json_schema()
    policy, task = schema["$defs"]["PolicyOverrides"]["properties"], schema["$defs"]["TaskOverrides"]["properties"]
    assert policy["utd_ratio"]["anyOf"][0] == {"type": "integer", "minimum": 1, "maximum": 1000}
    assert policy["utd_ratio"]["description"] == "Critic updates owed per environment step"
    assert task["type"]["anyOf"][0]["enum"] == ["reach", "lift"]
    assert "required" not in schema


@pytest.mark.parametrize(
    "values",
    [
        {"policy": {"utd_ratio": 0}},
        {"task": {"type": "stack"}},
        {"policy": {"utd_ration": 4}},
        {"robot": {"cameras": {"wrist": {"width": 1}}}},
        {"policy": {"hidden_dims": [0]}},
        {"observation": {"images": {"wrist": {"resize": [84]}}}},
    ],
)
def test_what_the_configuration_refuses_is_refused_before_a_run_exists(values):
    with pytest.raises(ValidationError):
        TrainOverrides.model_validate(values)


def test_nothing_set_gives_nothing():
    assert overrides_to_dict(TrainOverrides()) == {}
    assert overrides_to_dict(None) == {}
    assert TrainOverrides().model_dump() == {}
    assert TrainOverrides().model_dump_json() == "{}"


def test_only_what_was_set_comes_out():
    values = {
        "seed": 0,
        "policy": {"utd_ratio": 4, "hidden_dims": [64, 64]},
        "robot": {"cameras": {"wrist": {"width": 640}}},
        "observation": {"images": {"wrist": {"crop": [0, 0, 84, 84]}}, "privileged": False},
    }
    found = overrides_to_dict(TrainOverrides.model_validate(values))
    assert found["seed"] == 0
    assert found["policy"] == {"utd_ratio": 4, "hidden_dims": (64, 64)}
    assert found["robot"] == {"cameras": {"wrist": {"width": 640}}}
    assert found["observation"] == {"images": {"wrist": {"crop": (0, 0, 84, 84)}}, "privileged": False}


def test_checks_that_span_fields_wait_for_the_whole_configuration():
    # Each is invalid as a section of its own: root without record: None, a frozen cnn, a lone corner.
    overrides = TrainOverrides.model_validate(
        {"dataset": {"root": "/data"}, "encoder": {"type": "cnn"}, "robot": {"workspace_min_m": [0.3, 0, 0]}}
    )
    assert overrides_to_dict(overrides) == {
        "dataset": {"root": Path("/data")},
        "encoder": {"type": "cnn"},
        "robot": {"workspace_min_m": (0.3, 0.0, 0.0)},
    }


def test_none_clears_only_what_may_be_none():
    values = {"dataset": {"record": None, "root": "/data"}, "policy": {"utd_ratio": None, "target_entropy": None}, "task": None}
    assert overrides_to_dict(TrainOverrides.model_validate(values)) == {
        "dataset": {"record": None, "root": Path("/data")},
        "policy": {"target_entropy": None},
    }


def test_overrides_reach_the_configuration():
    overrides = TrainOverrides.model_validate(
        {"policy": {"utd_ratio": 7}, "dataset": {"record": {"episodes": 3}}, "observation": {"images": {"wrist": {"resize": [64, 64]}}}}
    )
    config = load_config("reach", overrides_to_dict(overrides))
    assert (config.policy.utd_ratio, config.dataset.record.episodes) == (7, 3)
    assert config.observation.images["wrist"].resize == (64, 64)
    assert config.policy.batch_size == load_config("reach").policy.batch_size


def test_a_round_trip_through_json_keeps_what_was_set():
    overrides = TrainOverrides.model_validate({"policy": {"utd_ratio": 7}, "dataset": {"record": None, "root": "/data"}})
    again = TrainOverrides.model_validate_json(overrides.model_dump_json())
    assert overrides_to_dict(again) == overrides_to_dict(overrides)


def test_no_images_is_a_choice_and_an_empty_section_is_none():
    overrides = TrainOverrides.model_validate({"observation": {"images": {}}, "policy": {}, "encoder": {"type": None}})
    assert overrides_to_dict(overrides) == {"observation": {"images": {}}}
    config = load_config("reach", overrides_to_dict(overrides))
    assert config.observation.images == {}
    assert config.policy == load_config("reach").policy
