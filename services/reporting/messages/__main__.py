"""Makes the messages of a report: `python -m services.reporting.messages REPORT.json FOLDER [--lab-tests]`."""

import argparse
from pathlib import Path

from services.atomic import write_text
from services.reporting.messages.files import messages_of
from services.reporting.messages.results import specimen_results
from services.reporting.report import Report


def main() -> None:
    """Write `<specimen>.fhir.json` and `<specimen>.hl7` for each specimen whose result may go out."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("report", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--lab-tests", action="store_true", help="As of a lab that tests: whatever the release.")
    given = parser.parse_args()
    report = Report.model_validate_json(given.report.read_bytes())
    for result in specimen_results(report, lab_tests=given.lab_tests):
        for message in messages_of(result):
            write_text(given.folder / Path(message.file).name, message.content.decode())


if __name__ == "__main__":
    main()
