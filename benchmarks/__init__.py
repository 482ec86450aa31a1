"""qvl beside stock vLLM and the Hugging Face code: same weights, same requests, same client, same run.

    python -m benchmarks                     # the CPU set, tiny model (what `make bench` runs)
    python -m benchmarks --gpu --embedder DIR
    python -m benchmarks report              # figures and tables from results/*.jsonl

See README.md here for what a row means and what makes the comparison fair.
"""
