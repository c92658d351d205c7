"""Audit events are written in one place."""

import re

from tests.places import CHECKOUT


def test_no_other_module_writes_an_audit_event() -> None:
    writing = re.compile(r"AuditEvent\(|into\s+audit_event|update\s+audit_event|delete\s+from\s+audit_event", re.I)
    modules = {
        path.relative_to(CHECKOUT).as_posix()
        for room in ("services", "worker")
        for path in (CHECKOUT / room).rglob("*.py")
        if writing.search(path.read_text().replace("class AuditEvent(", ""))
    }
    assert modules == {"services/database/audit.py"}, "use services.database.audit.record"
