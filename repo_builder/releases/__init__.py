"""Triton releases: what each image carries, which ModelConfig fields, platforms and backends each release knows."""

from __future__ import annotations

from repo_builder.releases.check import backend_of, check_config, flavour_for, unknown_fields
from repo_builder.releases.facts import FLAVOURS, Image, Release, embedded, names, newest, onnx_limits, release, table

__all__ = [
    "FLAVOURS",
    "Image",
    "Release",
    "backend_of",
    "check_config",
    "embedded",
    "flavour_for",
    "names",
    "newest",
    "onnx_limits",
    "release",
    "table",
    "unknown_fields",
]
