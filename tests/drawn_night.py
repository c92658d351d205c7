"""A drawn night with known truth, uploaded as a LIMS does, and what the database must say of it in the end."""

import json
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, text

from services.storage import ObjectStore
from tests.waiting import wait_until

Box = tuple[int, int, int, int]


@dataclass(slots=True)
class Night:
    """One batch. Its manifest gives the true boxes, so that every cell has one right row."""

    engine: Engine
    store: ObjectStore
    folder: Path
    lab: str
    batch: str
    truth: dict[tuple[str, str], list[Box]] = field(default_factory=dict)

    def upload(self, store: ObjectStore | None = None) -> None:
        """Fields first, the manifest last."""
        store = store or self.store
        manifest: dict[str, Any] = json.loads((self.folder / "manifest.json").read_text())
        cells = {}
        for line in (self.folder / "truth.jsonl").read_text().splitlines():
            drawn = json.loads(line)
            whole = [cell["head_box"] for cell in drawn["cells"] if cell["whole"]]
            cells[drawn["image"]] = [inside(box, drawn["width"], drawn["height"]) for box in whole]
        for slide in manifest["slides"]:
            for given in slide["fields"]:
                given["cells"] = [{"box": box} for box in cells[given["key"]]]
                self.truth[slide["slide_id"], given["key"]] = sorted(tuple(box) for box in cells[given["key"]])
                store.put_file(f"incoming/{self.lab}/{self.batch}/{given['key']}", self.folder / given["key"])
        store.put(f"incoming/{self.lab}/{self.batch}/manifest.json", json.dumps(manifest).encode(), "application/json")

    def state(self) -> str | None:
        """The batch's state; `None` before it is taken in."""
        return self._scalar(
            "select b.state from batch b join lab on lab.id = lab_id where code = :lab and batch_code = :b"
        )

    def slides(self, *states: str) -> int:
        """How many of its slides are in these states."""
        return self._scalar(
            "select count(*) from analysis a join slide s on s.id = slide_id join batch b on b.id = batch_id"
            " join lab on lab.id = lab_id where code = :lab and batch_code = :b and a.state = any(:states)",
            states=list(states),
        )

    def analysis_ids(self) -> list[int]:
        """Of each slide the one that counts."""
        return self._scalar(
            "select coalesce(array_agg(a.analysis_id), '{}') from reporting.current_analysis a"
            " join slide s on s.id = a.slide_key"
            " join batch b on b.id = batch_id join lab on lab.id = lab_id where code = :lab and batch_code = :b"
        )

    def at_work(self) -> dict[int, datetime]:
        """The analyses that run, and when their attempt began."""
        return dict(self._rows("a.id, a.started_at", "a.state = 'running'"))

    def begun(self) -> dict[int, datetime]:
        """When the latest attempt at each slide began."""
        return dict(self._rows("a.id, a.started_at", "a.started_at is not null"))

    def attempts(self) -> dict[int, int]:
        """Counted attempts at each slide."""
        return dict(self._rows("a.id, a.attempts", "true"))

    def finish(self, seconds: float = 240, *, every_s: float = 0.02) -> None:
        """Wait for its end and check that it is complete, with every cell of the truth once."""
        ended = f"{self.batch} closed"
        wait_until(lambda: self.state() not in (None, "received", "analysing"), seconds, ended, every_s=every_s)
        assert self.state() == "complete"
        with self.engine.connect() as connection:
            rows = connection.execute(
                text(
                    "select s.slide_code, f.key, array_agg(array[x0, y0, x1, y1] order by x0, y0, x1, y1) from cell c"
                    " join reporting.current_analysis a using (analysis_id) join slide s on s.id = a.slide_key"
                    " join field f on f.id = field_id join batch b on b.id = s.batch_id join lab on lab.id = lab_id"
                    " where code = :lab and batch_code = :b group by 1, 2"
                ),
                {"lab": self.lab, "b": self.batch},
            )
            found = {(slide, key): [tuple(box) for box in boxes] for slide, key, boxes in rows}
            counted = connection.execute(
                text(
                    "select coalesce(sum(n.cells), 0) from slide_class_count n"
                    " join reporting.current_analysis a using (analysis_id) join slide s on s.id = a.slide_key"
                    " join batch b on b.id = batch_id join lab on lab.id = lab_id where code = :lab and batch_code = :b"
                ),
                {"lab": self.lab, "b": self.batch},
            ).scalar_one()
        assert found == {where: boxes for where, boxes in self.truth.items() if boxes}
        report = json.loads(self.store.get(f"results/{self.lab}/{self.batch}/report.json", max_bytes=10**8))
        assert report["state"] == "complete"
        assert sum(slide["cells"] for slide in report["slides"]) == counted
        assert counted + report["summary"]["cells_not_counted"] == sum(map(len, self.truth.values()))

    def _rows(self, columns: str, condition: str) -> list[Any]:
        with self.engine.connect() as connection:
            query = (
                f"select {columns} from analysis a join slide s on s.id = slide_id join batch b on b.id = batch_id"
                f" join lab on lab.id = lab_id where code = :lab and batch_code = :b and {condition}"
            )
            return [tuple(row) for row in connection.execute(text(query), {"lab": self.lab, "b": self.batch})]

    def _scalar(self, query: str, **values: Any) -> Any:
        with self.engine.connect() as connection:
            return connection.execute(text(query), {"lab": self.lab, "b": self.batch, **values}).scalar_one_or_none()


def inside(box: list[float], width: int, height: int) -> list[int]:
    """The box in whole pixels of the field."""
    x0, y0, x1, y1 = box
    return [max(0, int(x0)), max(0, int(y0)), min(width, int(x1) + 1), min(height, int(y1) + 1)]


def with_own_manifest(drawn: Path, folder: Path, lab: str, batch: str) -> Path:
    """The drawn fields again in `folder`, as a batch of that lab."""
    folder.mkdir()
    for child in drawn.iterdir():
        if child.name != "manifest.json":
            (folder / child.name).symlink_to(child)
    manifest = json.loads((drawn / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, "lab": lab, "batch_id": batch}))
    return folder
