"""Type the lines of a tape into a terminal, and draw what it then shows as an SVG that plays once.

The program runs for real. What is drawn are its lines, at the time they came; long pauses are cut. Without animation
the picture shows the whole of it.
"""

import argparse
import codecs
import html
import os
import pty
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

COLUMNS, ROWS = 104, 40
TYPE_SECONDS = 0.03  # a letter
PAUSE_MOST = 1.5
READ_MOST = 1 << 16
COMMAND_SECONDS = 300
CHAR_WIDTH, LINE_HEIGHT, MARGIN = 8.4, 19, 16
PROMPT = "$ "
ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[()][A-Z0-9]")
STYLE = (
    "text{font:14px ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace;"
    "fill:#d8dee9;white-space:pre}"
    ".command{fill:#88c0d0}.progress{fill:#7b88a1}"
)


@dataclass
class Line:
    """A line of the terminal and when it was there, in seconds of the recording; *until* ``None``: to its end."""

    row: int
    text: str
    begin: float
    until: float | None = None


@dataclass
class Screen:
    """What was written so far. It knows line ends, carriage returns and erased lines; other escapes are dropped."""

    lines: list[Line] = field(default_factory=list)
    row: int = 0

    def write(self, text: str, moment: float) -> None:
        """Write *text* at *moment*."""
        for piece in re.split(r"(\n)", text):
            if piece == "\n":
                self.row += 1
            elif clean := ESCAPE.sub("", piece.rpartition("\r")[2] if piece.strip("\r") else "").rstrip("\r"):
                self._put(clean, moment, again="\r" in piece.rstrip("\r"))

    def _put(self, text: str, moment: float, *, again: bool) -> None:
        shown = next((line for line in self.lines if line.row == self.row and line.until is None), None)
        if shown is not None:
            shown.until = moment
            text = text if again else shown.text + text
        self.lines.append(Line(self.row, text[:COLUMNS], moment))


def chunks(command: str) -> Iterator[tuple[float, bytes]]:
    """What *command* writes to its terminal, and the seconds since its start. Raises RuntimeError if it hangs."""
    ours, theirs = pty.openpty()
    env = {**os.environ, "COLUMNS": str(COLUMNS), "LINES": str(ROWS), "TERM": "xterm"}
    began = time.monotonic()
    with subprocess.Popen(["bash", "-c", command], stdin=theirs, stdout=theirs, stderr=theirs, env=env) as child:
        os.close(theirs)
        try:
            while time.monotonic() - began < COMMAND_SECONDS:
                try:
                    data = os.read(ours, READ_MOST)
                except OSError:  # nobody has the other side any more
                    return
                yield time.monotonic() - began, data
            child.kill()
            raise RuntimeError(f"{command} takes too long")
        finally:
            os.close(ours)


def record(commands: list[str]) -> tuple[list[Line], float]:
    """Run *commands* one after another; the lines, and the length of the recording in seconds."""
    screen, clock = Screen(), 0.5
    for command in commands:
        screen.write(f"{PROMPT}{command}\n", clock)
        clock += TYPE_SECONDS * len(command)
        before, decoder = 0.0, codecs.getincrementaldecoder("utf-8")(errors="replace")
        for moment, data in chunks(command):
            clock += min(moment - before, PAUSE_MOST)
            before = moment
            screen.write(decoder.decode(data).replace("\r\n", "\n"), clock)
        clock += PAUSE_MOST / 2
    return screen.lines, clock


def picture(lines: list[Line]) -> str:
    """The SVG."""
    rows = max(line.row for line in lines) + 1
    width, height = round(COLUMNS * CHAR_WIDTH) + 2 * MARGIN, rows * LINE_HEIGHT + 2 * MARGIN
    drawn = "\n".join(_text(line) for line in lines if line.text)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
        f' role="img" aria-label="pyro in a terminal">\n<style>{STYLE}</style>\n'
        f'<rect width="{width}" height="{height}" rx="8" fill="#2e3440"/>\n{drawn}\n</svg>\n'
    )


def _text(line: Line) -> str:
    """A line, hidden until it comes; one that another replaces is shown for its time only."""
    kind = "command" if line.text.startswith(PROMPT) else "progress" if line.text.startswith("[") else "output"
    place = f'class="{kind}" x="{MARGIN}" y="{MARGIN + (line.row + 1) * LINE_HEIGHT - 5}"'
    if line.until is None:
        when = f'<set attributeName="visibility" to="hidden" begin="0s" end="{line.begin:.2f}s"/>'
    else:
        place += ' visibility="hidden"'
        when = f'<set attributeName="visibility" to="visible" begin="{line.begin:.2f}s" end="{line.until:.2f}s"/>'
    return f"<text {place}>{html.escape(line.text)}{when}</text>"


def main() -> int:
    """Record and draw."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("tape", type=Path, help="a command a line")
    parser.add_argument("target", type=Path, help="the SVG")
    options = parser.parse_args()
    if shutil.which("pyro") is None:
        parser.error("there is no pyro on PATH; run scripts/render_tape.sh")
    lines, seconds = record(options.tape.read_text().splitlines())
    options.target.write_text(picture(lines))
    sys.stderr.write(f"{options.target}: {len(lines)} lines, {seconds:.1f} s\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
