"""`qvl serve --ray` whose cluster dies under it: it ends, so that whoever supervises it starts it again."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from qvl.engine.port import DIED
from tests.ray_serve.cluster import Cluster, title
from tests.replicas import gone

pytestmark = pytest.mark.engine

NOTICED_SECONDS = 300


def begins(process: psutil.Process) -> bool:
    """A worker that has not joined yet; the raylet's own command line says how workers are started."""
    return "default_worker" in title(process) and process.name() != "raylet"


def test_a_controller_comes_back_and_a_dead_gcs_ends_the_server(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with Cluster(["tests.ray_serve.serve_fakes", "--replica-cpus=0.1", "--layout=together"], log) as cluster:

        def ours(name: str) -> psutil.Process:
            return next(each for each in cluster.family() if name in title(each))

        (old := ours("ServeController")).kill()
        assert gone([old])
        cluster.wait(lambda: any("ServeController" in title(each) for each in cluster.family()), 300)
        # Who begins while there is no GCS looks for one for many minutes: all are to have begun.
        cluster.wait(lambda: not any(map(begins, cluster.family())), 300)
        # Ray's agents, which hold nothing, look for one too, to tell it that their node has ended.
        family = [each for each in cluster.family() if "Agent" not in title(each) and not begins(each)]
        ours("gcs_server").kill()
        code, said = cluster.process.wait(NOTICED_SECONDS), log.read_text()
        assert code == DIED, said
        assert gone(family, NOTICED_SECONDS)
        assert said.count("qvl: for 40 s Ray has known nothing of what was deployed here") == 1, said
        assert "The program will terminate" not in said  # Ray's own end, which comes later
