"""What is made of the records of a finished run: the report, and exports for other programs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from ovseg.data.captions.sources import ImageReader, Source
from ovseg.mining.exports import export_coco, export_tsv, export_webdataset
from ovseg.mining.records import filter_records, read_records
from ovseg.mining.report import write_report
from ovseg.readers.documents import read_json, read_json_lines

__all__ = ["EXPORTS", "after_mining"]

EXPORTS = ("tsv", "colour-key", "webdataset", "coco")


def after_mining(
    output: Path,
    source: Source,
    *,
    report: bool,
    exports: Sequence[str],
    template: str = "{}",
    min_count: int | None = None,
    max_count: int | None = None,
) -> Iterator[Path]:
    """Write what is made from the records of a finished run.

    Args:
        output: the run's folder.
        source: where its pictures are.
        report: write report.html.
        exports: which of `EXPORTS` to write, into folders of these names.
        template: of the exported titles, with `{}` for the noun.
        min_count: fewest pairs of an exported noun.
        max_count: most pairs of an exported noun.

    Yields:
        The path of each result, once it is there.
    """
    if not report and not exports:
        return
    records, read = read_records(output), ImageReader(source.image_root)
    if report:
        summary = read_json(output / "summary.json")
        quarantine = list(read_json_lines(output / "quarantine.jsonl"))
        yield write_report(output, records, read, summary, quarantine=quarantine)
    chosen = filter_records(records, min_count=min_count, max_count=max_count)
    for kind in exports:
        folder = output / kind
        if kind == "coco":
            yield export_coco(chosen, folder / "instances.json")
        elif kind == "webdataset":
            yield export_webdataset(chosen, read, folder, template=template, progress=True)
        else:
            form = "mask" if kind == "tsv" else kind
            yield export_tsv(chosen, read, folder, form=form, template=template, progress=True)
