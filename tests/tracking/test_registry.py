"""The model registry on a real MLflow store (SQLite)."""

import shutil

import pytest

from hilserl.config.models import TrackingConfig
from hilserl.errors import CheckpointError, ServiceError
from hilserl.tracking import registry
from hilserl.tracking.store import open_client

# SQLAlchemy 2.1 deprecates what MLflow 3.17's SQL store uses.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")

CONFIG = TrackingConfig(experiment="registry-tests")


@pytest.fixture(scope="module")
def store_home(tmp_path_factory):
    return tmp_path_factory.mktemp("registry home")


@pytest.fixture(autouse=True)
def hilserl_home(store_home, monkeypatch):
    monkeypatch.setenv("HILSERL_HOME", str(store_home))


@pytest.fixture
def folder(tmp_path):
    """A folder as policies and classifiers are: files, one of them deeper."""
    made = tmp_path / "policy"
    (made / "more").mkdir(parents=True)
    (made / "policy.json").write_text("{}")
    (made / "more" / "weights.bin").write_bytes(bytes(range(256)))
    return made


@pytest.fixture
def name(request):
    return f"hilserl-{request.node.name.removeprefix('test_').split('[')[0]}"


def add(name, folder, content, **tags):
    (folder / "policy.json").write_text(content)
    return registry.register(name, folder, run_id=None, tags=tags, description=f"with {content}", config=CONFIG)


def test_what_is_registered_is_fetched_as_it_was(name, folder, store_home):
    version = add(name, folder, "first", task="lift")
    assert (version.name, version.version, version.uri, version.aliases) == (name, 1, f"models:/{name}/1", ())
    assert version.tags["task"] == "lift" and version.description == "with first"
    fetched = registry.fetch(version.uri, config=CONFIG)
    assert fetched == store_home / "models" / version.content_hash
    assert (fetched / "policy.json").read_text() == "first"
    assert (fetched / "more" / "weights.bin").read_bytes() == bytes(range(256))
    assert registry.folder_hash(fetched) == registry.folder_hash(folder) == version.content_hash


def test_the_same_content_is_one_version(name, folder):
    assert add(name, folder, "same").version == add(name, folder, "same").version == 1
    assert add(name, folder, "other").version == 2


def test_a_run_that_this_store_does_not_know_is_no_obstacle(name, folder):
    (folder / "policy.json").write_text("from elsewhere")
    version = registry.register(name, folder, run_id="0" * 32, tags={}, description="", config=CONFIG)
    assert version.run_id != "0" * 32 and (registry.fetch(version.uri, config=CONFIG) / "policy.json").read_text() == "from elsewhere"


def test_an_alias_is_moved_and_says_who_has_it(name, folder):
    first, second = add(name, folder, "1"), add(name, folder, "2")
    assert registry.find_or_none(f"models:/{name}@champion", config=CONFIG) is None
    registry.set_alias(name, "champion", first.version, config=CONFIG)
    assert registry.find(f"models:/{name}@champion", config=CONFIG).content_hash == first.content_hash
    registry.set_alias(name, "champion", second.version, config=CONFIG)
    champion = registry.find(f"models:/{name}@champion", config=CONFIG)
    assert (champion.version, champion.aliases) == (2, ("champion",))
    assert [version.aliases for version in registry.list_versions(name, config=CONFIG)] == [("champion",), ()]
    registry.remove_alias(name, "champion", config=CONFIG)
    assert registry.find_or_none(f"models:/{name}@champion", config=CONFIG) is None


def test_tags_are_added_to_a_version(name, folder):
    version = add(name, folder, "1", task="lift")
    registry.set_tags(version, {"evaluation": "97 %"}, config=CONFIG)
    assert {"task": "lift", "evaluation": "97 %"}.items() <= registry.find(version.uri, config=CONFIG).tags.items()


@pytest.mark.parametrize(
    ("uri", "says"),
    [
        ("models:/hilserl-nobody@champion", "no model `hilserl-nobody`"),
        ("models:/hilserl-asked_for_what_is_not_there@best", "@candidate, /1"),
        ("models:/hilserl-asked_for_what_is_not_there/7", "@candidate, /1"),
        ("models:hilserl-lift", "is no model's address"),
        ("models:/a/b/c", "is no model's address"),
    ],
)
def test_asked_for_what_is_not_there(uri, says, folder):
    version = add("hilserl-asked_for_what_is_not_there", folder, "1")
    registry.set_alias(version.name, "candidate", version.version, config=CONFIG)
    with pytest.raises(ServiceError, match=says):
        registry.find(uri, config=CONFIG)


def test_a_version_that_was_replaced_in_the_store_is_refused(name, folder, store_home):
    version = add(name, folder, "honest")
    stored = next((store_home / "mlflow" / "artifacts").rglob(f"{name}-{version.content_hash}"))
    (stored / "policy.json").write_text("forged")
    with pytest.raises(CheckpointError, match="damaged or replaced"):
        registry.fetch(version.uri, config=CONFIG)
    assert not (store_home / "models" / version.content_hash).exists()


def test_a_damaged_copy_is_fetched_again(name, folder):
    version = add(name, folder, "honest")
    fetched = registry.fetch(version.uri, config=CONFIG)
    (fetched / "policy.json").write_text("forged")
    assert (registry.fetch(version.uri, config=CONFIG) / "policy.json").read_text() == "honest"


def test_what_another_program_registered_is_refused(name):
    client = open_client(CONFIG)
    client.create_registered_model(name)
    client.create_model_version(name, "file:///somewhere")
    with pytest.raises(ServiceError, match="another program"):
        registry.find(f"models:/{name}/1", config=CONFIG)


def test_an_empty_folder_is_no_model(name, folder):
    shutil.rmtree(folder / "more")
    (folder / "policy.json").unlink()
    with pytest.raises(CheckpointError, match="nothing in it"):
        registry.register(name, folder, run_id=None, tags={}, description="", config=CONFIG)
