"""The HTML page of `morphbatch data check`."""

from pathlib import Path

from services.atomic import write_text
from triton_models.training.data.check import DataCheck
from triton_models.training.reports import pages

_SHOWN = 200


def write_check_page(check: DataCheck, path: Path) -> None:
    """Write what was found, with a sample of each class, as the page `path`."""
    parts = [pages.paragraph(f"{check.images} images, {len(check.classes)} classes, fingerprint {check.fingerprint}")]
    parts += [pages.paragraph(fault, "fault") for fault in check.faults] or [
        pages.paragraph("No faults found.", "good")
    ]
    parts += [pages.paragraph(remark, "remark") for remark in check.remarks]

    splits = sorted({split for counts in check.counts.values() for split in counts})
    parts.append(pages.heading("Classes"))
    parts.append(
        pages.table(
            ("class", "spelling in the data", *splits, "all"),
            [
                (name, ", ".join(check.spellings[name]), *(n.get(s, 0) for s in splits), sum(n.values()))
                for name, n in check.counts.items()
            ],
        )
    )
    parts += [pages.pictures(check.samples[name], name) for name in check.classes if len(check.samples[name])]
    if check.unreadable:
        parts.append(pages.heading("Unreadable files"))
        parts.append(pages.table(("file", "why"), list(check.unreadable.items())[:_SHOWN]))
    if check.leaked_specimens:
        parts.append(pages.heading("Specimens in several splits"))
        rows = [(specimen, ", ".join(names)) for specimen, names in check.leaked_specimens.items()]
        parts.append(pages.table(("specimen", "splits"), rows[:_SHOWN]))
    if check.twins:
        parts.append(pages.heading("Images that occur twice"))
        twins = sorted(check.twins, key=lambda twin: (not twin.leaks, not twin.contradicts, -twin.likeness))
        found = [
            (
                twin.first,
                twin.second,
                float(twin.likeness),
                "same bytes" if twin.exact else "re-encoded, resized, turned or mirrored",
                "in different splits" if twin.leaks else "",
                " ≠ ".join(twin.labels) if twin.contradicts else "",
            )
            for twin in twins[:_SHOWN]
        ]
        parts.append(pages.table(("first", "second", "likeness", "how", "split", "labels"), found))
        if len(twins) > _SHOWN:
            parts.append(pages.paragraph(f"… and {len(twins) - _SHOWN} more; --json lists all."))
    write_text(path, pages.page(f"Data check: {check.root.name}", parts))
