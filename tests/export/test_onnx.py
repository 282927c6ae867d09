import hashlib
import json
import sys

import numpy as np
import pytest
from export_helpers import RESIZED, RESNET, TRAINED

from hilserl.errors import CheckpointError
from hilserl.export import onnx_model
from hilserl.export.onnx_model import OPSET, OnnxPolicy, export_onnx
from hilserl.export.probe import compare, probe_observations

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


@pytest.mark.parametrize(
    ("config", "overrides"),
    [("reach_state", {}), ("lift", {"policy.gripper": "discrete", "encoder.type": "cnn", **TRAINED, **RESIZED}), ("reach", RESNET)],
    ids=["state", "camera and discrete gripper", "resnet"],
)
def test_onnxruntime_acts_as_the_policy_does_at_any_batch_size(make_source, tmp_path, config, overrides) -> None:
    source = make_source(config, **overrides)
    export_onnx(source, tmp_path / "out")
    loaded = OnnxPolicy(tmp_path / "out" / "model.onnx", source.policy)
    observations = probe_observations(source.policy, 20, seed=9)
    ours = np.stack([source.policy.act(observation) for observation in observations])
    for rows in (1, 3, 20):
        assert np.abs(loaded.act_on_batch(observations[:rows]) - ours[:rows]).max() < 1e-5
    assert ours.std(axis=0).min() > 0.05
    interface_names_the_graph(tmp_path / "out", source)


def interface_names_the_graph(folder, source) -> None:
    """The graph is self-contained and is what interface.json says."""
    described = json.loads((folder / "interface.json").read_text())
    data = (folder / "model.onnx").read_bytes()
    assert sorted(file.name for file in folder.iterdir()) == ["interface.json", "model.onnx"]  # no weights beside it
    assert described["sha256"] == hashlib.sha256(data).hexdigest()
    assert described["preprocessor"] == json.loads(json.dumps(source.policy.preprocessor.to_dict()))
    model = onnx.load_from_string(data)
    onnx.checker.check_model(model, full_check=True)
    assert [opset.version for opset in model.opset_import if opset.domain == ""] == [OPSET] == [described["opset"]]
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    types = {"float32": "tensor(float)", "uint8": "tensor(uint8)"}
    entries = [(entry, described["inputs"]) for entry in session.get_inputs()] + [
        (entry, described["outputs"]) for entry in session.get_outputs()
    ]
    assert len(entries) == len(described["inputs"]) + len(described["outputs"])
    for entry, listed in entries:
        (said,) = [each for each in listed if each["name"] == entry.name]
        assert types[said["dtype"]] == entry.type
        assert isinstance(entry.shape[0], str) and entry.shape[1:] == said["shape"][1:]


def test_a_graph_that_differs_is_refused_and_nothing_is_written(make_source, tmp_path, monkeypatch) -> None:
    source = make_source("reach_state")
    right = onnx_model._write_graph

    def wrong(policy, names, file) -> None:
        policy.networks.scaling.center += 0.01
        right(policy, names, file)
        policy.networks.scaling.center -= 0.01

    monkeypatch.setattr(onnx_model, "_write_graph", wrong)
    with pytest.raises(CheckpointError, match="onnxruntime, differs from the policy"):
        export_onnx(source, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("theirs", "message"),
    [
        (lambda _: np.array([0.5, 0.5002]), "differs from the policy by 2.0e-04"),
        (lambda _: np.array([0.5, np.nan]), "differs from the policy by nan"),
        (lambda _: np.array([0.5]), "of shape"),
    ],
)
def test_a_comparison_refuses_another_action(theirs, message) -> None:
    with pytest.raises(CheckpointError, match=message):
        compare(lambda _: np.array([0.5, 0.5]), theirs, [{}], tolerance=1e-4, what="it")


def test_a_missing_package_is_named_with_the_command_that_installs_it(make_source, tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(CheckpointError, match=r"needs onnxscript\. Install with `uv sync --extra export`"):
        export_onnx(make_source("reach_state"), tmp_path / "out")
