"""What can be wrong with a manifest: a list of problems, each with a path, a stable reason code and a sentence."""

from dataclasses import asdict, dataclass

from services.errors import PermanentError


@dataclass(frozen=True, slots=True)
class Problem:
    """One fault. `path` is like `slides[2].fields[0].sha256`; the message never repeats what was given."""

    path: str
    reason: str
    message: str

    def as_json(self) -> dict[str, str]:
        """`{path, reason, message}`, as stored and as written to rejected.json."""
        return asdict(self)


class ManifestRejected(PermanentError):
    """The manifest is wrong; `problems` holds every fault found in it."""

    reason = "manifest_rejected"

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = tuple(problems)
        shown = "".join(f"\n  {p.path or 'manifest'}: {p.message} [{p.reason}]" for p in self.problems[:20])
        more = f"\n  … and {len(self.problems) - 20} more" if len(self.problems) > 20 else ""
        count = len(self.problems)
        super().__init__(f"the manifest has {count} problem{'s' * (count != 1)}:{shown}{more}")
