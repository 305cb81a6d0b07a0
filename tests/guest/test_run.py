"""``pyro run``, with real guests."""

import hashlib
import json
import os
import random
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from pyro_mcp.host.deadline import Deadline
from pyro_mcp.host.wait import until
from pyro_mcp.paths import Paths

from .conftest import RUN_SECONDS, Cli, Ended, leftovers, pyro_argv, start_pyro

pytestmark = pytest.mark.guest

SUMMARY = re.compile(
    r"\[run\] environment=debian:12 execution_mode=guest_serial exit_code=(\d+) duration_ms=\d+(?: causes=(\S+))?\n$"
)
MIB = 1 << 20


def run(cli: Cli, *words: str, stdin: bytes = b"") -> Ended:
    return cli("run", "debian:12", *words, stdin=stdin)


def causes(ended: Ended) -> str | None:
    found = SUMMARY.search(ended.errors)
    assert found, ended.errors
    return found[2]


def test_a_command_prints_the_guests_own_git_and_ends_with_the_summary(cli: Cli) -> None:
    run(cli, "--", "true")  # the first run of a kind makes its template, and says so
    ended = run(cli, "--", "git", "--version")
    assert ended.text.startswith("git version 2.39.")
    assert ended.code == 0
    lines = ended.errors.splitlines()
    assert lines[0] == "[run] phase=create environment=debian:12"
    assert re.fullmatch(r"\[run\] phase=start vm_id=[0-9a-f]{12}", lines[1])
    assert re.fullmatch(r"\[run\] phase=execute vm_id=[0-9a-f]{12}", lines[2])
    assert SUMMARY.search(ended.errors)


def test_the_guest_has_its_own_kernel_its_own_init_and_a_writable_root(cli: Cli) -> None:
    ended = run(cli, "--", "uname -r; id -u; cat /proc/1/comm; touch /root/x && df / | tail -1")
    kernel, uid, init, disk = ended.text.splitlines()
    assert kernel.endswith("-cloud-amd64")
    assert kernel != os.uname().release
    assert uid == "0"
    assert init == "pyro-agent"
    assert disk.startswith("overlay")


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("sh", "-c", "exit 7"), 7),
        (("kill -9 $$",), 137),
        (("/nonexistent",), 127),
        (("/etc/passwd",), 126),
        (("exit 255",), 255),
    ],
)
def test_the_exit_code_is_the_commands(cli: Cli, words: tuple[str, ...], code: int) -> None:
    assert run(cli, "--", *words).code == code


def test_one_word_goes_to_the_shell_and_several_are_quoted(cli: Cli) -> None:
    assert run(cli, "--", "echo $((1+1)) > /tmp/a; cat /tmp/a").text == "2\n"
    assert run(cli, "--", "printf", "%s|", "a b", "$HOME", "it's", "").text == "a b|$HOME|it's||"


def test_options_stand_before_and_after_the_environment(cli: Cli) -> None:
    words = ("--env", "A=1", "debian:12", "--env", "B=2 3", "--cwd", "/tmp", "--user", "nobody", "--json", "--")
    ended = cli("run", *words, 'echo "$A,$B"; pwd; id -un; id -gn')
    result = json.loads(ended.stdout)
    assert result["stdout"] == "1,2 3\n/tmp\nnobody\nnogroup\n"


def test_the_json_result_has_the_contracts_keys(cli: Cli) -> None:
    result = json.loads(run(cli, "--json", "--", "echo out; echo err >&2; exit 3").stdout)
    assert result["stdout"] == "out\n"
    assert result["stderr"] == "err\n"
    assert result["exit_code"] == 3
    assert result["execution_mode"] == "guest_serial"
    assert result["command"] == "echo out; echo err >&2; exit 3"
    assert result["environment"] == "debian:12"
    assert result["environment_version"] == "1.0.0"
    assert result["cleanup"] == {"vm_id": result["vm_id"], "deleted": True, "reason": "post_exec_cleanup"}
    assert result["isolation"]["vmm"] == "qemu"
    assert isinstance(result["duration_ms"], int)


def test_a_timeout_keeps_what_was_printed_and_exits_with_124(cli: Cli) -> None:
    ended = run(cli, "--timeout-seconds", "2", "--", "echo partial; sleep 30")
    assert ended.text == "partial\n"
    assert ended.code == 124
    assert causes(ended) == "timeout"


def test_a_program_that_ignores_sigterm_is_ended_all_the_same(cli: Cli) -> None:
    ended = run(cli, "--timeout-seconds", "2", "--", 'trap "" TERM; echo in; while :; do sleep 1; done')
    assert (ended.text, ended.code, causes(ended)) == ("in\n", 124, "timeout")


def test_a_child_that_keeps_stdout_open_does_not_keep_the_call(cli: Cli) -> None:
    ended = run(cli, "--timeout-seconds", "60", "--", "(setsid sh -c 'sleep 50' &); echo leader")
    assert (ended.text, ended.code) == ("leader\n", 0)
    assert causes(ended) is None


def test_a_full_disk_is_named(cli: Cli) -> None:
    ended = run(cli, "--disk-mib", "64", "--", "dd if=/dev/zero of=/big bs=1M")
    assert ended.code == 1
    assert causes(ended) == "disk_full"
    assert b"No space left on device" in ended.stderr


def test_a_fork_bomb_ends_with_its_cause_named(cli: Cli) -> None:
    bomb = "f() { f | f & }; f; sleep 60"
    ended = run(cli, "--timeout-seconds", "20", "--", bomb)
    assert ended.code in (124, 2)
    assert "process_limit" in str(causes(ended))


def test_a_program_that_eats_all_memory_is_named(cli: Cli) -> None:
    ended = run(cli, "--mem-mib", "256", "--timeout-seconds", "60", "--", "tail", "/dev/zero")
    assert ended.code == 137
    assert "oom" in str(causes(ended))


def test_fifty_megabytes_of_input_come_back_byte_for_byte(cli: Cli) -> None:
    data = random.Random(1).randbytes(50 * MIB)
    ended = run(cli, "--stdin", "--timeout-seconds", "200", "--", "cat", stdin=data)
    assert hashlib.sha256(ended.stdout).digest() == hashlib.sha256(data).digest()


def test_fifty_megabytes_of_random_output_arrive_as_they_were(cli: Cli) -> None:
    command = "head -c 50000000 /dev/urandom > /r; sha256sum < /r | cut -c1-64 >&2; cat /r"
    ended = run(cli, "--timeout-seconds", "200", "--", command)
    assert len(ended.stdout) == 50_000_000
    assert hashlib.sha256(ended.stdout).hexdigest() in ended.errors


def test_bytes_that_are_no_text_pass_through(cli: Cli) -> None:
    ended = run(cli, "--", r"printf '\377\376\000x'")
    assert ended.stdout == b"\xff\xfe\x00x"
    result = json.loads(run(cli, "--json", "--", r"printf '\377x'").stdout)
    assert result["stdout"] == "\N{REPLACEMENT CHARACTER}x"


def test_a_huge_output_does_not_make_pyro_grow(home: Paths) -> None:
    # The peak of the pyro process itself, told by itself: getrusage would count what it was forked from.
    program = (
        "import sys; from pyro_mcp.cli.main import run; code = run(sys.argv[1:]);"
        "peak = [line for line in open('/proc/self/status') if line.startswith('VmHWM')][0].split()[1];"
        "open(sys.argv[-1] + '.rss', 'w').write(peak); sys.exit(code)"
    )
    mark = Path(os.environ["XDG_STATE_HOME"]) / "peak"
    command = f"head -c 200000000 /dev/zero; : {mark}"
    words = ["run", "debian:12", "--timeout-seconds", "200", "--", "sh", "-c", command, str(mark)]
    process = subprocess.Popen(
        [sys.executable, "-c", program, *words], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert process.stdout is not None
    total = 0
    while chunk := process.stdout.read(MIB):
        total += len(chunk)
    process.stdout.close()
    assert process.wait() == 0
    assert total == 200_000_000
    assert int(mark.with_suffix(".rss").read_text()) * 1024 < 150 * MIB


def test_output_streams_while_the_command_runs(home: Paths) -> None:
    process = start_pyro(
        "run", "--stdin", "debian:12", "--", "echo first; read line; echo got $line", stdin=subprocess.PIPE
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stdout.readline() == b"first\n"  # it would never come if output were kept until the end
    process.stdin.write(b"second\n")
    process.stdin.close()
    assert process.stdout.read() == b"got second\n"
    assert process.wait() == 0
    process.stdout.close()
    assert process.stderr is not None
    process.stderr.close()


def test_ten_runs_at_once_all_succeed(home: Paths) -> None:
    processes = [start_pyro("run", "debian:12", "--", f"echo {number}") for number in range(10)]
    results: dict[int, Ended] = {}

    def collect(number: int) -> None:
        out, err = processes[number].communicate()
        results[number] = Ended(processes[number].returncode, out, err)

    threads = [threading.Thread(target=collect, args=(number,)) for number in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {number: (ended.code, ended.text) for number, ended in results.items()} == {
        number: (0, f"{number}\n") for number in range(10)
    }, results
    assert until(lambda: leftovers(home) == [], Deadline.after(5))


def test_a_machine_that_outlives_its_time_is_ended_and_says_so(cli: Cli) -> None:
    ended = run(cli, "--ttl-seconds", "60", "--timeout-seconds", "200", "--", "echo started; sleep 150")
    assert ended.text == "started\n"
    assert ended.code == 125
    assert "time to live" in ended.errors


def under_file_limit(mib: int, *words: str) -> Ended:
    """A run of a process that may write files of *mib* MiB (POSIX: ulimit -f counts 512 bytes)."""
    argv = ["sh", "-c", 'ulimit -f "$0"; exec "$@"', str(mib * 2048), *pyro_argv(["run", "--json", *words])]
    done = subprocess.run(argv, capture_output=True, timeout=RUN_SECONDS, check=False)
    return Ended(done.returncode, done.stdout, done.stderr)


def test_a_limit_on_the_size_of_files_is_named_before_it_can_kill_a_machine(cli: Cli, home: Paths) -> None:
    sizes = ("--disk-mib", "300", "--mem-mib", "256", "debian:12", "--")
    run(cli, "--", "true")  # the environment and the runtime are there
    writes = ("dd if=/dev/urandom of=/root/big bs=1M count=150 && rm /root/big && echo written",)
    ran = under_file_limit(364, *sizes, *writes)
    assert (ran.code, json.loads(ran.stdout)["stdout"]) == (0, "written\n"), ran.errors
    refused = under_file_limit(363, *sizes, "true")
    failure = json.loads(refused.stdout)
    assert (refused.code, failure["code"]) == (125, "no_space")
    assert failure["error"] == "a file of this process may have 363 MiB, the machine needs 364 MiB"
    assert "ulimit -f" in failure["remedy"]
    assert leftovers(home) == []
