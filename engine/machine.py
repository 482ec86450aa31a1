"""What this machine has, asked without importing anything heavy."""

from __future__ import annotations

import os
import shutil
import subprocess
import sysconfig
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

_DEVICES = Path("/dev")
_QUOTA = Path("/sys/fs/cgroup/cpu.max")
"""Of a container: microseconds of CPU in a period, or `max`, and the period."""

_MEMORY = Path("/sys/fs/cgroup/memory.max")
"""Of a container: bytes, or `max`."""
_ANSWER_SECONDS = 20.0
"""For nvidia-smi."""


@dataclass(frozen=True)
class Gpu:
    name: str
    memory: int
    fp8: bool
    """Whether its matrix units compute in FP8; others only store it."""
    driver: str = ""


@cache
def gpus() -> tuple[Gpu, ...]:
    """The NVIDIA GPUs of this machine, asked for once: it may take seconds; none where there is no driver."""
    query = "--query-gpu=name,memory.total,compute_cap,driver_version"
    command = ["nvidia-smi", query, "--format=csv,noheader,nounits"]
    try:
        asked = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        listing, _ = asked.communicate(timeout=_ANSWER_SECONDS)
    except FileNotFoundError:
        return ()
    except subprocess.TimeoutExpired:
        asked.kill()  # and not waited for, as `run` does: one that hangs in the driver never ends
        return ()
    return tuple(parse_gpus(listing)) if asked.returncode == 0 else ()


def parse_gpus(listing: str) -> list[Gpu]:
    found = []
    for line in listing.splitlines():
        fields = [field.strip() for field in line.rsplit(",", 3)]
        try:
            name, memory, capability, driver = fields[0], int(fields[1]) << 20, float(fields[2]), fields[3]
        except (IndexError, ValueError):
            continue  # a card that is lost or does not report memory cannot be used either
        found.append(Gpu(name, memory, fp8=capability >= 8.9, driver=driver))
    return found


def count() -> int:
    """How many NVIDIA GPUs there are, whatever a process is shown of them."""
    if found := len(gpus()):
        return found
    # A container may have the devices without the tool, and on a large host the tool may take too long.
    nodes = [path for path in _DEVICES.glob("nvidia*") if path.name.removeprefix("nvidia").isdigit()]
    return len(nodes)


def for_gpus() -> bool:
    """Whether the vLLM here is the build for GPUs."""
    return versions()["vllm"] != "-" and "cpu" not in versions()["vllm"]


@cache
def versions() -> dict[str, str]:
    """Of qvl and what its answers rest on; `-`: it is not installed."""
    return {name: _version(name) for name in ("qvl", "vllm", "torch", "transformers")}


def _version(name: str) -> str:
    with suppress(PackageNotFoundError):
        return version(name)
    with suppress(PackageNotFoundError):  # a build by another name
        return f"{version(f'{name}-cpu')}+cpu"
    return "-"


def cores() -> int:
    """That this process may use: those that its affinity and its container (cgroup v2) leave it."""
    found = len(os.sched_getaffinity(0))
    with suppress(OSError, ValueError):
        quota, period = _QUOTA.read_text().split()
        found = min(found, max(1, int(quota) // int(period)))
    return found


def host_memory() -> int:
    """Bytes that this process may use: the machine's, or what its container (cgroup v2) leaves it."""
    found = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with suppress(OSError, ValueError):
        found = min(found, int(_MEMORY.read_text()))
    return found


def can_compile() -> bool:
    """Whether torch finds what it builds a CPU's kernels with."""
    compiler = shutil.which(os.environ.get("CXX", "g++"))
    return compiler is not None and Path(sysconfig.get_path("include"), "Python.h").is_file()


def foreign_environment() -> dict[str, str]:
    """For a process of ours that needs no settings: without our variables, which may hold API keys."""
    return {name: value for name, value in os.environ.items() if not name.startswith("QVL_")}


def data_bytes() -> int:
    """What RLIMIT_DATA counts of this process, as it is now."""
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in status if line.startswith("VmData:"))
