"""What is wrong with what was asked of the simulation."""

from services.errors import PermanentError


class RatesRefused(PermanentError):
    """A file of rates is not one, or lacks what a station costs."""

    reason = "rates_refused"


class NightRefused(PermanentError):
    """There is no such night to play."""

    reason = "night_refused"
