"""What one writes first: a loop over cells in PyTorch, a row and a commit each: `python torch_loop.py SPEC`.

A program of its own, run in the environment for training; it imports nothing of morphbatch. SPEC is a JSON file:
`fields` (each `path` and `boxes`), `side` (of a crop, in pixels of the field), `crop_px`, `dsn`, `cells` (how many to
do). The boxes are given: finding them is not what is compared. JSON to stdout.
"""

import json
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import psycopg2
import timm
import torch

NETWORKS = ("tf_efficientnetv2_s", "resnetv2_50")


def cells(spec):
    for field in spec["fields"]:
        image = cv2.cvtColor(cv2.imread(field["path"]), cv2.COLOR_BGR2RGB)
        margin = int(spec["side"]) + 1
        image = cv2.copyMakeBorder(image, margin, margin, margin, margin, cv2.BORDER_REPLICATE)
        for x0, y0, x1, y1 in field["boxes"]:
            left = int((x0 + x1 - spec["side"]) / 2) + margin
            top = int((y0 + y1 - spec["side"]) / 2) + margin
            side = int(spec["side"])
            yield cv2.resize(image[top : top + side, left : left + side], (spec["crop_px"],) * 2)


@torch.inference_mode()
def main(spec_path):
    spec = json.loads(Path(spec_path).read_text())
    networks = [timm.create_model(name, num_classes=18).eval() for name in NETWORKS]
    connection = psycopg2.connect(spec["dsn"])
    cursor = connection.cursor()
    cursor.execute("create temporary table plain_loop (class_index int, probabilities real[])")
    connection.commit()
    for network in networks:
        network(torch.zeros(1, 3, spec["crop_px"], spec["crop_px"]))
    done, started = 0, time.perf_counter()
    for crop in cells(spec):
        if done == spec["cells"]:
            break
        batch = (torch.from_numpy(np.ascontiguousarray(crop)).permute(2, 0, 1)[None].float() / 255 - 0.5) / 0.5
        probabilities = sum(network(batch) for network in networks).div(2).softmax(1)[0]
        cursor.execute("insert into plain_loop values (%s, %s)", (int(probabilities.argmax()), probabilities.tolist()))
        connection.commit()
        done += 1
    print(json.dumps({"crops": done, "seconds": time.perf_counter() - started, "torch": torch.__version__}))


if __name__ == "__main__":
    main(sys.argv[1])
