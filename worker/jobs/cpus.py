"""Counts the CPUs that this process may use, with the quota of its container."""

import math
import os
from collections.abc import Iterator
from pathlib import Path


def cpu_count(root: Path = Path("/")) -> int:
    """The cores of its affinity or, if fewer, its cgroup's quota rounded up; at least 1.

    `root` is the folder of `proc` and `sys`.
    """
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        count = len(os.sched_getaffinity(0))
    else:
        count = os.cpu_count() or 1
    return max(1, math.ceil(min([count, *_quotas(root)])))


def _quotas(root: Path) -> Iterator[float]:
    """The quotas in CPUs of the cgroups, of both versions, that contain this process."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        mounted = root / "sys/fs/cgroup" / (controllers and "cpu")
        inner = mounted / path.strip("/")
        # Within a container the path may be that of the host, and the quota is then at the top.
        for folder in (inner, *inner.parents):
            if folder.is_relative_to(mounted):
                yield from _quota(folder)


def _quota(folder: Path) -> Iterator[float]:
    for names in (["cpu.max"], ["cpu.cfs_quota_us", "cpu.cfs_period_us"]):
        try:
            quota, period = " ".join((folder / name).read_text() for name in names).split()
        except (OSError, ValueError):
            continue
        if quota not in ("max", "-1"):
            yield int(quota) / int(period)
