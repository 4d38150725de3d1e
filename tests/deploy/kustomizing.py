"""What `kubectl kustomize` makes of a folder, as far as the folders in deploy/kubernetes go."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

Manifest = dict[str, Any]

# What tells the items of a list apart when a patch is merged into it: whichever of these they have.
_KEYS = ("mountPath", "containerPort", "topologyKey", "name")
_UNDERSTOOD = {
    "apiVersion", "kind", "namespace", "labels", "resources", "images", "configMapGenerator", "patches",
}  # fmt: skip


def built(folder: Path) -> list[Manifest]:
    """The manifests of a folder with a kustomization, patched. ConfigMaps keep their names, without a hash.

    Raises:
        NotImplementedError: it asks for more than is understood here.
    """
    asked = _documents(folder / "kustomization.yaml")[0]
    if unknown := asked.keys() - _UNDERSTOOD:
        raise NotImplementedError(f"{folder}: {unknown}")
    manifests: list[Manifest] = []
    for name in asked.get("resources", ()):
        place = folder / name
        manifests += built(place.resolve()) if place.is_dir() else _documents(place)
    for generated in asked.get("configMapGenerator", ()):
        _generate(manifests, folder, generated)
    for patch in asked.get("patches", ()):
        (change,) = _documents(folder / patch["path"])
        target = patch.get("target", {"kind": change["kind"], "name": change["metadata"]["name"]})
        meant = [manifest for manifest in manifests if _is_meant(manifest, target)]
        if not meant:
            raise LookupError(f"{folder / patch['path']}: there is no {target}")
        for manifest in meant:
            own = {key: value for key, value in change.items() if key not in ("apiVersion", "kind", "metadata")}
            manifest.update(_merged(manifest, own))
    for manifest in manifests:
        for label in asked.get("labels", ()):
            _label(manifest, label["pairs"])
        if "namespace" in asked and manifest["kind"] != "Namespace":
            manifest["metadata"]["namespace"] = asked["namespace"]
    for image in asked.get("images", ()):
        for container in containers(manifests):
            if container["image"] == image["name"]:
                container["image"] = f"{image['newName']}:{image['newTag']}"
    return manifests


def containers(manifests: list[Manifest]) -> Iterator[dict[str, Any]]:
    """All containers of all pods."""
    for manifest in manifests:
        pod = manifest.get("spec", {}).get("template", {}).get("spec", {})
        yield from pod.get("containers", ())
        yield from pod.get("initContainers", ())


def settings_in(file: Path) -> dict[str, str]:
    """The variables in an env file, whose lines are NAME=VALUE or comments."""
    lines = (line for line in file.read_text().splitlines() if line and not line.startswith("#"))
    return dict(line.split("=", 1) for line in lines)


def _documents(file: Path) -> list[Manifest]:
    # Anchors make one object of several.
    return [copy.deepcopy(document) for document in yaml.safe_load_all(file.read_text())]


def _generate(manifests: list[Manifest], folder: Path, asked: Mapping[str, Any]) -> None:
    data = {name: value for file in asked["envs"] for name, value in settings_in(folder / file).items()}
    if asked.get("behavior") == "merge":
        (there,) = [one for one in manifests if one["kind"] == "ConfigMap" and one["metadata"]["name"] == asked["name"]]
        there["data"] |= data
    else:
        manifests.append({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": asked["name"]}, "data": data})


def _is_meant(manifest: Manifest, target: Mapping[str, str]) -> bool:
    return re.fullmatch(target["kind"], manifest["kind"]) is not None and (
        "name" not in target or re.fullmatch(target["name"], manifest["metadata"]["name"]) is not None
    )


def _merged(there: Any, change: Any) -> Any:
    """A strategic merge, without its directives."""
    if isinstance(there, dict) and isinstance(change, dict):
        return there | {name: _merged(there.get(name), value) for name, value in change.items()}
    if isinstance(there, list) and isinstance(change, list) and all(isinstance(item, dict) for item in change):
        key = next((key for key in _KEYS if key in change[0]), None)
        if key is None:
            # Nothing tells the rules of a policy apart: a list of them is replaced.
            return copy.deepcopy(change)
        changes = {item[key]: item for item in change}
        kept = [_merged(item, changes.pop(item[key], {})) for item in there]
        return [*changes.values(), *kept]
    return copy.deepcopy(change)


def _label(manifest: Manifest, pairs: Mapping[str, str]) -> None:
    templates = [manifest, manifest["spec"]["template"]] if "template" in manifest.get("spec", {}) else [manifest]
    for each in templates:
        each.setdefault("metadata", {}).setdefault("labels", {}).update(pairs)
