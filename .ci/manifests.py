"""`make manifests`: the Dockerfile judged by hadolint, the Kubernetes objects by Kubernetes' own schemas.

Both tools are fetched for the run: 160 MB that no other check needs. What the RayService holds of pods is
judged as pods; `tests/ray_serve/test_manifests.py` holds its applications to Ray's schema.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import kubernetes_validate
import yaml

VERSION = "1.33"
ROOM = Path(__file__).parent.parent / "ray_serve" / "kuberay"


def objects() -> Iterator[dict[str, Any]]:
    found = (yaml.safe_load_all(path.read_text()) for path in sorted(ROOM.glob("*.yaml")))
    for each in chain.from_iterable(found):
        if each["kind"] != "RayService":
            yield each
            continue
        cluster = each["spec"]["rayClusterConfig"]
        for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
            template = group["template"]
            named = {"name": group.get("groupName", "head"), **template.get("metadata", {})}
            yield {"apiVersion": "v1", "kind": "Pod", "metadata": named, "spec": template["spec"]}


for each in objects():
    kubernetes_validate.validate(each, VERSION, strict=True)
    sys.stdout.write(f"{each['kind']} {each['metadata']['name']}: valid in Kubernetes {VERSION}\n")
linted = subprocess.run(["hadolint", ROOM / "Dockerfile"])
sys.stdout.write("Dockerfile: hadolint has nothing to say\n" if linted.returncode == 0 else "")
sys.exit(linted.returncode)
