"""What each shortcut costs in answers: a row for each, against the Hugging Face code in float32.

    python -m benchmarks.quality                       # the bundled pair on this CPU (`make quality`)
    python -m benchmarks.quality --task NAME           # a task of `mteb`, where it and its data are
    python -m benchmarks.quality --gpu --embedder DIR  # on a GPU; the rows say which

Exit code 1 where a row is under its floor (`variants.py`).
"""
