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


def test_a_controller_comes_back_and_a_dead_gcs_ends_the_server(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with Cluster(["tests.ray_serve.serve_fakes", "--replica-cpus=0.1", "--layout=together"], log) as cluster:

        def ours(name: str) -> psutil.Process:
            return next(each for each in cluster.family() if name in title(each))

        (old := ours("ServeController")).kill()
        assert gone([old])
        cluster.wait(lambda: any("ServeController" in title(each) for each in cluster.family()), 300)
        family = cluster.family()
        titles = {each.pid: title(each) for each in family}
        ours("gcs_server").kill()
        code, said = cluster.process.wait(NOTICED_SECONDS), log.read_text()
        assert code == DIED, said
        # Ray's agents, which hold nothing, look for a GCS for a minute, to tell it that their node has ended;
        # so may a controller that had only begun.
        assert gone([each for each in family if "Agent" not in titles[each.pid]], NOTICED_SECONDS)
        assert said.count("qvl: for 40 s Ray has known nothing of what was deployed here") == 1, said
        assert "The program will terminate" not in said  # Ray's own end, which comes later
