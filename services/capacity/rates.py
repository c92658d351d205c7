"""What a slide costs at each station, in seconds of one server (a core, or a GPU): shipped, or of `bench … --json`."""

import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from services.capacity.errors import RatesRefused
from services.capacity.nights import Slide
from services.documents import describe, read_json_object, read_toml

SHIPPED: Final = Path(__file__).with_name("measured.toml")
# Of the stages of a slide, those that take longer the more cells there are; the others are of its fields.
_OF_CELLS: Final = frozenset({"detect", "crop", "rows", "wait_for_networks", "write"})


class Cost(BaseModel):
    """Seconds of one server a slide, and for each of its fields, cells and megabytes; `source` says who measured."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    slide: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    field: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    cell: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    megabyte: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    source: str

    def of(self, slide: Slide) -> float:
        """Seconds of one server that a slide takes."""
        return self.slide + self.field * slide.fields + self.cell * slide.cells + self.megabyte * slide.megabytes


class Rates(BaseModel):
    """What each station costs."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    worker: Cost
    triton_cpu: Cost
    triton_gpu: Cost
    postgres: Cost
    store: Cost
    control: Cost
    cell_bytes: int = Field(ge=1, description="Bytes of a cell's row in Postgres, its indexes included.")

    @classmethod
    def read(cls, path: Path = SHIPPED) -> Self:
        """Those of a TOML file like the shipped one.

        Raises:
            RatesRefused: it is not such a file; names every fault.
        """
        try:
            return cls.model_validate(read_toml(path, RatesRefused))
        except ValidationError as error:
            raise RatesRefused(f"{path}: {describe(error)}") from error

    def measured(self, path: Path) -> Self:
        """These, with what a document of `morphbatch bench e2e|feed|ensemble|reapply --json` measured instead.

        Raises:
            RatesRefused: it is not such a document.
        """
        document = read_json_object(path, RatesRefused)
        try:
            return self.model_copy(update=_found_in(document, _machine(document, path)))
        except (AttributeError, LookupError, TypeError, ValueError, ZeroDivisionError) as error:
            raise RatesRefused(
                f"{path} is not what `morphbatch bench e2e|feed|ensemble|reapply --json` writes:"
                f" {type(error).__name__} at {error}"
            ) from error


def _machine(document: Mapping[str, Any], path: Path) -> str:
    machine = document.get("machine", {})
    gpus = ", ".join(machine.get("gpus", []))
    return f"{path.name}: {gpus + ', ' if gpus else ''}{machine.get('cores')} cores, {machine.get('processor')}"


def _found_in(document: Mapping[str, Any], source: str) -> dict[str, Cost]:
    if "written_of_one_core_cells_per_s" in document:
        each = 1 / document["written_of_one_core_cells_per_s"]["median"]
        return {"postgres": Cost(slide=0.02, cell=each, source=source)}
    if document["kind"] == "feed":
        return {"worker": _of_feed(document, source)}
    if document["kind"] == "ensemble":
        per_s = document["ensemble"]["crops_per_s"]["median"]
        if document["machine"]["gpus"]:
            return {"triton_gpu": Cost(cell=1 / per_s, source=source)}
        return {"triton_cpu": Cost(cell=document["machine"]["cores"] / per_s, source=source)}
    if document["kind"] == "e2e":
        return _of_e2e(document, source)
    raise ValueError(document["kind"])


def _of_feed(document: Mapping[str, Any], source: str) -> Cost:
    spent = {stage: found["median"] / 1000 for stage, found in document["cpu_ms_per_field"].items()}
    of_cells = sum(seconds for stage, seconds in spent.items() if stage in _OF_CELLS)
    return Cost(field=spent["all"] - of_cells, cell=of_cells / document["cells_per_field"], source=source)


def _of_e2e(document: Mapping[str, Any], source: str) -> dict[str, Cost]:
    """Of its first release, the shipped one. Stations of which it cannot tell cells from fields count a slide whole."""
    first, fields, slides = document["releases"][0], document["fields"]["count"], document["slides"]
    cells, service = first["crops"], first["service"]

    def spent(*names: str) -> float:
        return statistics.mean([sum(float(run[name]) for name in names) for run in service["cores_s"]])

    of_cells = statistics.mean(
        [sum(float(seconds) for stage, seconds in run.items() if stage in _OF_CELLS) for run in service["cpu_s"]]
    )
    found = {
        "worker": Cost(field=(spent("worker") - of_cells) / fields, cell=of_cells / cells, source=source),
        "postgres": Cost(slide=spent("postgres") / slides, source=source),
        "store": Cost(field=spent("s3") / fields, source=source),
        "control": Cost(slide=spent("control", "beat", "api", "redis") / slides, source=source),
    }
    if not document["machine"]["gpus"]:
        found["triton_cpu"] = Cost(cell=spent("triton") / cells, source=source)
    return found
