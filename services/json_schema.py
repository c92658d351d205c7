"""The manifest and the report as JSON Schema: `python -m services.json_schema` rewrites the files in docs/."""

import json
from pathlib import Path
from typing import Any, Final

from services.atomic import write_text
from services.intake.manifest import Manifest
from services.reporting.report import Report

_DIALECT: Final = {"$schema": "https://json-schema.org/draft/2020-12/schema"}


def published_schemas() -> dict[Path, str]:
    """The JSON Schema of the manifest and of the report as their files hold it, by path in the checkout."""
    return {
        Path("docs/manifest.schema.json"): _text(Manifest.model_json_schema(mode="validation")),
        Path("docs/report.schema.json"): _text(Report.model_json_schema(mode="serialization")),
    }


def _text(schema: dict[str, Any]) -> str:
    return json.dumps(_DIALECT | schema, indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    for path, schema in published_schemas().items():
        write_text(path, schema)
