"""Loss curves as SVG, from records of metrics.jsonl."""

import html
import math

WIDTH, HEIGHT = 460, 320  # of one panel
LEFT, RIGHT, TOP, BOTTOM = 52, 96, 34, 40
COLOURS = ("#1f6fb4", "#c8501e", "#2c8a4b", "#7a4fa3", "#8a6d1c", "#b0356f")


def smooth(values, width=9):
    """Mean of the values around each, fewer of them at the ends."""
    half = width // 2
    found = []
    for i in range(len(values)):
        part = values[max(0, i - half) : i + half + 1]
        found.append(sum(part) / len(part))
    return found


def ticks(low, high):
    """Four to eight round numbers that span low to high."""
    step = 10 ** math.floor(math.log10((high - low) or 1))
    for factor in (0.1, 0.2, 0.5, 1, 2, 5):
        if (high - low) / (step * factor) <= 8:
            step *= factor
            break
    first = math.ceil(low / step - 1e-9)
    return [round(i * step, 10) for i in range(first, math.floor(high / step + 1e-9) + 1)]


def panel(title, curves, x0):
    """One panel at x0. `curves`: {name: [(step, value), ...]}; points faint, their running mean as a line."""
    points = [point for curve in curves.values() for point in curve]
    last = max(step for step, _ in points)
    low, high = min(v for _, v in points), max(v for _, v in points)
    low, high = low - 0.04 * (high - low), high + 0.04 * (high - low) + 1e-9
    wide, tall = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM

    def x(step):
        return x0 + LEFT + wide * step / last

    def y(value):
        return TOP + tall * (high - value) / (high - low)

    out = [f'<text x="{x0 + LEFT}" y="20" class="title">{html.escape(title)}</text>']
    for tick in ticks(low, high):
        out.append(f'<line x1="{x(0):.1f}" x2="{x(last):.1f}" y1="{y(tick):.1f}" y2="{y(tick):.1f}" class="grid"/>')
        out.append(f'<text x="{x(0) - 6:.1f}" y="{y(tick) + 4:.1f}" text-anchor="end">{tick:g}</text>')
    for tick in ticks(0, last):
        out.append(f'<text x="{x(tick):.1f}" y="{TOP + tall + 16}" text-anchor="middle">{tick:g}</text>')
    out.append(f'<text x="{x(last / 2):.1f}" y="{HEIGHT - 6}" text-anchor="middle">step</text>')
    labels = []
    for (name, curve), colour in zip(curves.items(), COLOURS):
        for step, value in curve:
            out.append(f'<circle cx="{x(step):.1f}" cy="{y(value):.1f}" r="1.1" fill="{colour}" opacity="0.3"/>')
        line = smooth([value for _, value in curve])
        path = " ".join(f"{x(step):.1f},{y(value):.1f}" for (step, _), value in zip(curve, line))
        out.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.8"/>')
        labels.append([y(line[-1]), name, colour])
    # Names beside the ends of their curves, moved apart where they would overlap.
    labels.sort()
    for above, label in zip(labels, labels[1:]):
        label[0] = max(label[0], above[0] + 14)
    for place, name, colour in labels:
        out.append(f'<text x="{x(last) + 6:.1f}" y="{place + 4:.1f}" fill="{colour}">{html.escape(name)}</text>')
    return out


def write(path, panels):
    """`panels`: [(title, curves)], side by side."""
    wide = WIDTH * len(panels)
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide} {HEIGHT}" width="{wide}" height="{HEIGHT}">',
        "<style>text { font: 12px sans-serif; fill: #333 } .title { font-weight: bold }"
        " .grid { stroke: #ddd; stroke-width: 1 }</style>",
        f'<rect width="{wide}" height="{HEIGHT}" fill="white"/>',
    ]
    for i, (title, curves) in enumerate(panels):
        out += panel(title, curves, i * WIDTH)
    out.append("</svg>")
    with open(path, "w", encoding="utf-8") as file:
        file.write("\n".join(out) + "\n")
