"""The maps of the modules: which imports which, read from the source and drawn."""

from __future__ import annotations

import ast
from pathlib import Path

from drawing import PALETTES, Palette, save
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

PACKAGE = Path(__file__).parent.parent.parent / "captum_pullback"
#: What says nothing of the structure: the front door, a number, and a list of names.
LEFT_OUT = {"__init__", "__main__", "_version"}

Graph = dict[str, set[str]]


def imports(folder: str = "") -> Graph:
    """For each module of a folder, those of the same folder that it imports; a folder is one.

    Args:
        folder: Of the package; "" is the package itself.
    """
    home = PACKAGE / folder
    graph: Graph = {}
    for path in sorted(home.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        inner = path.relative_to(home).with_suffix("").parts
        if inner[0] in LEFT_OUT:
            continue
        here = _name(inner, home)
        used = graph.setdefault(here, set())
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            for target in _targets(node, parts):
                there = _below(target, folder)
                if there and there[0] not in LEFT_OUT and _exists(there[0], home):
                    used |= {_name(there, home)} - {here}
    return graph


def _name(parts: tuple[str, ...], home: Path) -> str:
    return parts[0] + "/" if (home / parts[0]).is_dir() else parts[0]


def _below(target: tuple[str, ...], folder: str) -> tuple[str, ...]:
    if not folder:
        return target
    return target[1:] if target[0] == folder else ()


def _targets(node: ast.AST, parts: tuple[str, ...]) -> list[tuple[str, ...]]:
    """What a node imports, as parts below the package; of names, each may be a module."""
    if isinstance(node, ast.Import):
        names = [alias.name.split(".") for alias in node.names]
        return [tuple(name[1:]) for name in names if name[0] == PACKAGE.name and len(name) > 1]
    if not isinstance(node, ast.ImportFrom):
        return []
    module = tuple((node.module or "").split(".")) if node.module else ()
    if node.level:
        base = parts[: len(parts) - node.level] + module
    elif module[:1] == (PACKAGE.name,):
        base = module[1:]
    else:
        return []
    return [(*base, alias.name) for alias in node.names]


def _exists(name: str, home: Path) -> bool:
    return (home / name).is_dir() or (home / f"{name}.py").is_file()


def levels(graph: Graph) -> dict[str, int]:
    """How many modules lead down to each at the most, from 0: all imports go to a higher number."""
    found: dict[str, int] = {}

    def level(name: str, below: tuple[str, ...] = ()) -> int:
        if name in below:
            raise ValueError(f"modules import in a circle: {' -> '.join((*below, name))}")
        if name not in found:
            users = [user for user, used in graph.items() if name in used]
            found[name] = 1 + max((level(user, (*below, name)) for user in users), default=-1)
        return found[name]

    for name in graph:
        level(name)
    return found


def direct(graph: Graph) -> list[tuple[str, str]]:
    """The imports that no chain of others stands for."""

    def reach(name: str) -> set[str]:
        return graph[name].union(*map(reach, graph[name]))

    return [
        (name, other)
        for name, others in graph.items()
        for other in sorted(others)
        if not any(other in reach(third) for third in others - {other})
    ]


def draw(palette: Palette, graph: Graph) -> Figure:
    """Rows of modules, each above what it imports."""
    depth, edges = levels(graph), direct(graph)
    level = {name: max(depth.values()) - number for name, number in depth.items()}
    rows = [sorted(n for n in graph if level[n] == k) for k in range(max(level.values()) + 1)]
    place = {name: (i + 0.5) / len(row) for row in rows for i, name in enumerate(row)}
    for _ in range(20):  # each above the middle of what it imports, and below what needs it
        for row in (*rows, *rows[::-1]):
            wish = {}
            for name in row:
                near = [place[b if a == name else a] for a, b in edges if name in (a, b)]
                wish[name] = sum(near) / len(near) if near else place[name]
            row.sort(key=lambda name: (wish[name], name))
            place |= {name: (i + 0.5) / len(row) for i, name in enumerate(row)}
    figure = Figure(figsize=(9, 0.62 * len(rows) + 0.2))
    axis = figure.add_axes((0, 0, 1, 1))
    axis.set(xlim=(0, 1), ylim=(-0.6, len(rows) - 0.4))
    axis.axis("off")
    for above, below in edges:
        axis.annotate(
            "", (place[below], level[below] + 0.2), (place[above], level[above] - 0.2),
            arrowprops={"arrowstyle": "-|>", "color": palette.faint, "lw": 0.9, "shrinkA": 0,
                        "shrinkB": 0, "mutation_scale": 7},
        )  # fmt: skip
    for name, x in place.items():
        width = 0.0098 * len(name) + 0.018
        axis.add_patch(
            FancyBboxPatch(
                (x - width / 2, level[name] - 0.2), width, 0.4, mutation_aspect=8,
                boxstyle="round,pad=0,rounding_size=0.008", fc=palette.ground,
                ec=palette.red if name.endswith("/") else palette.blue, lw=1.1, zorder=3,
            )
        )  # fmt: skip
        axis.text(
            x, level[name] - 0.02, name, ha="center", va="center", fontsize=7.5, color=palette.ink,
            family="monospace", zorder=4,
        )  # fmt: skip
    return figure


def main(folder: Path, theme: str) -> None:
    """Draws the maps for one theme: of the package, and of the engine."""
    save(draw(PALETTES[theme], imports()), folder, "modules", theme)
    save(draw(PALETTES[theme], imports("engine")), folder, "engine", theme)
