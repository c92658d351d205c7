"""What happened to batches, slides and releases, and by whom: written here, within the transaction in which it does."""

from enum import StrEnum

from sqlalchemy.orm import Session

from services.database.models import AuditEvent


class AuditKind(StrEnum):
    """What an event says, with the keys of its `detail`."""

    BATCH_REGISTERED = "batch_registered"  # slides, fields, urgent, manifest_sha256
    MANIFEST_REJECTED = "manifest_rejected"  # problems, reasons
    MANIFEST_REFUSED = "manifest_refused"  # etag, manifest_sha256, registered_sha256
    SLIDE_QUARANTINED = "slide_quarantined"  # slide, reason, detail
    SLIDES_REQUEUED = "slides_requeued"  # slides, by, why
    SLIDES_MOVED_TO_RELEASE = "slides_moved_to_release"  # release, slides
    SLIDES_FUSED_ANEW = "slides_fused_anew"  # release, by, slides, cells
    BATCH_VOIDED = "batch_voided"  # by, why
    BATCH_RESTORED = "batch_restored"  # by, why
    LAB_PAUSED = "lab_paused"  # lab, by, why
    LAB_RESUMED = "lab_resumed"  # lab, by, why
    WINDOW_SET = "window_set"  # lab, window, before, by
    BATCH_PAUSED = "batch_paused"  # by, why
    BATCH_RESUMED = "batch_resumed"  # by, why
    BATCH_CANCELLED = "batch_cancelled"  # by, why, slides
    BATCH_CLOSED = "batch_closed"  # state, revision, issued_at, replaces, reason
    TIME_ZONE_SET = "time_zone_set"  # lab, time_zone, before, by
    LAB_TESTS_SET = "lab_tests_set"  # lab, tests, by
    BATCH_SUBMITTED = "batch_submitted"  # by, fields: its manifest was written over HTTP
    RESULTS_READ = "results_read"  # by, file: over HTTP
    LAB_ADDED = "lab_added"  # lab, by
    TOKEN_ISSUED = "token_issued"  # lab, token, scopes, expires_at, replaces, by  # noqa: S105 - a kind of event
    TOKEN_REVOKED = "token_revoked"  # lab, token, by  # noqa: S105
    DELIVERY_TARGET_SET = "delivery_target_set"  # lab, to, address, active, by
    DELIVERY_STOPPED = "delivery_stopped"  # delivery, lab, to, file, revision, reason
    DELIVERIES_RESENT = "deliveries_resent"  # deliveries, by
    DELIVERIES_DROPPED = "deliveries_dropped"  # deliveries, by, why
    RELEASE_ACTIVATED = "release_activated"  # release, before, by, form


def record(session: Session, kind: AuditKind, *, batch_key: int | None = None, **detail: object) -> None:
    """Add an event, about a batch unless it concerns none; `detail` are JSON values, and never a person's data."""
    session.add(AuditEvent(kind=kind.value, batch_key=batch_key, detail=detail))
