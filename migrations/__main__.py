"""`python -m migrations`: what `morphbatch migrate` does, for an image that holds nothing but the migrations."""

import sys

from migrations.run import head_revision, migrate
from services.errors import ConfigurationError, OutageError
from services.settings import load_settings


def main() -> str | None:
    """Bring the database to this version's revision; why not, if it could not be done."""
    try:
        migrate(load_settings())
    except (ConfigurationError, OutageError) as error:
        return f"error [{error.reason}]: {error}"
    sys.stderr.write(f"the database is at revision {head_revision()}\n")
    return None


if __name__ == "__main__":
    sys.exit(main())
