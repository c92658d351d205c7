"""A closed batch of two specimens under a trained release, whose lab has targets."""

from pathlib import Path

import pytest
import trustme

from services.database.models import ModelRelease
from services.database.session import transaction
from tests.integration.reporting.reporting_night import DOCUMENT, Night


@pytest.fixture(scope="session")
def ca() -> trustme.CA:
    """Who has issued the listeners' certificates."""
    return trustme.CA()


@pytest.fixture
def ca_file(ca: trustme.CA, tmp_path: Path) -> Path:
    """By which they are checked."""
    path = tmp_path / "ca.pem"
    ca.cert_pem.write_to_path(path)
    return path


@pytest.fixture
def finished(night: Night) -> Night:
    """Two specimens of one batch, analysed and not yet closed."""
    with transaction(night.engine) as session:
        session.add(ModelRelease(id="r2", kind="trained", document=DOCUMENT))
    night.slide(0, {"Normal": 8, "AmorfHead": 192}, release="r2", fields=1, outlines=False)
    night.slide(1, {"Normal": 9, "AmorfHead": 191}, specimen="S-02", release="r2", fields=1, outlines=False)
    return night
