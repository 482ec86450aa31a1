"""`qvl check`. Everything heavy loads in its command."""

from __future__ import annotations

from qvl.engine.config import EngineConfig
from qvl.engine.options import ConfigFile, Model


def check(
    *model: Model,
    against: tuple[str, ...] = (),
    engine: EngineConfig | None = None,
    config: ConfigFile = None,
) -> int:
    """See whether models are answered here as their authors' code answers them.

    A few drawn inputs of every kind go through Hugging Face's model in float32, on the GPU if there is room,
    then through the engine, with the options of `qvl serve --help` under Models, Limits and Media; token ids,
    vectors and scores are compared. Exit code 1: one differs by more than the engine's dtype explains.

    Parameters
    ----------
    model
        Checkpoint folders or hub names; the checkpoint tells its role. `bundled`: the demo's tiny pair.
    against
        The original of a quantised checkpoint, to compare its answers with: without it ids alone are.
    """
    del model, config  # read by the option sources
    from qvl.engine.check.command import check

    return check(engine or EngineConfig(), against)
