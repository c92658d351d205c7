"""Both networks driven on a GPU by what the server drives them by: `python gpu_alone.py CROPS.npy BATCH MODEL MODEL`.

A program of its own, run in Triton's environment; it imports nothing of morphbatch. MODEL is the file of a network in
the laid-out repository, beside its `network.py`. Both are at work at once, each on its own stream. JSON to stdout.
"""

import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import numpy as np


def opened(model, batch):
    spec = spec_from_file_location("network", model.with_name("network.py"))
    program = module_from_spec(spec)
    spec.loader.exec_module(program)
    return program.Network(model, [batch])


def run(network, crops, batch):
    """Seconds for all crops; the last batch is filled up with what was there before."""
    started, finite = time.perf_counter(), True
    for start in range(0, len(crops), batch):
        part = crops[start : start + batch]
        network.crops[: len(part)] = part
        finite &= bool(np.isfinite(network.run(batch)).all())
    return time.perf_counter() - started, finite


def main(crops_path, batch, *models):
    crops, batch = np.load(crops_path), int(batch)
    networks = [opened(Path(model), batch) for model in models]
    for network in networks:
        run(network, crops[: 8 * batch], batch)
    cpu_before, started = time.process_time(), time.perf_counter()
    with ThreadPoolExecutor(len(networks)) as threads:
        ended = list(threads.map(lambda network: run(network, crops, batch), networks))
    answer = {
        "crops": len(crops),
        "seconds": time.perf_counter() - started,
        "seconds_each": [seconds for seconds, _ in ended],
        "cpu_s": round(time.process_time() - cpu_before, 2),
        "streams": len(networks),
        "sub_batch": batch,
        "finite": all(finite for _, finite in ended),
    }
    print(json.dumps(answer))


if __name__ == "__main__":
    main(*sys.argv[1:])
