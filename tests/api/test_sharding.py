"""Optimized functions on several devices: eight virtual ones, in a process of their own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from .eight_devices import CHECKS

CHECKOUT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def outcomes() -> dict[str, str]:
    environment = {
        **os.environ,
        "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8",
        "JAX_PLATFORMS": "cpu",
    }
    command = [sys.executable, "-m", "tests.api.eight_devices"]
    done = subprocess.run(command, cwd=CHECKOUT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize("check", [check.__name__ for check in CHECKS])
def test_on_eight_devices(check: str, outcomes: dict[str, str]) -> None:
    if outcomes[check]:
        pytest.fail(outcomes[check], pytrace=False)
