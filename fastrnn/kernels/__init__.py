"""Compiled kernels: they never allocate results, never raise, and never see a layer."""
