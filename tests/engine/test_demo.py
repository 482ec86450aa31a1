"""`qvl demo` from start to end, its page in a real browser, and that nothing it started outlives it."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from qvl.engine.demo.corpus import corpus
from tests.replicas import until

DEMO = [sys.executable, "-m", "qvl.engine.cli", "demo"]
CHROMIUM = shutil.which("chromium")
OPTIONS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
)
TYPED = "a large striped red circle at the top left, over the sea"
PROBE = """<script>
const shown = [...document.images].map(i => { const r = i.getBoundingClientRect();
  return {alt: i.alt, wide: i.naturalWidth, box: [r.x, r.y, r.x + r.width, r.y + r.height]}; });
const told = {shown, wide: document.documentElement.scrollWidth, high: document.documentElement.scrollHeight,
  outside: performance.getEntriesByType("resource").filter(e => !e.name.startsWith("data:")).length,
  ground: getComputedStyle(document.body).backgroundColor};
document.body.innerHTML = "<pre id=told></pre>";
document.getElementById("told").textContent = JSON.stringify(told);
</script>"""


@dataclass(frozen=True)
class Ran:
    said: str
    page: str


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ran]:
    cache = tmp_path_factory.mktemp("demo")
    environment = os.environ | {"QVL_CACHE": str(cache), "COLUMNS": "140", "BROWSER": "echo opened %s"}
    command = [*DEMO, "--open", "--ask", TYPED]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    until(lambda: started_by(cache) == [], seconds=30)
    yield Ran(done.stdout, (cache / "demo.html").read_text(encoding="utf-8"))


def started_by(mark: Path) -> list[str]:
    """Command lines of running processes with this cache folder in their environment."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and int(folder.name) != os.getpid():
            try:
                if str(mark).encode() in (folder / "environ").read_bytes():
                    found.append((folder / "cmdline").read_bytes().decode(errors="replace"))
            except OSError:
                continue
    return found


@pytest.mark.engine
def test_the_demo_answers(ran: Ran) -> None:
    for word in (f"Query: {TYPED}", "The right one came first", "reranked", "seconds", "opened file://"):
        assert word in ran.said


@pytest.mark.engine
def test_the_demo_finds_and_reranking_does_not_lose(ran: Ran) -> None:
    rows = re.findall(r"│ (\S.*?) +│ +(\d+) +│ +(\d+) +│ +(\d+) +│", ran.said)
    shares = {kind: [int(each) for each in numbers] for kind, *numbers in rows}
    assert set(shares) == {"text → image", "text → page", "text → video", "image + change → image"}
    for kind, (asked, before, after) in shares.items():
        assert before >= 0.6 * asked, kind
        assert after >= before - 1, kind


@pytest.mark.engine
def test_the_page_loads_nothing_and_holds_every_answer(ran: Ran) -> None:
    assert not re.search(r"(src|href)=\"(?!data:)|url\(|@import|<script", ran.page)
    assert ran.page.count("<section") == 7
    assert f"<h2>{TYPED}</h2>" in ran.page
    titles = {entry.title for entry in corpus()[0]}
    assert set(re.findall(r'alt="([^"]*)"', ran.page)) <= titles | {
        "the question's picture",
        "the question&#x27;s picture",
    }


@pytest.mark.engine
@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium (Debian: apt install chromium)")
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_page_renders_in_a_browser(ran: Ran, tmp_path: Path, theme: str) -> None:
    """Each picture stands on the screenshot where the browser says, and is the one that its words name."""
    plain, probed, shot = tmp_path / "plain.html", tmp_path / "probed.html", tmp_path / "shot.png"
    plain.write_text(ran.page.replace("color-scheme: light dark", f"color-scheme: {theme}"))
    probed.write_text(plain.read_text().replace("</body>", f"{PROBE}</body>"))
    dom = browse(tmp_path, "--window-size=1100,800", "--dump-dom", probed.as_uri())
    told = json.loads(re.findall(r'<pre id="told">(.*?)</pre>', dom, re.S)[0].replace("&amp;", "&"))
    assert told["outside"] == 0
    assert told["wide"] <= 1100
    browse(tmp_path, f"--window-size=1100,{told['high']}", f"--screenshot={shot}", plain.as_uri())
    with Image.open(shot) as opened:
        screen = opened.convert("RGB")
    ground = np.array([int(each) for each in re.findall(r"\d+", told["ground"])[:3]])
    assert np.abs(np.array(screen.getpixel((2, 2))) - ground).max() <= 2
    assert (ground.mean() > 128) == (theme == "light")
    pictures = {entry.title: entry.picture for entry in corpus()[0]}
    assert len(told["shown"]) > 20
    for each in told["shown"]:
        assert each["wide"] > 0
        if each["alt"] in pictures:
            seen = screen.crop(tuple(round(side) for side in each["box"]))
            assert unlike(seen, pictures[each["alt"]]) < 25, each["alt"]


def browse(profile: Path, *options: str) -> str:
    command = [str(CHROMIUM), *OPTIONS, f"--user-data-dir={profile / 'profile'}", *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=900, check=True).stdout


def unlike(seen: Image.Image, drawn: Image.Image) -> float:
    """Mean difference of 8 × 8 averages: what is where, not its pixels."""
    small = [np.asarray(each.resize((8, 8), Image.Resampling.BOX), np.float32) for each in (seen, drawn)]
    return float(np.abs(small[0] - small[1]).mean())


@pytest.mark.engine
def test_the_demo_stops_its_server_when_it_is_stopped(tmp_path: Path) -> None:
    environment = os.environ | {"QVL_CACHE": str(tmp_path)}
    process = subprocess.Popen(DEMO, stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    for line in process.stdout:
        if "Starting the server" in line:
            break
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=900)
    assert process.returncode == 130
    until(lambda: started_by(tmp_path) == [], seconds=30)
