"""`morphbatch report`: the results of a batch at any time, and its files once it is closed."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from services.cli.console import err, out, print_json
from services.cli.options import BatchArgument, JsonOption, LabOption

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table

    from services.reporting.report import Report, SpecimenReport
    from services.storage import ObjectStore
    from services.taxonomy import Language

commands = typer.Typer()

_MOST_BYTES = 4 * 2**30
_REASONS = {
    "cut_by_border": "cells cut by the field's border",
    "isolated_head": "heads without a tail",
    "not_a_sperm": "no sperm cells",
}
_MOST_SPECIMENS = 8  # as many as a terminal is wide; the files have them all


@commands.command()
def report(
    batch: BatchArgument,
    lab: LabOption = None,
    as_json: JsonOption = False,
    folder: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Also download the files of results/ into DIR.")
    ] = None,
) -> None:
    """Show the results of a batch. They are read from the database, so also while it is being analysed."""
    from services.batches.progress import find_batch
    from services.database.session import make_engine, transaction
    from services.reporting.reading import read_report
    from services.settings import load_settings
    from services.storage import connect_store

    settings = load_settings()
    engine = make_engine(settings.database_url)
    batch_key = find_batch(engine, batch, lab)
    with transaction(engine) as session:
        found = read_report(session, batch_key)
    engine.dispose()
    if as_json:
        print_json(found.model_dump(mode="json"))
    else:
        _show(found, settings.language)
    if folder is not None:
        names = download(connect_store(settings), found.lab, found.batch_id, folder)
        err.print(f"{len(names)} files of {found.lab}/{found.batch_id} are in {folder}", soft_wrap=True)


def download(store: "ObjectStore", lab: str, batch: str, folder: Path) -> list[str]:
    """Copy the batch's results into `folder`; report.json last, as in the store. Returns the names.

    Earlier revisions stay in the store.

    Raises:
        PermanentError: the store has no complete results of the batch (yet).
        OSError: the folder cannot be written.
    """
    from services.atomic import whole_file
    from services.errors import PermanentError
    from services.keys import REPORT_NAME, report_key, results_prefix, revisions_prefix

    prefix = results_prefix(lab, batch)
    if store.stat(report_key(lab, batch)) is None:
        raise PermanentError(
            f"there are no files of {lab}/{batch} yet: they are written after its last slide has ended"
        )
    earlier = revisions_prefix(lab, batch)
    keys = {k.key.removeprefix(prefix): k.key for k in store.list(prefix) if not k.key.startswith(earlier)}
    names = sorted(keys, key=lambda name: (name == REPORT_NAME, name))
    for name in names:
        target = folder.joinpath(*name.split("/"))
        if not target.resolve().is_relative_to(folder.resolve()):
            raise PermanentError(f"the object {keys[name]} would be written outside of {folder}")
        with whole_file(target) as draft:
            draft.write_bytes(store.get(keys[name], max_bytes=_MOST_BYTES))
    return names


def _show(report: "Report", language: "Language") -> None:
    from rich.markup import escape

    from services.releases.fusion import weight_text

    if report.warning:
        out.print(f"[bold black on yellow] {report.warning} [/]")
    out.print(f"[bold]{report.lab}/{report.batch_id}[/]  [bold]{report.state}[/]", highlight=False)
    if report.revision is not None:
        instead = f", instead of revision {report.replaces}: {escape(report.reason or '')}" if report.replaces else ""
        out.print(f"revision {report.revision} of {report.issued_at:%Y-%m-%d %H:%M} UTC{instead}", highlight=False)
    out.print(f"received in the night of {report.night} ({report.time_zone})", highlight=False)
    if release := report.release:
        weight = "–" if release.fusion_weight is None else weight_text(release.fusion_weight)
        out.print(f"release {release.id} ({release.kind}), fusion weight of EfficientNetV2-S {weight}", highlight=False)
    summary = report.summary
    out.print(
        f"{summary.cells} cells counted in {summary.fields_used} of {summary.fields} fields;"
        f" {summary.on_border} heads cut by the border, {summary.objects_rejected} other objects left out",
        highlight=False,
    )
    for reason, cells in summary.not_counted_by_reason.items():
        out.print(f"{_REASONS[reason]}: {cells}, not counted", highlight=False)
    out.print(_slides(report))
    if any(slide.corrected for slide in report.slides):
        out.print(
            "[dim]The interval of the count holds the counting alone. Corrected: the likeliest share given the"
            " networks' known errors; its interval holds both.[/]"
        )
    out.print(f"[dim]WHO manual, 6th edition, normal forms: {report.reference.meaning}. Not a diagnosis.[/]")
    if report.specimens:
        out.print(_classes(report.specimens[:_MOST_SPECIMENS], language))
    for specimen in report.specimens:
        out.print(_specimen_line(specimen), highlight=False)
    for slide in report.slides:
        if later := slide.later:
            what = f": {later.reason}: {escape(later.detail or '')}" if later.reason else ""
            out.print(f"[yellow]{slide.slide_id}[/] version {later.version} is {later.state}{what}", highlight=False)
        if slide.reason:
            what = escape(slide.detail or "")
            out.print(f"[red]{slide.slide_id}[/] {slide.state}: {slide.reason}: {what}", highlight=False)
    for shared in report.shared_fields:
        out.print(f"[yellow]same images[/] {escape(shared.text)}", highlight=False)
    for problem in report.problems:
        out.print(f"[red]rejected[/] {escape(problem.path)}: {escape(problem.message)}")


def _slides(report: "Report") -> "Table":
    from rich.table import Table

    columns = (
        *("slide", "specimen", "state", "cells", "not counted", "normal forms", "95 % of the count", "corrected"),
        *("confident", "flags"),
    )
    table = Table(*columns, box=None, header_style="bold")
    for slide in report.slides:
        normal, corrected, confidence = slide.normal_forms, slide.corrected, slide.confidence
        likeliest = None if corrected is None else corrected.normal_forms
        table.add_row(
            slide.slide_id,
            f"{slide.specimen} ({slide.replicate})",
            f"[red]{slide.state}[/]" if slide.state == "quarantined" else slide.state,
            str(slide.cells),
            str(slide.cells_not_counted),
            f"{normal.one_decimal} %" if normal else "–",
            f"{normal.low_pct:.1f}–{normal.high_pct:.1f} %" if normal else "–",
            f"{likeliest.pct:.1f} % ({likeliest.low_pct:.1f}–{likeliest.high_pct:.1f})" if likeliest else "–",
            f"{100 - confidence.low_share_pct:.0f} %" if confidence else "–",
            " ".join(slide.quality_flags),
        )
    return table


def _classes(specimens: "Sequence[SpecimenReport]", language: "Language") -> "Table":
    """The share of each class in each specimen; none where its replicates are not joined."""
    from rich.table import Table

    from services.taxonomy import CLASSES

    table = Table("primary defect, %", *(s.specimen for s in specimens), box=None, header_style="bold")
    for known in CLASSES:
        shares = (s.distribution[known.index].one_decimal if s.distribution else "–" for s in specimens)
        table.add_row(known.display(language), *shares)
    return table


def _specimen_line(specimen: "SpecimenReport") -> str:
    found = specimen.agreement
    normal = specimen.normal_forms
    if found.assessed:
        word = "[green]agree[/]" if found.replicates_agree else "[yellow]differ[/]"
        limit = (
            f"{found.acceptable_points:.1f} are acceptable"
            if found.p_value is None
            else f"p = {found.p_value:.3f} at α = {found.alpha:g}"
        )
        verdict = f"replicates {word}: {found.difference_points:.1f} points apart, {limit} ({found.method})"
        verdict += f"; {found.advice}" if found.advice else ""
    else:
        verdict = f"replicates not compared: {found.detail}"
    joined = normal.text if normal else "not joined" if specimen.cells else "no cells"
    flags = f" [dim]{' '.join(specimen.quality_flags)}[/]" if specimen.quality_flags else ""
    return f"specimen {specimen.specimen}: {joined}; {verdict}{flags}"
