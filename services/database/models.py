"""The tables. Comments here become the tables' comments in Postgres.

`batch_id` and `slide_id` are what the manifest calls a batch or slide, `batch_key` and `slide_key` the number of its
row: everywhere but in the columns of these tables, whose names are older.
"""

from collections.abc import Iterable
from datetime import date, datetime, time
from typing import Any

from sqlalchemy import (
    ARRAY,
    REAL,
    CheckConstraint,
    Date,
    DateTime,
    ForeignKey,
    Identity,
    Index,
    LargeBinary,
    MetaData,
    SmallInteger,
    Text,
    Time,
    UniqueConstraint,
    func,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from services.database.states import BatchState, DeliveryState, SlideState


class Base(DeclarativeBase):
    """Maps `datetime` to timestamptz and `dict` to jsonb; names every constraint, so that migrations can."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {  # noqa: RUF012 - read by SQLAlchemy on the class
        datetime: DateTime(timezone=True),
        dict[str, Any]: JSONB,
        list[dict[str, Any]]: JSONB,
    }


def _one_of(column: str, states: Iterable[str]) -> CheckConstraint:
    return CheckConstraint(f"{column} in ({', '.join(repr(str(s)) for s in states)})", name=f"{column}_known")


class Lab(Base):
    """A clinic's laboratory: the first folder under incoming/."""

    __tablename__ = "lab"
    __table_args__ = (
        CheckConstraint(
            "(window_opens is null) = (window_closes is null) and window_opens <> window_closes", name="window_whole"
        ),
    )

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    code: Mapped[str] = mapped_column(unique=True)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    time_zone: Mapped[str] = mapped_column(
        server_default="UTC", comment="IANA name of the zone by whose clock its days begin"
    )
    tests: Mapped[bool] = mapped_column(
        server_default="false", comment="It tests: results of any release go out to its LIMS, marked as test data"
    )
    window_opens: Mapped[time | None] = mapped_column(
        Time, comment="By the lab's clock: from then its slides may be started; null: at any time"
    )
    window_closes: Mapped[time | None] = mapped_column(Time, comment="From then on no more; may be after midnight")
    paused_at: Mapped[datetime | None] = mapped_column(comment="Since then none of its slides is started; null: it is")
    paused_by: Mapped[str | None]
    pause_why: Mapped[str | None] = mapped_column(comment="Why it was paused")


class ApiToken(Base):
    """What a lab's program shows to the HTTP service. Of its secret only a hash is kept."""

    __tablename__ = "api_token"
    __table_args__ = (
        CheckConstraint(
            "cardinality(scopes) > 0 and scopes <@ array['upload', 'read', 'review', 'administer']",
            name="scopes_known",
        ),
    )

    id: Mapped[str] = mapped_column(primary_key=True, comment="The part of the token that is no secret")
    lab_id: Mapped[int] = mapped_column(ForeignKey("lab.id"), index=True)
    name: Mapped[str] = mapped_column(comment="Whose it is: a program or a place, never a person")
    scopes: Mapped[list[str]] = mapped_column(ARRAY(Text))
    secret_hash: Mapped[str] = mapped_column(comment="argon2id of the secret")
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    created_by: Mapped[str]
    expires_at: Mapped[datetime]
    revoked_at: Mapped[datetime | None]
    revoked_by: Mapped[str | None]
    replaces: Mapped[str | None] = mapped_column(ForeignKey("api_token.id"), comment="Token that it was rotated from")


class Batch(Base):
    """A night's upload of one lab, as its manifest says."""

    __tablename__ = "batch"
    __table_args__ = (
        UniqueConstraint("lab_id", "batch_code"),
        _one_of("state", BatchState),
        Index("ix_batch_open", "id", postgresql_where="state = 'analysing'"),
        Index("ix_batch_lab_id_id", "lab_id", "id"),
    )

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    lab_id: Mapped[int] = mapped_column(ForeignKey("lab.id"))
    batch_id: Mapped[str] = mapped_column("batch_code", comment="batch_id of the manifest")
    state: Mapped[str]
    manifest_sha256: Mapped[str]
    manifest_etag: Mapped[str] = mapped_column(comment="ETag of the manifest object; the sweep skips what it has seen")
    problems: Mapped[list[dict[str, Any]]] = mapped_column(
        server_default="[]", comment="Why it was rejected: [{path, reason, message}]"
    )
    received_on: Mapped[date] = mapped_column(Date, comment="Day of receipt, UTC; its month is the cells' partition")
    received_at: Mapped[datetime] = mapped_column(server_default=func.now(), index=True)
    close_at: Mapped[datetime | None] = mapped_column(
        comment="When no slide is open, the sweep publishes its closing (again) once this has passed"
    )
    closed_at: Mapped[datetime | None]
    voided_at: Mapped[datetime | None] = mapped_column(comment="Since then nothing of it counts; null: it counts")
    voided_by: Mapped[str | None]
    void_why: Mapped[str | None] = mapped_column(comment="Why it was voided")
    urgent: Mapped[bool] = mapped_column(server_default="false", comment="Passes others that wait, at any time of day")
    paused_at: Mapped[datetime | None] = mapped_column(comment="Since then none of its slides is started; null: it is")
    paused_by: Mapped[str | None]
    pause_why: Mapped[str | None] = mapped_column(comment="Why it was paused")
    cancelled_at: Mapped[datetime | None] = mapped_column(comment="Since then no slide of it is started, for good")
    cancelled_by: Mapped[str | None]
    cancel_why: Mapped[str | None] = mapped_column(comment="Why it was cancelled")

    lab: Mapped[Lab] = relationship()
    slides: Mapped[list["Slide"]] = relationship(back_populates="batch", order_by="Slide.position")


class Submission(Base):
    """A batch that a lab announced over HTTP, until its manifest lies in the store and for some days after."""

    __tablename__ = "submission"

    lab_id: Mapped[int] = mapped_column(ForeignKey("lab.id"), primary_key=True)
    batch_id: Mapped[str] = mapped_column("batch_code", primary_key=True, comment="batch_id of the manifest")
    manifest: Mapped[dict[str, Any]] = mapped_column(comment="The manifest that is written when it is committed")
    sizes: Mapped[dict[str, int]] = mapped_column(JSONB, comment="Bytes of each field by its key")
    created_by: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    committed_at: Mapped[datetime | None] = mapped_column(comment="When the manifest was written; null: it is not yet")


class ApiRequest(Base):
    """A change asked for over HTTP under an idempotency key, and its answer, so that a repeat changes nothing more."""

    __tablename__ = "api_request"

    lab_id: Mapped[int] = mapped_column(ForeignKey("lab.id"), primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    fingerprint: Mapped[str] = mapped_column(comment="SHA-256 of what was asked")
    status: Mapped[int | None] = mapped_column(SmallInteger, comment="Of the answer; null: it is being answered")
    answer: Mapped[dict[str, Any] | None] = mapped_column(JSONB(none_as_null=True))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Slide(Base):
    """One stained smear of a specimen."""

    __tablename__ = "slide"
    __table_args__ = (
        UniqueConstraint("batch_id", "slide_code"),
        CheckConstraint("replicate in (1, 2)", name="replicate_1_or_2"),
        CheckConstraint("um_per_px > 0", name="um_per_px_positive"),
    )

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    batch_key: Mapped[int] = mapped_column("batch_id", ForeignKey("batch.id"))
    position: Mapped[int] = mapped_column(comment="Order in the manifest, from 0")
    slide_id: Mapped[str] = mapped_column("slide_code", comment="slide_id of the manifest")
    specimen: Mapped[str] = mapped_column(index=True, comment="Pseudonym of the specimen; never a person's data")
    replicate: Mapped[int] = mapped_column(SmallInteger)
    stain: Mapped[str]
    um_per_px: Mapped[float] = mapped_column(comment="Micrometres per pixel of its fields")
    collected_at: Mapped[datetime | None] = mapped_column(
        comment="When the specimen was collected, as the manifest says; null: it does not"
    )
    order_number: Mapped[str | None] = mapped_column(comment="Number of the order that its result answers")
    accession_number: Mapped[str | None] = mapped_column(comment="Number under which the lab took the specimen in")
    sample_type: Mapped[str | None] = mapped_column(comment="Code of what the specimen is; null: not said")
    stain_lot: Mapped[str | None] = mapped_column(comment="Lot of the stain")

    batch: Mapped[Batch] = relationship(back_populates="slides")
    fields: Mapped[list["FieldRow"]] = relationship(back_populates="slide", order_by="FieldRow.position")


class FieldRow(Base):
    """One image of a slide: a microscope field, or a crop of one cell."""

    __tablename__ = "field"
    __table_args__ = (
        UniqueConstraint("slide_id", "position"),
        CheckConstraint("kind in ('field', 'crop')", name="kind_known"),
        Index("ix_field_sha256", "sha256"),
    )

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    slide_key: Mapped[int] = mapped_column("slide_id", ForeignKey("slide.id"))
    position: Mapped[int] = mapped_column(comment="Order in the manifest, from 0")
    key: Mapped[str] = mapped_column(comment="Object key, relative to the batch's prefix")
    sha256: Mapped[str]
    kind: Mapped[str] = mapped_column(server_default="field")
    given_cells: Mapped[list[dict[str, Any]] | None] = mapped_column(
        JSONB(none_as_null=True),
        comment="Cells the manifest gave, used as given: [{box: [x0, y0, x1, y1]}]",
    )

    slide: Mapped[Slide] = relationship(back_populates="fields")


class ModelRelease(Base):
    """An immutable release of the networks and their fusion."""

    __tablename__ = "model_release"
    __table_args__ = (
        CheckConstraint("kind in ('untrained', 'demonstration', 'trained')", name="kind_known"),
        Index("uq_model_release_active", "active", unique=True, postgresql_where="active"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    kind: Mapped[str]
    active: Mapped[bool] = mapped_column(server_default="false", comment="New slides are analysed under the active one")
    document: Mapped[dict[str, Any]] = mapped_column(comment="release.json")
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Analysis(Base):
    """A version of a slide's analysis: its state, attempts, lease, timings and counts. One that has ended stays."""

    __tablename__ = "analysis"
    __table_args__ = (
        UniqueConstraint("slide_id", "version"),
        _one_of("state", SlideState),
        Index("uq_analysis_slide_id_open", "slide_id", unique=True, postgresql_where="state in ('queued', 'running')"),
        Index("ix_analysis_open", "state", "lease_until", postgresql_where="state in ('queued', 'running')"),
    )

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    slide_key: Mapped[int] = mapped_column("slide_id", ForeignKey("slide.id"))
    release_id: Mapped[str] = mapped_column(ForeignKey("model_release.id"))
    state: Mapped[str] = mapped_column(server_default=SlideState.QUEUED)
    attempts: Mapped[int] = mapped_column(server_default="0")
    lease_token: Mapped[str | None] = mapped_column(
        comment="The attempt that holds the slide; a lost lease writes nothing"
    )
    lease_until: Mapped[datetime | None]
    publish_at: Mapped[datetime] = mapped_column(
        server_default=func.now(), comment="While queued, it is not started before"
    )
    queued_at: Mapped[datetime] = mapped_column(server_default=func.now(), comment="When it was asked for")
    started_at: Mapped[datetime | None] = mapped_column(index=True)
    finished_at: Mapped[datetime | None]
    reason: Mapped[str | None] = mapped_column(comment="Code of why it is quarantined or was last retried")
    detail: Mapped[str | None] = mapped_column(comment="The same for people")
    cells_classified: Mapped[int] = mapped_column(server_default="0", comment="Classified cells that count")
    cells_on_border: Mapped[int] = mapped_column(server_default="0", comment="Heads cut by the border: not classified")
    objects_rejected: Mapped[int] = mapped_column(server_default="0", comment="Debris and other objects left out")
    timings: Mapped[dict[str, Any]] = mapped_column(server_default="{}", comment="Seconds by stage")
    fused_from: Mapped[int | None] = mapped_column(
        ForeignKey("analysis.id"), comment="The analysis whose logits were fused again; null: the networks ran"
    )
    version: Mapped[int] = mapped_column(
        server_default="1", comment="From 1 within the slide; the latest with a result counts"
    )
    asked_by: Mapped[str | None] = mapped_column(comment="Who asked for it; null: it came with the batch")
    why: Mapped[str | None] = mapped_column(comment="Why it was asked for")
    made_with: Mapped[dict[str, Any] | None] = mapped_column(
        JSONB(none_as_null=True),
        comment="What it was made with: {software, detector, form, settings}; null: it has not ended, or is older",
    )
    not_counted_by_reason: Mapped[dict[str, int]] = mapped_column(
        JSONB, server_default="{}", comment="Cells that were classified and do not count, by reason: {reason: cells}"
    )

    slide: Mapped[Slide] = relationship()
    release: Mapped[ModelRelease] = relationship()
    field_results: Mapped[list["FieldResult"]] = relationship(order_by="FieldResult.field_id")


class FieldResult(Base):
    """What an analysis found of one field: its quality, its counts, why it was set aside."""

    __tablename__ = "field_result"

    analysis_id: Mapped[int] = mapped_column(ForeignKey("analysis.id", ondelete="CASCADE"), primary_key=True)
    field_id: Mapped[int] = mapped_column(ForeignKey("field.id"), primary_key=True)
    width_px: Mapped[int | None]
    height_px: Mapped[int | None]
    cells: Mapped[int] = mapped_column(server_default="0")
    on_border: Mapped[int] = mapped_column(server_default="0")
    reason: Mapped[str | None] = mapped_column(comment="Code of why the field could not be used; null: it was used")
    detail: Mapped[str | None]
    quality: Mapped[dict[str, Any]] = mapped_column(server_default="{}", comment="Measures with units, flags and notes")
    rejected: Mapped[list[dict[str, Any]]] = mapped_column(
        server_default="[]", comment="Objects that are not a whole head: [{box, reason}]"
    )
    signature: Mapped[bytes | None] = mapped_column(
        LargeBinary, comment="What it shows, to be told again in another file; null: too little, or older"
    )


class SamePicture(Base):
    """A field that shows the same as one of another slide of its batch. Found when the batch is closed."""

    __tablename__ = "same_picture"

    field_id: Mapped[int] = mapped_column(ForeignKey("field.id"), primary_key=True)
    first_field_id: Mapped[int] = mapped_column(
        ForeignKey("field.id"), index=True, comment="The first of the batch that shows it, itself among them"
    )


class Cell(Base):
    """One classified sperm cell. Partitioned by month of receipt; arrays follow the class index order."""

    __tablename__ = "cell"
    __table_args__ = (
        CheckConstraint("array_length(probabilities, 1) = 18", name="probabilities_18"),
        {"postgresql_partition_by": "RANGE (received_on)"},
    )

    received_on: Mapped[date] = mapped_column(
        Date, primary_key=True, comment="The batch's; so a redelivery lands here again"
    )
    analysis_id: Mapped[int] = mapped_column(ForeignKey("analysis.id"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, comment="From 1, in order of field, then y, then x")
    field_id: Mapped[int] = mapped_column(ForeignKey("field.id"))
    x0: Mapped[int] = mapped_column(comment="Head box, pixels of the field, left; x1 and y1 are exclusive")
    y0: Mapped[int]
    x1: Mapped[int]
    y1: Mapped[int]
    class_index: Mapped[int] = mapped_column(SmallInteger, comment="Class of the largest fused probability")
    confidence: Mapped[float] = mapped_column(REAL, comment="Largest fused probability")
    probabilities: Mapped[list[float]] = mapped_column(ARRAY(REAL))
    efficientnetv2_s_logits: Mapped[list[float]] = mapped_column(ARRAY(REAL))
    resnetv2_50_logits: Mapped[list[float]] = mapped_column(ARRAY(REAL))
    head_outline: Mapped[bytes | None] = mapped_column(
        LargeBinary, comment="Outline polygon: little-endian uint16 x, y pairs, pixels of the field"
    )
    head_length_um: Mapped[float | None] = mapped_column(REAL, comment="Long side of the minimum-area rectangle, µm")
    head_width_um: Mapped[float | None] = mapped_column(REAL, comment="Short side of the minimum-area rectangle, µm")
    head_area_um2: Mapped[float | None] = mapped_column(REAL, comment="Area of the head, µm²")
    head_perimeter_um: Mapped[float | None] = mapped_column(REAL, comment="Perimeter of the head, µm")
    ellipticity: Mapped[float | None] = mapped_column(REAL, comment="Length ÷ width")
    elongation: Mapped[float | None] = mapped_column(REAL, comment="(length - width) ÷ (length + width)")
    roughness: Mapped[float | None] = mapped_column(REAL, comment="4π·area ÷ perimeter²")
    regularity: Mapped[float | None] = mapped_column(REAL, comment="π·length·width ÷ (4·area)")
    acrosome_share: Mapped[float | None] = mapped_column(REAL, comment="Acrosome area ÷ head area, 0 to 1")
    vacuole_share: Mapped[float | None] = mapped_column(REAL, comment="Vacuole area ÷ head area, 0 to 1")
    midpiece_width_um: Mapped[float | None] = mapped_column(REAL, comment="Width of the midpiece at its insertion, µm")
    midpiece_angle_deg: Mapped[float | None] = mapped_column(
        REAL, comment="Angle between midpiece and long axis of the head, degrees, 0 to 90"
    )
    crop_inside_share: Mapped[float | None] = mapped_column(
        REAL, comment="How much of its crop lies in the field, 0 to 1; null: an image of one cell, or older"
    )
    not_counted: Mapped[str | None] = mapped_column(comment="Code of why it is not counted; null: it counts")


class SlideClassCount(Base):
    """Roll-up: cells of a class that count in an analysis. Written with the cells, in one transaction."""

    __tablename__ = "slide_class_count"

    analysis_id: Mapped[int] = mapped_column(ForeignKey("analysis.id", ondelete="CASCADE"), primary_key=True)
    class_index: Mapped[int] = mapped_column(SmallInteger, primary_key=True)
    cells: Mapped[int]


class Review(Base):
    """A person's label of a cell, beside the machine's and never over it."""

    __tablename__ = "review"
    __table_args__ = (UniqueConstraint("analysis_id", "number", "reviewer"),)

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    analysis_id: Mapped[int] = mapped_column(ForeignKey("analysis.id"))
    number: Mapped[int]
    reviewer: Mapped[str]
    class_index: Mapped[int] = mapped_column(SmallInteger)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class AuditEvent(Base):
    """What happened to a batch or slide, by whom. Only ever added to."""

    __tablename__ = "audit_event"

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    at: Mapped[datetime] = mapped_column(server_default=func.now())
    kind: Mapped[str]
    batch_key: Mapped[int | None] = mapped_column("batch_id", ForeignKey("batch.id"), index=True)
    slide_key: Mapped[int | None] = mapped_column("slide_id", ForeignKey("slide.id"))
    detail: Mapped[dict[str, Any]] = mapped_column(server_default="{}")


class DeliveryTarget(Base):
    """Where the results of a lab are delivered to, as an operator has set it."""

    __tablename__ = "delivery_target"
    __table_args__ = (
        UniqueConstraint("lab_id", "kind", "address"),
        CheckConstraint("kind in ('webhook', 'mllp', 'fhir')", name="kind_known"),
    )

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    lab_id: Mapped[int] = mapped_column(ForeignKey("lab.id"))
    kind: Mapped[str]
    address: Mapped[str] = mapped_column(comment="URL; of MLLP host:port")
    secret: Mapped[str | None] = mapped_column(comment="Signs webhooks; bearer token of FHIR")
    ca_file: Mapped[str | None] = mapped_column(comment="Certificates that its own is checked by; null: the system's")
    certificate_file: Mapped[str | None] = mapped_column(comment="Our certificate, where it asks for one")
    key_file: Mapped[str | None] = mapped_column(comment="Key of our certificate")
    active: Mapped[bool] = mapped_column(server_default="true", comment="New reports are delivered to it")
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())

    lab: Mapped[Lab] = relationship()


class Delivery(Base):
    """One message to one target: of a revision of a report, or of one specimen of it."""

    __tablename__ = "delivery"
    __table_args__ = (
        UniqueConstraint("target_id", "batch_id", "revision", "file"),
        _one_of("state", DeliveryState),
        Index("ix_delivery_open", "target_id", "id", postgresql_where="state = 'waiting'"),
        Index("ix_delivery_stopped", "id", postgresql_where="state = 'stopped'"),
    )

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    target_id: Mapped[int] = mapped_column(ForeignKey("delivery_target.id"))
    batch_key: Mapped[int] = mapped_column("batch_id", ForeignKey("batch.id"), index=True)
    revision: Mapped[int] = mapped_column(comment="Of the report")
    file: Mapped[str] = mapped_column(comment="What is sent, as its report lists it; report.json: that it is issued")
    sha256: Mapped[str | None] = mapped_column(comment="Of what is sent; null: it is made when it is sent")
    state: Mapped[str]
    attempts: Mapped[int] = mapped_column(server_default="0")
    next_try_at: Mapped[datetime] = mapped_column(server_default=func.now())
    lease_token: Mapped[str | None] = mapped_column(comment="The attempt that is sending it")
    lease_until: Mapped[datetime | None]
    reason: Mapped[str | None] = mapped_column(comment="Code of what became of the last attempt; null: it was taken")
    answer: Mapped[str | None] = mapped_column(comment="The same in words: what the target said")
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    ended_at: Mapped[datetime | None] = mapped_column(comment="When it was delivered, stopped or dropped")

    target: Mapped[DeliveryTarget] = relationship()
