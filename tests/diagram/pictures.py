"""What a saved picture says, read back from its SVG; and how long it takes to draw one."""

import os
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path

SVG = "{http://www.w3.org/2000/svg}"


def boxes(svg: str | Path) -> dict[str, list[str]]:
    """The texts of every box by the text of its heading; a state that is not shown is left out."""
    found = {}
    for heading, *rest in texts(svg):
        assert heading not in found, f"two boxes are called {heading}"
        found[heading] = rest
    return found


def texts(svg: str | Path) -> list[list[str]]:
    """The texts of every box."""
    root = ElementTree.fromstring(svg) if isinstance(svg, str) else ElementTree.parse(svg).getroot()
    groups = [g for g in root.iter(f"{SVG}g") if g.get("class", "").split()[:1] == ["box"]]
    return [shown(group) for group in groups]


def shown(group: ElementTree.Element) -> list[str]:
    """The texts that can be seen in a group, in their order."""
    if group.get("visibility") == "hidden":
        return []
    if group.tag == f"{SVG}text":
        return ["".join(group.itertext())]
    return [text for child in group for text in shown(child)]


def wires(svg: str | Path) -> dict[str, str]:
    """What stands at each wire, "" for nothing, by its title: "x → μ_B"."""
    root = ElementTree.fromstring(svg) if isinstance(svg, str) else ElementTree.parse(svg).getroot()
    groups = [g for g in root.iter(f"{SVG}g") if g.get("class", "").startswith("wire")]
    return {group.findtext(f"{SVG}title"): " ".join(shown(group)) for group in groups}


def seconds(run: Callable[[], object]) -> float:
    """What the shortest of three runs takes of a processor, with the processes that it starts;
    to wait for a busy machine does not count."""
    times = []
    for _ in range(3):
        start = sum(os.times()[:4])
        run()
        times.append(sum(os.times()[:4]) - start)
    return min(times)
