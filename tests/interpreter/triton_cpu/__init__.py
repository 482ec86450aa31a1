"""Triton's word for "there is a CPU", so that vLLM's newer model runner starts where there is no GPU.

With `TRITON_INTERPRET=1` nothing is compiled and kernels run as Python; vLLM asks for no more than that a
backend of this name is there. On the path only where `make test-v2` puts it: with it vLLM takes other ways.
"""
