"""Compiled kernels: every one compiles where there is a compiler, and a machine that cannot says why."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from trimtab.cli.checks.resources import check_kernels
from trimtab.cli.main import main
from trimtab.models.kernels import build

SOURCES = {path.stem for path in Path(build.__file__).parent.glob("*.c")}
needs_compiler = pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler")


@pytest.fixture
def forgetful(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[pytest.MonkeyPatch]:
    """Nothing was compiled yet, and nothing that the test compiles is kept."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    build._load.cache_clear()
    yield monkeypatch
    build._load.cache_clear()


@needs_compiler
def test_every_kernel_compiles() -> None:
    """Issue 3: a kernel that does not compile would be missed by nobody, only slower: so it is asked for."""
    faults = build.kernel_faults()
    assert set(faults) == SOURCES
    assert {fault for name, fault in faults.items() if name != "linear"} == {None}
    assert faults["linear"] in (None, '"this processor does not multiply bf16"')


@needs_compiler
@pytest.mark.parametrize("is_bf16", [0, 1])
@pytest.mark.parametrize("name", sorted(SOURCES - {"linear"}))
def test_it_compiles_in_either_precision(name: str, is_bf16: int) -> None:
    """Issue 3: numbers are loaded and stored by other code in bf16 than in fp32."""
    assert build.load_kernel(name, {**build._CASES[name], "IS_BF16": is_bf16}) is not None


def test_without_a_compiler_it_is_said(
    forgetful: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Issue 3: doctor and check name what is missing, why, and what to install."""
    forgetful.setenv("PATH", str(tmp_path))
    assert set(build.kernel_faults().values()) == {"there is no C compiler; install gcc"}
    [line] = check_kernels()
    assert line.status == "warn"
    assert "none of decode, elementwise, packed_attention, sample: there is no C compiler" in str(line)
    assert main(["doctor"]) == 0
    assert "compiled kernels" in (shown := capsys.readouterr().out)
    assert "install gcc" in shown


def test_a_compiler_that_fails_is_quoted(forgetful: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Issue 3: its first complaint, without places and colours."""
    compiler = tmp_path / "cc"
    compiler.write_text("#!/bin/sh\necho 'decode.c:3:1: error: unknown type name vf' >&2\nexit 1\n")
    compiler.chmod(0o755)
    forgetful.setenv("CC", str(compiler))
    assert build.kernel_faults()["decode"] == "unknown type name vf"
    assert build.load_kernel("decode", {"IS_BF16": 0, "HEAD_SIZE": 64, "GROUP": 1}) is None


def test_switched_off_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """Issue 3: the variable that turns kernels off is named."""
    monkeypatch.setenv(build.OFF, "1")
    assert set(build.kernel_faults().values()) == {"TRIMTAB_NO_KERNELS is set"}


@needs_compiler
def test_with_all_of_them_the_check_passes() -> None:
    """Issue 3: one line, nothing to mend."""
    assert [line.status for line in check_kernels()] == ["pass"]
