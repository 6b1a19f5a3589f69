"""Turns the samples of a row into tables of text."""

import statistics


def row(name, result):
    """All there is to say about one row."""
    lines = [f"\n{name}: {result['title']}"]
    ratios = _ratios(result)
    if ratios:
        lines += _table(["  ratio to nginx", *(heading for _, heading in result["columns"]), *_goal_heading(result)], ratios)
    if result.get("own_base"):
        own = [[f"  {who}", *_ratio_cells(result, who, base)] for who, base in result["own_base"].items()
               if who in result["samples"] and base in result["samples"]]
        if own:
            lines += _table([f"  ratio to itself {_own(result)}", *(heading for _, heading in result["columns"])], own)
    absolute = [[f"  {who}", *(_absolute(key, samples) for key, _ in result["columns"])]
                for who, samples in result["samples"].items()]
    if absolute:
        lines += _table(["  median (least–most)", *(heading for _, heading in result["columns"])], absolute)
    if result.get("note"):
        lines.append(f"  note: {result['note']}")
    lines += [f"  goal: {text}, {'met' if value <= limit else 'MISSED'}" for text, value, limit in _more_goals(result)]
    for who, facts in result["facts"].items():
        if facts:
            lines.append(f"  {who}: " + ", ".join(f"{key} {value}" for key, value in facts.items() if value))
    for who, failures in result["failures"].items():
        lines += [f"  FAILED {who}: {failure}" for failure in failures]
    return "\n".join(lines)


def goals_missed(result):
    """The goals Doorward missed in this row, in words."""
    missed = [f"{key} {ratio:.2f} > {limit}" for key, limit, ratio in _goals(result) if ratio > limit]
    return missed + [text for text, value, limit in _more_goals(result) if value > limit]


def summary(results):
    """One line a row: Doorward's and HAProxy's processor time per request as a ratio to NGINX."""
    lines = ["\nCPU per request, ratio to nginx"]
    table = []
    for name, result in results.items():
        if not any(key == "cpu_us" for key, _ in result["columns"]):
            continue
        for who in result["samples"]:
            found = _paired(result, who, _base(result, who), "cpu_us")
            if found and who != _base(result, who):
                table.append([f"  {name}", who, _spread(found), f"{result['goals'].get('cpu_us', '–')}"
                              if who == "doorward" else ""])
    return "\n".join([*lines, *_table(["  row", "proxy", "ratio", "goal"], table)]) if table else ""


def _base(result, who):
    return result.get("base", {}).get(who, "nginx")


def _paired(result, who, base, column):
    """Ratios of the same round: what slows the machine for a while slows both."""
    others = {sample["round"]: sample[column] for sample in result["samples"].get(base, [])}
    return [sample[column] / others[sample["round"]] for sample in result["samples"].get(who, [])
            if others.get(sample["round"])]


def _ratios(result):
    table = []
    for who in result["samples"]:
        base = _base(result, who)
        if base in result["samples"]:
            table.append([f"  {who}", *_ratio_cells(result, who, base), *(_goal_cell(result) if who == "doorward" else [])])
    return table


def _ratio_cells(result, who, base):
    return [_spread(_paired(result, who, base, key)) if who != base else "1.00" for key, _ in result["columns"]]


def _spread(ratios):
    if not ratios:
        return "–"
    middle = f"{statistics.median(ratios):.2f}"
    return middle if len(ratios) == 1 else f"{middle} ({min(ratios):.2f}–{max(ratios):.2f})"


def _goals(result):
    for key, limit in result["goals"].items():
        ratios = _paired(result, "doorward", "nginx", key)
        if ratios:
            yield key, limit, statistics.median(ratios)


def _more_goals(result):
    """Goals that are no ratios to NGINX: what is wanted in words, the value, and the highest that will do."""
    headings = dict(result["columns"])
    for who, key, limit in result.get("own_goals", ()):
        ratios = _paired(result, who, result["own_base"].get(who), key)
        if ratios:
            yield f"{who}: {headings[key]} ≤ {limit} of its own {_own(result)}", statistics.median(ratios), limit
    for who, key, limit in result.get("figures", ()):
        values = [sample[key] for sample in result["samples"].get(who, [])]
        if values:
            unit = _UNITS.get(key.rpartition("_")[2], "")
            yield f"{who}: {headings[key]} ≤ {limit}{unit}", statistics.median(values), limit


def _own(result):
    return result.get("own_heading", "with 10")


def _goal_heading(result):
    headings = dict(result["columns"])
    return ["goal: " + ", ".join(f"{headings[key]} ≤ {limit}" for key, limit in result["goals"].items())] if result["goals"] else []


def _goal_cell(result):
    if not result["goals"]:
        return []
    headings = dict(result["columns"])
    return [", ".join(f"{headings[key]} {'met' if ratio <= limit else 'MISSED'}" for key, limit, ratio in _goals(result))]


_UNITS = {"us": " µs", "ms": " ms", "mib": " MiB", "kib": " KiB"}


def _absolute(key, samples):
    values = [sample[key] for sample in samples]
    unit = _UNITS.get(key.rpartition("_")[2], "")
    middle = f"{_number(statistics.median(values))}{unit}"
    return middle if len(values) == 1 else f"{middle} ({_number(min(values))}–{_number(max(values))})"


def _number(value):
    return f"{value:,.0f}" if abs(value) >= 1000 or value == int(value) else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def _table(heading, rows):
    rows = [heading, *rows]
    widths = [max((len(one[index]) for one in rows if len(one) > index), default=0) for index in range(len(heading))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(one, widths)).rstrip() for one in rows]
