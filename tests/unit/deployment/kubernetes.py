"""The overlays of deploy/kubernetes as Kustomize renders them, and the schemas that they have to fit."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import jsonschema
import pytest
import yaml

from tests.places import CHECKOUT

KUBERNETES: Final = CHECKOUT / "deploy" / "kubernetes"
OVERLAYS: Final = tuple(sorted(path.name for path in (KUBERNETES / "overlays").iterdir()))
CACHE: Final = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "morphbatch"

Document = dict[str, Any]


@lru_cache
def rendered(overlay: str) -> tuple[Document, ...]:
    """Every document of an overlay; skips where there is no Kustomize."""
    own = shutil.which("kustomize", path=str(CACHE / "bin")) or shutil.which("kustomize")
    command = [own, "build"] if own else ["kubectl", "kustomize"]
    if not own and not shutil.which("kubectl"):
        pytest.skip("no Kustomize: `make kustomize` builds it (needs Go)")
    done = subprocess.run(
        [*command, str(KUBERNETES / "overlays" / overlay)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return tuple(yaml.safe_load_all(done.stdout))


def named(overlay: str, kind: str, name: str) -> Document:
    """One of its documents; the name of a ConfigMap is followed by a digest."""
    (found,) = (
        document
        for document in rendered(overlay)
        if document["kind"] == kind and document["metadata"]["name"].startswith(name)
    )
    return found


def pods(overlay: str) -> Iterator[tuple[str, Document]]:
    """Whose pods, and their template."""
    for document in rendered(overlay):
        if "template" in document.get("spec", {}):
            yield f"{document['kind']} {document['metadata']['name']}", document["spec"]["template"]


def containers(pod: Document) -> list[Document]:
    """All of a pod's template, those that run before the others too."""
    return [*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]]


@lru_cache
def _schemas() -> dict[tuple[str, str], Document]:
    folder = CACHE / "schemas"
    if not (folder / "ready").exists():
        pytest.skip("no schemas: `make schemas` fetches them (needs Go)")
    swagger = _strict(json.loads((folder / "swagger.json").read_text(encoding="utf-8"))["definitions"])
    found = {}
    for name, definition in swagger.items():
        for kind in definition.get("x-kubernetes-group-version-kind", []):
            version = f"{kind['group']}/{kind['version']}".lstrip("/")
            found[version, kind["kind"]] = {"$ref": f"#/definitions/{name}", "definitions": swagger}
    for path in folder.glob("keda*.yaml"):
        crd = yaml.safe_load(path.read_text(encoding="utf-8"))["spec"]
        for version in crd["versions"]:
            schema = _strict({"it": version["schema"]["openAPIV3Schema"]})["it"]
            found[f"{crd['group']}/{version['name']}", crd["names"]["kind"]] = schema
    return found


def _strict(definitions: dict[str, Any]) -> dict[str, Any]:
    """Schemas of Kubernetes as it reads a document that it is told to be strict with: an unknown field is an error."""

    def stricter(schema: Any) -> Any:
        if isinstance(schema, list):
            return [stricter(part) for part in schema]
        if not isinstance(schema, dict):
            return schema
        if schema.get("format") == "int-or-string" or schema.get("x-kubernetes-int-or-string"):
            return {"type": ["integer", "string"]}
        made = {key: stricter(part) for key, part in schema.items()}
        told = {"additionalProperties", "x-kubernetes-preserve-unknown-fields"} & schema.keys()
        if isinstance(schema.get("properties"), dict) and not told:
            made["additionalProperties"] = False
            if "metadata" in schema["properties"] and not schema["properties"]["metadata"].get("$ref"):
                made["properties"]["metadata"] = {"type": "object"}  # as every object has it; a CRD does not repeat it
        return made

    return {name: stricter(definition) for name, definition in definitions.items()}


def faults(document: Document) -> list[str]:
    """What the schema of its kind says against a document."""
    schema = _schemas()[document["apiVersion"], document["kind"]]
    checker = jsonschema.Draft4Validator(schema)
    return [f"{error.json_path}: {error.message}" for error in checker.iter_errors(document)]
