"""Asks Triton for the answers that are known of the release it serves, before any slide is classified with it."""

import numpy as np

from services.inference.networks import Networks
from services.inference.predictions import Predictions
from services.keys import release_file_key
from services.releases.schema import MEMBERS, Release
from services.releases.self_test import MOST_BYTES, SELF_TEST, Answers, AnswersDiffer, SelfTest, check_fusion
from services.storage import ObjectStore

_CROPS = 5


def require_known_answers(networks: Networks, release: Release, form: str, store: ObjectStore) -> str:
    """Check what is served against the self-test of the release; what was found, as a sentence for an operator.

    A release from before self-tests has none: then its answers must at least agree with each other.

    Raises:
        AnswersDiffer: what is served is not the release.
        OutageError: Triton or the store cannot be asked.
    """
    if SELF_TEST not in release.files:
        _require_consistent_answers(networks, release)
        return f"release {release.id} has no self-test; its answers are consistent"
    test = SelfTest.read(store.get(release_file_key(release.id, SELF_TEST), max_bytes=MOST_BYTES), release)
    worst = test.check(release, form, _answers(networks.classify(test.crops)))
    return f"{len(test.crops)} known crops have their known logits, within {worst:.2g}"


def _require_consistent_answers(networks: Networks, release: Release) -> None:
    """Different crops, sent together and one by one, have the same logits; and the fusion is that of the release."""
    shades = np.linspace(40, 230, _CROPS)[:, None, None, None]
    noise = np.random.default_rng(1).normal(0, 25, (_CROPS, release.crop_px, release.crop_px, 3))
    crops = np.clip(shades + noise, 0, 255).astype(np.uint8)
    together = _answers(networks.classify(crops))
    check_fusion(release, together)
    alone = [_answers(networks.classify(crop[None])) for crop in crops]
    off = max(
        float(np.abs(together.logits[member][row] - alone[row].logits[member][0]).max())
        for member in MEMBERS
        for row in range(_CROPS)
    )
    if off > 0.1:
        raise AnswersDiffer(
            f"release {release.id} is served wrongly: a crop's logits differ by {off:.3g} with the other"
            " crops of its request. Check the versions in Triton's environment"
        )


def _answers(said: Predictions) -> Answers:
    logits = {"efficientnetv2_s": said.efficientnetv2_s_logits, "resnetv2_50": said.resnetv2_50_logits}
    return Answers(logits, said.probabilities)
