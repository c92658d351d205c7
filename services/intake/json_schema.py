"""Publishes the manifest's form as JSON Schema: `python -m services.intake.json_schema` rewrites the file in docs/."""

import json
from pathlib import Path
from typing import Final

from services.intake.manifest import Manifest

SCHEMA_FILE: Final = Path("docs/manifest.schema.json")


def manifest_schema_text() -> str:
    """The JSON Schema of `morphbatch.manifest/1`, as the file holds it."""
    schema = Manifest.model_json_schema(by_alias=True)
    document = {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    SCHEMA_FILE.write_text(manifest_schema_text())
