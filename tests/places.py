"""Where the checkout is, and the real images that some tests need."""

import os
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
DATA = Path(os.environ.get("MORPHBATCH_DATA", CHECKOUT.parent / "shared" / "data"))
