"""Kernels in CUDA C++ for NVIDIA GPUs: their text, how it is compiled, kept and launched. See docs/kernels.md."""
