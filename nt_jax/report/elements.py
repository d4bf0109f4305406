"""The few HTML pieces a report is made of. Tables and figures scroll on narrow screens."""

import html
from collections.abc import Iterable, Sequence
from typing import Any, Literal

STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --paper: #ffffff; --soft: #5d6673;
  --line: #d7dce2; --grid: #e3e7ec; --shade: #f5f7f9; --warn: #9a4a00; --warn-paper: #fff3e0; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e8ed; --paper: #14171b; --soft: #9aa4b1;
  --line: #353c45; --grid: #2c323a; --shade: #1c2026; --warn: #ffc078; --warn-paper: #33240f; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 64rem; padding: 1.5rem 1rem 4rem; color: var(--ink);
  background: var(--paper); font: 1rem/1.5 system-ui, sans-serif; }
h1 { font-size: 1.6rem; margin: 0; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 2.2rem 0 .6rem; }
p { margin: .5rem 0; } .soft, figcaption { color: var(--soft); font-size: .9rem; }
.warn { color: var(--warn); background: var(--warn-paper); padding: .6rem .8rem;
  border-radius: .4rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .92rem; }
th, td { padding: .3rem .9rem .3rem 0; border-bottom: 1px solid var(--line); text-align: left;
  vertical-align: top; }
table.numbers th { vertical-align: bottom; }
table.numbers th:not(:first-child), table.numbers td:not(:first-child) { text-align: right; }
table.numbers td:not(:first-child) { white-space: nowrap; }
table.facts th { font-weight: 500; color: var(--soft); white-space: nowrap; }
table.facts td { overflow-wrap: anywhere; }
.plots { display: grid; gap: 1.2rem; margin-top: 1rem;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 26rem), 1fr)); }
figure { margin: 0; min-width: 0; } figure > div { overflow-x: auto; }
figure.wide { grid-column: 1 / -1; } figure.wide svg { min-width: 34rem; }
svg { display: block; width: 100%; height: auto; color: var(--ink); }
svg text { font-family: system-ui, sans-serif !important; }
pre { background: var(--shade); padding: .8rem; overflow-x: auto; font-size: .85rem;
  border-radius: .4rem; }
summary { cursor: pointer; }
"""


def number(row: dict[str, Any], name: str, form: str) -> str:
    """A number of a row in the given format; a dash where it is missing or not finite."""
    value = row.get(name)
    return "–" if value is None else format(value, form)


def stacked(score: str) -> str:
    """The interval under its value, so that the table fits a page."""
    value, space, interval = score.partition(" ")
    return f'{value}<br><span class="soft">{interval}</span>' if space else value


def document(title: str, parts: Iterable[str]) -> str:
    """The whole page; `title` and `parts` are HTML already, empty parts are left out."""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        + "\n".join(part for part in parts if part)
        + "\n</body>\n</html>\n"
    )


def section(heading: str, body: str) -> str:
    """A headed part of the page; `heading` and `body` are HTML already."""
    return f"<section>\n<h2>{heading}</h2>\n{body}\n</section>"


def facts(rows: Iterable[tuple[str, str]]) -> str:
    """Names and values, both plain text."""
    lines = "".join(
        f'<tr><th scope="row">{html.escape(name)}</th><td>{html.escape(text)}</td></tr>'
        for name, text in rows
    )
    return f'<div class="scroll"><table class="facts">{lines}</table></div>'


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of numbers, the first column being names; cells are HTML already."""
    head = "".join(f'<th scope="col">{cell}</th>' for cell in header)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return (
        f'<div class="scroll"><table class="numbers"><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def figure(svg: str, caption: str, width: Literal["half", "page"] = "half") -> str:
    """A plot with its caption (plain text)."""
    kind = ' class="wide"' if width == "page" else ""
    return f"<figure{kind}><div>{svg}</div><figcaption>{html.escape(caption)}</figcaption></figure>"
