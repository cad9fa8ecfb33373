"""Jupyter kernels: kernelspecs, lifecycle through jupyter_client, messages, outputs."""
