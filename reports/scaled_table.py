"""The table of scaled emulation: what was measured, in the time of what it stands for, beside its projection."""

from __future__ import annotations

from reports.study import Study
from reports.style.quantities import digits, scale_for
from reports.style.tables import Column, Raw, Table, Value


def scaled_table(study: Study) -> Table:
    """One row for each network and method whose runs stand for something: medians over valid runs."""
    frame = study.standing
    scales = {
        "seconds": scale_for("s", frame["seconds"]),
        "target": scale_for("s", [*frame["target_seconds"], *frame["projected_seconds"]]),
        "waiting": scale_for("s", [*frame["target_communication_seconds"], *frame["projected_communication_seconds"]]),
    }
    columns = (
        Column("topology", "network", numeric=False),
        Column("label", "method", numeric=False),
        Column("entry", "stands for", numeric=False),
        Column("seconds", "measured", scales["seconds"].unit),
        Column("time_scale", "1 s stands for", "s"),
        Column("target_seconds", "in target time", scales["target"].unit),
        Column("projected_seconds", "projected", scales["target"].unit),
        Column("error", "measured off by", "%"),
        Column("target_communication_seconds", "exposed communication", scales["waiting"].unit),
        Column("projected_communication_seconds", "projected", scales["waiting"].unit),
        Column("overruns", "slots overrun", "%"),
        Column("tokens_per_second", "thousand tokens / s"),
        Column("n", "n"),
    )
    rows: list[dict[str, Value]] = []
    extra: list[dict[str, Raw]] = []
    for group, topology in study.places:
        for label in study.labels:
            mine = frame[(frame["group"] == group) & (frame["topology"] == topology) & (frame["label"] == label)]
            if not len(mine):
                continue
            runs = tuple(int(run) for run in mine["run"])
            middle = {name: float(value) for name, value in mine.median(numeric_only=True).items()}
            errors = (mine["target_seconds"] / mine["projected_seconds"] - 1).astype(float)
            rate = float((mine["target_tokens"] / mine["target_seconds"]).astype(float).median())
            first = mine.iloc[0]
            row = {
                "topology": Value(topology, study.place_name(group, topology)),
                "label": Value(label, label),
                "entry": Value(str(first["entry"]), f"{first['scenario']}: {first['entry']}"),
                "time_scale": Value(middle["time_scale"], digits(middle["time_scale"])),
                "error": Value(float(errors.median()), f"{100 * float(errors.median()):+.1f}", runs=runs),
                "overruns": Value(middle["overrun_share"], f"{100 * middle['overrun_share']:.1f}", runs=runs),
                "tokens_per_second": Value(rate, digits(rate / 1e3), runs=runs),
                "n": Value(len(runs), str(len(runs)), runs=runs),
            }
            for key, scale in (
                ("seconds", scales["seconds"]),
                ("target_seconds", scales["target"]),
                ("projected_seconds", scales["target"]),
                ("target_communication_seconds", scales["waiting"]),
                ("projected_communication_seconds", scales["waiting"]),
            ):
                row[key] = Value(middle[key], scale.of(middle[key]), runs=runs)
            rows.append(row)
            extra.append({"payload_scale": middle["payload_scale"], "evaluator": str(first["evaluator"])})
    caption = (
        "Small models on real packets, whose slots and bytes stand for a larger configuration's: training time as "
    )
    caption += "measured, the same in target time, and the cost model's for as many steps of the target from first "
    caption += "principles. What the host takes per step and per transfer counts as often as a second stands for "
    caption += "seconds; a slot that overran tells of the host alone. Tokens are the target's. Evaluation and "
    caption += "checkpoints are left out. Medians over valid runs."
    return Table("scaled", "Scaled emulation", caption, columns, tuple(rows), tuple(extra))
