#!/usr/bin/env python3
"""Generates the dashboards beside this file from source/: `make dashboards`.

  generate.py           writes every DASHBOARD.json
  generate.py --check   writes nothing; exit status 1 if one of them differs from source/

Only Python's own library is needed, 3.9 or newer. The JSON is what Grafana imports; never edit it by hand.
"""

import json
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "source"))
sys.dont_write_bytecode = True

import capacity  # noqa: E402 (after the path is set)
import fleet  # noqa: E402
import fragmentation  # noqa: E402
import remediation  # noqa: E402

DASHBOARDS = {
    "fleet": fleet.DASHBOARD,
    "fragmentation": fragmentation.DASHBOARD,
    "capacity": capacity.DASHBOARD,
    "remediation": remediation.DASHBOARD,
}


def main(arguments):
    if arguments not in ([], ["--check"]):
        print(__doc__, file=sys.stderr)
        return 2
    stale = []
    for name, content in DASHBOARDS.items():
        path = HERE / f"{name}.json"
        text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        stale.append(path.name)
        if not arguments:
            path.write_text(text, encoding="utf-8")
    unknown = sorted(path.name for path in HERE.glob("*.json") if path.stem not in DASHBOARDS)
    if unknown:
        print(f"dashboards: not from source/: {', '.join(unknown)}", file=sys.stderr)
        return 1
    if arguments and stale:
        print(f"dashboards: {', '.join(stale)} differs from source/; run `make dashboards`", file=sys.stderr)
        return 1
    print(f"dashboards: {', '.join(stale)} written" if stale else "dashboards: up to date")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
