"""Commands that only look: what is in a dataset, and what a crop leaves."""

import cv2
import numpy as np
import pytest
from data_helpers import edit_info
from editing_testing import pictures

from hilserl.data.editing.crop import Crop, centred_square, preview_crop
from hilserl.data.editing.describe import describe_dataset
from hilserl.data.editing.episodes import keep_episodes
from hilserl.errors import ConfigError, DatasetError


def test_a_description_names_units_and_ranges(recorded):
    found = describe_dataset(recorded["policy"])
    scalars = {feature.key: feature.scalars for feature in found.features}
    assert scalars["observation.state"].splitlines()[0].startswith("joint_pos.shoulder_pan [rad] -")
    assert "ee_pos.z [m] " in scalars["observation.state"]
    assert "av1" in scalars["observation.images.wrist"]
    assert [(e.index, e.frames, e.rewarded, e.ends) for e in found.episodes] == [(0, 6, 1, 1), (1, 8, 1, 1), (2, 7, 1, 1), (3, 8, 0, 1)]
    assert "rewarded frames in 3 of 4 episodes" in "\n".join(found.summary)
    teleop = describe_dataset(recorded["teleop"])
    scalars = {feature.key: feature.scalars for feature in teleop.features}
    assert "elbow_flex.pos [deg]" in scalars["action"] and "gripper.pos [0-100]" in scalars["action"]
    assert "no next.reward" in "\n".join(teleop.summary)
    assert teleop.episodes[0].rewarded is None


def test_a_description_says_where_an_edited_dataset_came_from(recorded, demos, tmp_path):
    edit_info(demos, lambda info: info["features"]["action"].update(names=None))
    keep_episodes(demos, (0,), tmp_path / "kept")
    found = describe_dataset(tmp_path / "kept")
    assert "made by `hilserl dataset keep` on 20" in found.summary[-1] and str(demos) in found.summary[-1]
    assert "no names" in next(feature.scalars for feature in found.features if feature.key == "action")


@pytest.mark.failure("D14")
def test_the_preview_shows_the_rectangle_and_the_policys_view(recorded, tmp_path):
    out = tmp_path / "crop.png"
    (advice,) = preview_crop(recorded["policy"], {"wrist": Crop((8, 20, 80, 60), (40, 30))}, out)
    sheet = cv2.cvtColor(cv2.imread(str(out)), cv2.COLOR_BGR2RGB)
    scale, caption = 240 / 96, 22
    assert sheet.shape[0] == 4 * (240 + caption + 8)
    frame = pictures(recorded["policy"])[0]
    top, left = caption + round(8 * scale), round(20 * scale)
    assert sheet[top, left + 40].tolist() == [0, 220, 0], "the rectangle's upper edge"
    inside, outside = (70, 60), (94, 120)  # row, column of the native frame
    at = lambda place: sheet[caption + int((place[0] + 0.5) * scale), int((place[1] + 0.5) * scale)].astype(int)  # noqa: E731
    assert np.abs(at(inside) - frame[inside]).max() <= 3
    assert np.abs(at(outside) - frame[outside] // 2).max() <= 3, "what is cut off is darkened"
    seen = sheet[caption + 3 : caption + 240 : 6, 320 + 8 + 3 : 320 + 8 + 180 : 6]
    expected = cv2.resize(frame[8:88, 20:80], (30, 40), interpolation=cv2.INTER_AREA)
    assert np.abs(seen.astype(int) - expected).max() <= 1, "the policy's own pixels"
    assert "39% of the frame" in advice and "crop: [0, 16, 96, 96]" in advice


def test_a_squeezed_crop_is_told(recorded, tmp_path):
    (advice,) = preview_crop(recorded["policy"], Crop(None, (48, 48)), tmp_path / "crop.png")
    assert "things look taller than they are" in advice


def test_an_impossible_crop_is_refused(recorded, tmp_path):
    with pytest.raises(ConfigError, match="leaves the 96x128 frame"):
        preview_crop(recorded["policy"], Crop((8, 20, 96, 96), (48, 48)), tmp_path / "crop.png")
    with pytest.raises(DatasetError, match="no video of camera front; it has wrist"):
        preview_crop(recorded["policy"], {"front": Crop(None, (48, 48))}, tmp_path / "crop.png")
    (tmp_path / "crop.png").write_bytes(b"mine")
    with pytest.raises(DatasetError, match="exists"):
        preview_crop(recorded["policy"], Crop(None, (48, 48)), tmp_path / "crop.png")


@pytest.mark.parametrize(("size", "square"), [((480, 640), (0, 80, 480, 480)), ((97, 64), (16, 0, 64, 64)), ((96, 96), (0, 0, 96, 96))])
def test_the_largest_centred_square(size, square):
    assert centred_square(*size) == square
