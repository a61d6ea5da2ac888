"""Draw an events file as SVG: the ratio of each verdict over media time, the threshold, and a dot where it spoke.

    livestar watch SOURCE --model MODEL --trace --output events.jsonl
    python examples/04_plot_ratio.py [events.jsonl [ratio.svg]]

Standard library only: whoever reads the events needs nothing of LiveStar.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

WIDTH, HEIGHT, MARGIN = 900, 220, 40
COLOURS = ("#1b6ca8", "#b8336a", "#2f855a", "#c05621")


def main(events: str = "events.jsonl", svg: str = "ratio.svg") -> None:
    records = [json.loads(line) for line in Path(events).read_text(encoding="utf-8").splitlines()]
    verdicts = [record for record in records if record["type"] == "verdict" and record["ratio"] is not None]
    if not verdicts:
        sys.exit(f"{events} has no verdicts with a ratio; write it with --trace")
    last_s = max(record["time_s"] for record in verdicts) or 1.0
    values = [value for record in verdicts for value in (record["ratio"], record["threshold"])]
    low, high = min(values), max(values)

    def place(time_s: float, value: float) -> str:
        x = MARGIN + time_s / last_s * (WIDTH - 2 * MARGIN)
        y = HEIGHT - MARGIN - (value - low) / ((high - low) or 1) * (HEIGHT - 2 * MARGIN)
        return f"{x:.1f},{y:.1f}"

    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12">']
    for number, stream_id in enumerate(dict.fromkeys(record["stream_id"] for record in verdicts)):
        colour = COLOURS[number % len(COLOURS)]
        mine = [record for record in verdicts if record["stream_id"] == stream_id]
        for name, dash in (("ratio", ""), ("threshold", ' stroke-dasharray="4 3"')):
            points = " ".join(place(record["time_s"], record[name]) for record in mine)
            parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}"{dash}/>')
        for record in mine:
            if record["decision"] == "respond":
                x, y = place(record["time_s"], record["ratio"]).split(",")
                parts.append(f'<circle cx="{x}" cy="{y}" r="4" fill="{colour}"/>')
        parts.append(f'<text x="{MARGIN + 160 * number}" y="16" fill="{colour}">{stream_id}</text>')  # ids hold a-z 0-9 . _ -
    parts.append(f'<text x="{MARGIN}" y="{HEIGHT - 12}">0 to {last_s:g} s, ratio {low:.3f} to {high:.3f}</text></svg>')
    Path(svg).write_text("\n".join(parts), encoding="utf-8")
    print(f"{svg}: {len(verdicts)} verdicts, {sum(record['decision'] == 'respond' for record in verdicts)} captions")


if __name__ == "__main__":
    main(*sys.argv[1:])
