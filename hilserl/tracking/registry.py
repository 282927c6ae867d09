"""MLflow's model registry: versions of policies and classifiers, and which of them is meant by a name.

A version is a folder of ours, as it was registered: its content's hash is kept with it and compared whenever it is
fetched. Nothing of it is unpickled, and MLflow's own model flavours are not used.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hilserl.config.models import TrackingConfig
from hilserl.errors import CheckpointError, HilserlError, ServiceError
from hilserl.files import atomic_directory, content_hash, file_hash, home
from hilserl.tracking.store import MAX_TAG_CHARS, find_experiment, open_client, shorten, shown_uri

CHAMPION, CANDIDATE = "champion", "candidate"

_HASH_TAG, _PATH_TAG = "hilserl.content_hash", "hilserl.artifact_path"
_URI = re.compile(r"models:/(?P<name>[^/@]+)(?:@(?P<alias>[^/@]+)|/(?P<version>\d+))")
_DEFAULT = TrackingConfig()


@dataclass(frozen=True)
class Version:
    """One registered folder.

    Attributes:
        name: Of the registered model, such as `hilserl-lift`.
        version: Counted from 1.
        uri: `models:/<name>/<version>`; always the same content.
        content_hash: Of the folder's files, names included.
        aliases: Names that point at it now, such as `champion`.
        tags: Given when it was registered, and since.
        run_id: MLflow's run that it came from.
        description: For a person.
    """

    name: str
    version: int
    uri: str
    content_hash: str
    aliases: tuple[str, ...]
    tags: Mapping[str, str]
    run_id: str | None = None
    description: str = ""


def is_model_uri(text: str) -> bool:
    """Whether a text is meant as an address in the registry."""
    return text.startswith("models:")


def folder_hash(folder: Path) -> str:
    """Identify a folder by the names and contents of its files, wherever it lies.

    Raises:
        CheckpointError: There is nothing in it.
    """
    files = sorted(path for path in folder.rglob("*") if path.is_file()) if folder.is_dir() else []
    if not files:
        raise CheckpointError(f"{folder}: no such folder, or nothing in it.")
    return content_hash([[path.relative_to(folder).as_posix(), file_hash(path)] for path in files])


def register(
    name: str,
    folder: Path,
    *,
    run_id: str | None,
    tags: Mapping[str, str],
    description: str,
    config: TrackingConfig = _DEFAULT,
) -> Version:
    """Register a folder as the next version of `name`; the version that has the same content already is returned as it is.

    Args:
        name: Such as `hilserl-lift`.
        folder: Copied whole into MLflow's artefacts.
        run_id: MLflow's run that made it; None, or one that this store does not know: one is begun for the purpose.
        tags: Facts by name.
        description: For a person.
        config: Which store.

    Raises:
        CheckpointError: There is nothing in the folder.
        ServiceError: The registry cannot be used.
    """
    found_hash = folder_hash(folder)
    with _registry(config) as client:
        _make_model(client, name)
        for known in _versions(client, name):
            if known.tags.get(_HASH_TAG) == found_hash:
                return _as_version(known, _aliases(client, name))
        own_run = run_id is None or not _has_run(client, run_id)
        if run_id is None or own_run:
            run_id = client.create_run(find_experiment(client, config), run_name=f"register-{name}").info.run_id
        path = f"registered/{name}-{found_hash}"
        client.log_artifacts(run_id, str(folder), path)
        if own_run:
            client.set_terminated(run_id)
        kept = {key: shorten(str(value), MAX_TAG_CHARS) for key, value in tags.items()} | {_HASH_TAG: found_hash, _PATH_TAG: path}
        source = f"{client.get_run(run_id).info.artifact_uri.rstrip('/')}/{path}"
        made = client.create_model_version(name, source, run_id=run_id, tags=kept, description=description)
        return _as_version(client.get_model_version(name, made.version), _aliases(client, name))


def set_alias(name: str, alias: str, version: int, *, config: TrackingConfig = _DEFAULT) -> None:
    """Let `models:/<name>@<alias>` mean this version from now on.

    Raises:
        ServiceError: There is no such version, or the registry cannot be used.
    """
    with _registry(config) as client:
        client.set_registered_model_alias(name, alias, str(version))


def remove_alias(name: str, alias: str, *, config: TrackingConfig = _DEFAULT) -> None:
    """Let `models:/<name>@<alias>` mean nothing any more; nothing happens where it meant nothing.

    Raises:
        ServiceError: The registry cannot be used.
    """
    with _registry(config) as client:
        if alias in _aliases(client, name):
            client.delete_registered_model_alias(name, alias)


def set_tags(version: Version, tags: Mapping[str, str], *, config: TrackingConfig = _DEFAULT) -> None:
    """Write facts beside a version, such as how it was evaluated.

    Raises:
        ServiceError: The registry cannot be used.
    """
    with _registry(config) as client:
        for key, value in tags.items():
            client.set_model_version_tag(version.name, str(version.version), key, shorten(str(value), MAX_TAG_CHARS))


def find(uri: str, *, config: TrackingConfig = _DEFAULT) -> Version:
    """Look up `models:/<name>@<alias>` or `models:/<name>/<version>`.

    Raises:
        ServiceError: There is none; lists what there is. Or it was registered by something else.
    """
    parts = _URI.fullmatch(uri)
    if parts is None:
        raise ServiceError(f"`{uri}` is no model's address: write `models:/<name>@<alias>` or `models:/<name>/<number>`.")
    name = parts["name"]
    with _registry(config) as client:
        versions = {int(version.version): version for version in _versions(client, name)}
        aliases = _aliases(client, name)
        number = aliases.get(parts["alias"]) if parts["alias"] else int(parts["version"])
        if number not in versions:
            raise ServiceError(_what_there_is(uri, client, name, versions, aliases, config))
        found = _as_version(versions[number], aliases)
    if not found.content_hash:
        raise ServiceError(
            f"{found.uri} was registered by another program, without the hash of its content. Register its folder with "
            f"`hilserl policies register FOLDER`."
        )
    return found


def find_or_none(uri: str, *, config: TrackingConfig = _DEFAULT) -> Version | None:
    """Look up an alias that may not be set yet.

    Raises:
        ServiceError: The registry cannot be used.
    """
    parts = _URI.fullmatch(uri)
    with _registry(config) as client:
        known = parts is not None and (parts["alias"] is None or parts["alias"] in _aliases(client, parts["name"]))
    return find(uri, config=config) if known else None


def list_versions(name: str, *, config: TrackingConfig = _DEFAULT) -> list[Version]:
    """Return all versions of a model, the newest first; none where there is no such model.

    Raises:
        ServiceError: The registry cannot be used.
    """
    with _registry(config) as client:
        aliases = _aliases(client, name)
        found = [_as_version(version, aliases) for version in _versions(client, name)]
    return sorted(found, key=lambda version: -version.version)


def list_models(*, config: TrackingConfig = _DEFAULT) -> list[str]:
    """Name the registered models.

    Raises:
        ServiceError: The registry cannot be used.
    """
    with _registry(config) as client:
        return _model_names(client)


def fetch(uri: str, *, config: TrackingConfig = _DEFAULT) -> Path:
    """Return a folder with the content of a version, copied once to `HILSERL_HOME/models/<hash>`.

    Raises:
        ServiceError: There is no such version, or the registry cannot be used.
        CheckpointError: What the registry gave is not what was registered.
    """
    version = find(uri, config=config)
    folder = home() / "models" / version.content_hash
    if folder.is_dir():
        if folder_hash(folder) == version.content_hash:
            return folder
        shutil.rmtree(folder)  # damaged here; the registry has it whole
    with (
        _registry(config) as client,
        atomic_directory(folder) as temporary,
        tempfile.TemporaryDirectory(dir=temporary.parent) as download,
    ):
        got = Path(client.download_artifacts(version.run_id, version.tags[_PATH_TAG], download))
        shutil.copytree(got, temporary, dirs_exist_ok=True)
        if (found := folder_hash(temporary)) != version.content_hash:
            raise CheckpointError(
                f"{version.uri}: the content ({found}) is not what was registered ({version.content_hash}): it was damaged or replaced "
                f"in the store {shown_uri(config)}. Use another version, and delete this one."
            )
    return folder


@contextmanager
def _registry(config: TrackingConfig) -> Iterator[Any]:
    """Open the store; what it fails of becomes an error that names it."""
    try:
        yield open_client(config)
    except HilserlError:
        raise
    except Exception as error:
        raise ServiceError(f"the model registry at {shown_uri(config)} cannot be used: {error}") from error


def _has_run(client: Any, run_id: str) -> bool:
    try:
        client.get_run(run_id)
    except Exception as error:
        if getattr(error, "error_code", None) != "RESOURCE_DOES_NOT_EXIST":
            raise
        return False
    return True


def _make_model(client: Any, name: str) -> None:
    try:
        client.create_registered_model(name)
    except Exception as error:
        if getattr(error, "error_code", None) != "RESOURCE_ALREADY_EXISTS":
            raise


def _versions(client: Any, name: str) -> list[Any]:
    quoted = name.replace("'", "")
    found, token = [], None
    while True:
        page = client.search_model_versions(f"name='{quoted}'", max_results=200, page_token=token)
        found += page
        token = page.token
        if not token:
            return found


def _model_names(client: Any) -> list[str]:
    return sorted(model.name for model in client.search_registered_models(max_results=200))


def _aliases(client: Any, name: str) -> dict[str, int]:
    """Return the version of each alias; empty where there is no such model."""
    try:
        return {alias: int(version) for alias, version in client.get_registered_model(name).aliases.items()}
    except Exception as error:
        if getattr(error, "error_code", None) == "RESOURCE_DOES_NOT_EXIST":
            return {}
        raise


def _as_version(found: Any, aliases: Mapping[str, int]) -> Version:
    number = int(found.version)
    return Version(
        name=found.name,
        version=number,
        uri=f"models:/{found.name}/{number}",
        content_hash=found.tags.get(_HASH_TAG, ""),
        aliases=tuple(sorted(alias for alias, version in aliases.items() if version == number)),
        tags=dict(found.tags),
        run_id=found.run_id,
        description=found.description or "",
    )


def _what_there_is(
    uri: str, client: Any, name: str, versions: Mapping[int, Any], aliases: Mapping[str, int], config: TrackingConfig
) -> str:
    if not versions:
        models = ", ".join(_model_names(client)) or "none"
        return f"{uri}: there is no model `{name}` in the registry at {shown_uri(config)}. There are: {models}."
    known = ", ".join([*(f"@{alias}" for alias in sorted(aliases)), *(f"/{number}" for number in sorted(versions))])
    return f"{uri}: there is no such version of `{name}` in the registry at {shown_uri(config)}. There are: {known}."
