"""`qvl quantize`: a checkpoint in fewer bits, which vLLM loads as it is.

Through `compressed-tensors`, the library of the format, which every vLLM brings: its schemes, its arithmetic,
its packing. No release of llm-compressor installs beside a vLLM of ours (each pins another compressed-tensors
or an older transformers), and two of the three schemes need no more than this: 8-bit weights have a scale a
row, activations one a token, found while serving. The third, AWQ, looks for scales on examples (`awq.py`).
"""
