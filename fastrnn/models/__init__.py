"""Whole models."""

from fastrnn.models.charlm import CharLM

__all__ = ["CharLM"]
