"""The SDK with real guests: the code of its page, and many threads on one task."""

import re
from concurrent.futures import ThreadPoolExecutor

import pytest

from pyro_mcp import Pyro
from pyro_mcp.paths import Paths

from .conftest import ROOT

pytestmark = pytest.mark.guest

CODE = re.compile(r"^```python\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)
PRINTED = """Linux
 3 qemu
137 ['signal']
kept

4
started one command, then the machine is gone

['0\\n', '1\\n', '2\\n']
"""


def test_the_code_of_the_page_does_what_it_says(home: Paths, capsys: pytest.CaptureFixture[str]) -> None:
    code = "\n".join(found["code"] for found in CODE.finditer((ROOT / "docs" / "sdk.md").read_text()))
    exec(compile(code, "docs/sdk.md", "exec"), {"__name__": "page"})  # noqa: S102 - the page's own examples
    assert capsys.readouterr().out == PRINTED
    assert Pyro().list_tasks()["tasks"] == []


def test_many_threads_work_in_one_task_and_each_gets_its_own_output(home: Paths) -> None:
    pyro = Pyro()
    with pyro.task(environment="debian:12") as task, ThreadPoolExecutor(8) as threads:

        def work(number: int) -> tuple[str, str]:
            pieces: list[bytes] = []
            done = task.exec(f"yes {number} | head -c 200000 | tail -c 2", on_stdout=pieces.append)
            return done["stdout"], b"".join(pieces).decode()

        assert list(threads.map(work, range(8))) == [(f"{number}\n", f"{number}\n") for number in range(8)]
        assert task.logs()["count"] == 8
