"""Make the pictures in docs/pictures: a run's terminal and page in MLflow, Ray's dashboard, the pages of
a study and of a rollout.

`make pictures`, with chromium (or google-chrome) on the PATH. Trains the first example on two workers, tunes
it, and rolls out versions of it, under /tmp/raystack, which is removed at the end.
"""

import html
import os
import pty
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

import pyte
from PIL import Image

ROOT = Path(__file__).parents[1]
PICTURES = ROOT / "docs" / "pictures"
STORAGE = Path("/tmp/raystack")
COMMAND = "python -m raystack.train examples/01_digits/config.yaml"
ROLLOUT = "python examples/09_canary/demo.py"
STUDY = "python -m raystack.tune examples/06_tuning/config.yaml"
COLUMNS, ROWS = 104, 20
LAST_S = 8.0
"""How long the last frame of the recording is shown; the others a second each."""
COLORS = {
    "default": "#d5d8df", "red": "#f07178", "green": "#9ccc65", "brown": "#ffcb6b", "blue": "#82aaff",
    "magenta": "#c792ea", "cyan": "#7fdbca", "white": "#ffffff", "black": "#5c6370",
}  # fmt: skip
Cell = tuple[str, str, bool]
"""Characters, their color, and whether they are bold."""
Frame = tuple[tuple[Cell, ...], ...]


@dataclass
class Terminal:
    """A screen that keeps what it has shown."""

    screen: pyte.Screen = field(default_factory=lambda: pyte.Screen(COLUMNS, ROWS))
    frames: list[Frame] = field(default_factory=list)

    def text(self) -> str:
        return "\n".join(self.screen.display)

    def keep(self) -> None:
        frame = tuple(tuple(self._cells(row)) for row in range(ROWS))
        if not self.frames or self.frames[-1] != frame:
            self.frames.append(frame)

    def _cells(self, row: int) -> Iterator[Cell]:
        line = [self.screen.buffer[row][column] for column in range(COLUMNS)]
        for (color, bold), cells in groupby(line, lambda cell: (cell.fg, cell.bold)):
            yield "".join(cell.data for cell in cells), color, bold


def main() -> None:
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        raise SystemExit("error: chromium: it takes the pictures of pages; install it")
    if STORAGE.exists():
        raise SystemExit(f"error: {STORAGE}: it is there already; move it away")
    PICTURES.mkdir(exist_ok=True)
    try:
        (PICTURES / "run.svg").write_text(drawn(chosen(record())), encoding="utf-8")
        with mlflow_server() as url:
            photograph(browser, f"{url}/#{recorded_run()}", PICTURES / "mlflow.png", 1700, 950)
        with Image.open(PICTURES / "mlflow.png") as picture:
            picture.crop((0, 0, 1268, 950)).save(PICTURES / "mlflow.png")  # without MLflow's assistant
        with dashboard() as url:
            photograph(browser, f"{url}/#/jobs", PICTURES / "dashboard.png", 1500, 540)
        photograph(browser, study().as_uri(), PICTURES / "tuning.png", 1280, 1500)
        photograph(browser, rollout().as_uri(), PICTURES / "canary.png", 1280, 1000)
    finally:
        shutil.rmtree(STORAGE, ignore_errors=True)


def environment() -> dict[str, str]:
    """Of both runs. A browser that takes pictures has no token for the dashboard."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "RAYSTACK_STORAGE": str(STORAGE), "RAY_AUTH_MODE": "disabled"}


def record() -> list[Frame]:
    """The screens of the run."""
    terminal = Terminal()
    stream = pyte.ByteStream(terminal.screen)
    stream.feed(f"$ {COMMAND}\r\n".encode())
    pid, output = pty.fork()
    if pid == 0:
        os.chdir(ROOT)
        screen = {"TERM": "xterm-256color", "COLUMNS": str(COLUMNS), "LINES": str(ROWS)}
        os.execvpe("python", COMMAND.split(), environment() | screen)
    while data := _read(output):
        stream.feed(data)
        terminal.keep()
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if status != 0:
        raise SystemExit(f"error: the run ended with {status}\n{terminal.text()}")
    return terminal.frames


@contextmanager
def dashboard() -> Iterator[str]:
    """Ray's, while a run trains that is long enough to have its picture taken."""
    words = [*COMMAND.split(), "target.dashboard=true", "training.epochs=5000"]
    run = subprocess.Popen(
        words, cwd=ROOT, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert run.stdout is not None
    try:
        lines: list[str] = []
        while not lines or not lines[-1].startswith("step "):
            lines.append(run.stdout.readline())
            if not lines[-1]:
                raise SystemExit("error: the run ended\n" + "".join(lines))
        yield next(line.split()[-1] for line in lines if line.startswith("Ray dashboard: "))
    finally:
        run.terminate()
        run.communicate(timeout=60)


def study() -> Path:
    """The page of a study."""
    subprocess.run(STUDY.split(), cwd=ROOT, env=environment(), check=True, timeout=1800)
    (page,) = STORAGE.glob("studies/*/report.html")
    return page


def rollout() -> Path:
    """The page of a version that went back, and one that took the place of the first."""
    subprocess.run(ROLLOUT.split(), cwd=ROOT, env=environment(), check=True, timeout=600)
    return STORAGE / "canary.html"


def _read(output: int) -> bytes:
    """What the run has printed; nothing at its end, which a terminal says by an error."""
    try:
        return os.read(output, 65536)
    except OSError:
        return b""


def chosen(frames: list[Frame]) -> list[Frame]:
    """The last before each new line. In those between, only the progress bar moves."""
    groups = groupby(frames, lambda frame: sum(any(cell[0].strip() for cell in cells) for cells in frame))
    return [[*group][-1] for _, group in groups]


def drawn(frames: list[Frame]) -> str:
    """An SVG that shows one after the other, and in a viewer that does not animate the last."""
    width, line = 8.4, 18
    total = len(frames) - 1 + LAST_S
    size = f'width="{COLUMNS * width + 32:.0f}" height="{ROWS * line + 56}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="monospace" font-size="14">',
        "<style>text{white-space:pre}"
        + "".join(_timing(n, len(frames), total) for n in range(len(frames)))
        + "</style>",
        '<rect width="100%" height="100%" rx="8" fill="#1b1e26"/>',
        *(
            f'<circle cx="{20 + 18 * n}" cy="18" r="6" fill="{color}"/>'
            for n, color in enumerate(("#ff5f56", "#ffbd2e", "#27c93f"))
        ),
    ]
    for number, frame in enumerate(frames):
        hidden = "" if number == len(frames) - 1 else ' visibility="hidden"'
        parts.append(f'<g class="f{number}"{hidden}>')
        parts += [
            _line(cells, 52 + row * line, width)
            for row, cells in enumerate(frame)
            if any(cell[0].strip() for cell in cells)
        ]
        parts.append("</g>")
    return "\n".join([*parts, "</svg>\n"])


def _timing(number: int, frames: int, total: float) -> str:
    begin, end = 100 * number / total, 100 * (number + 1) / total if number < frames - 1 else 100.0
    shown, hidden = "visibility:visible", "visibility:hidden"
    rest = f"{end:.2f}%{{{hidden}}}" if number < frames - 1 else ""
    return (
        f"@keyframes k{number}{{0%{{{hidden if number else shown}}}{begin:.2f}%{{{shown}}}{rest}}}"
        f".f{number}{{animation:k{number} {total:.0f}s step-end infinite}}"
    )


def _line(cells: tuple[Cell, ...], y: float, width: float) -> str:
    column, parts = 0, []
    for text, color, bold in cells:
        if text.strip():
            fill = COLORS.get(color, f"#{color}" if re.fullmatch("[0-9a-f]{6}", color) else COLORS["default"])
            weight = ' font-weight="bold"' if bold else ""
            place = f'x="{16 + column * width:.1f}" textLength="{len(text.rstrip()) * width:.1f}"'
            parts.append(f'<tspan {place} fill="{fill}"{weight}>{html.escape(text.rstrip())}</tspan>')
        column += len(text)
    return f'<text y="{y}">{"".join(parts)}</text>'


def photograph(browser: str, url: str, place: Path, width: int, height: int) -> None:
    """A page as a browser shows it when its own requests have been answered."""
    with tempfile.TemporaryDirectory() as profile:
        options = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
        options += [f"--user-data-dir={profile}", f"--window-size={width},{height}"]
        options += ["--virtual-time-budget=40000", f"--screenshot={place}"]
        subprocess.run([browser, *options, url], check=True, capture_output=True, timeout=180)


@contextmanager
def mlflow_server() -> Iterator[str]:
    """MLflow's page on what the run has recorded."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        sys.executable,
        "-m",
        "mlflow",
        "server",
        "--backend-store-uri",
        f"sqlite:///{STORAGE}/mlflow.db",
    ]
    server = subprocess.Popen(
        [*command, "--port", str(port), "--workers", "1"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    url = f"http://127.0.0.1:{port}"
    try:
        _wait_for(f"{url}/health")
        yield url
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(30)


def _wait_for(url: str) -> None:
    deadline = time.monotonic() + 120
    while True:
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


def recorded_run() -> str:
    """The path of its page in MLflow."""
    with sqlite3.connect(f"file:{STORAGE}/mlflow.db?mode=ro", uri=True) as store:
        ((run, experiment),) = store.execute("SELECT run_uuid, experiment_id FROM runs").fetchall()
    store.close()
    return f"/experiments/{experiment}/runs/{run}"


if __name__ == "__main__":
    main()
