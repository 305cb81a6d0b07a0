"""A guest with several processors whose kernel patches itself while it runs."""

import pytest

from .conftest import Cli

pytestmark = pytest.mark.guest

ROUNDS = 200  # where QEMU 7.2 emulated both at the same time, the guest stood still before these were over
# Statistics of the scheduler are static keys: each turn rewrites code that the other processor runs all the time.
PATCH = f"""
(while :; do /bin/true; done) & one=$!
(while :; do sleep 0.001; done) & other=$!
for round in $(seq {ROUNDS}); do
  echo 1 >/proc/sys/kernel/sched_schedstats
  echo 0 >/proc/sys/kernel/sched_schedstats
done
nproc
kill $one $other
"""


def test_a_guest_with_two_processors_survives_the_patches_of_its_kernel(cli: Cli) -> None:
    done = cli("run", "--vcpu-count", "2", "--timeout-seconds", "200", "debian:12", "--", PATCH)
    assert (done.code, done.text) == (0, "2\n"), done.errors
