"""Values of one subject, and how they are shown."""

import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field


@dataclass
class Series:
    """What one subject took, in milliseconds."""

    name: str
    values: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        """The middle value."""
        return statistics.median(self.values)

    def as_dict(self) -> dict[str, object]:
        """The summary and every value."""
        low, high = self.spread
        return {"median": round(self.median, 1), "p10": low, "p90": high, "values": [round(v, 1) for v in self.values]}

    @property
    def spread(self) -> tuple[float, float]:
        """Where four of five values lie."""
        ordered = sorted(self.values)
        last = len(ordered) - 1
        return round(ordered[round(last * 0.1)], 1), round(ordered[round(last * 0.9)], 1)


def table(series: Iterable[Series], ratios: Mapping[str, float], facts: Mapping[str, object]) -> str:
    """Everything, for people."""
    lines = [f"{'':44} {'median':>9} {'p10':>9} {'p90':>9} {'n':>4}   (milliseconds)"]
    for one in series:
        low, high = one.spread
        lines.append(f"{one.name:44} {one.median:9.1f} {low:9.1f} {high:9.1f} {len(one.values):4}")
    lines += ["", *(f"{name:44} {value:9.2f}" for name, value in ratios.items())]
    lines += ["", *(f"{name:44} {value}" for name, value in facts.items())]
    return "\n".join(lines)
