"""Metadata live in pyproject.toml, exact versions in requirements.lock."""

from setuptools import setup

setup()
