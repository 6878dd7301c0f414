"""All commands and their options, from the parsers: python docs/cli.py > docs/cli.md"""

from __future__ import annotations

from dataclasses import MISSING, fields

from dpsda.commands import COMMANDS, OTHERS

HEAD = """# Commands

`.venv/bin/dpsda COMMAND` runs any of these, and `dpsda COMMAND --help` has what stands here. `main.py` is `dpsda
augpe`; `finetune.py`, `resample.py`, `predict.py`, `align.py`, `audit.py`, `metric.py` and `downstream.py` are the
commands of these names. Each takes `--config FILE.yaml`, with options by their names. What stands on the command line
goes before it. An option marked * may change where a run goes on; any other one makes it another run. This page is
made by [cli.py](cli.py).
"""


def page() -> str:
    parts = [HEAD]
    for name, command in COMMANDS.items():
        parts.append(f"## {name}\n\n{command.about[0].upper()}{command.about[1:]}.\n")
        for step, groups in (command.steps or {"": command.groups}).items():
            parts += [f"### {name} {step}\n"] if step else []
            parts.append("| option | default | |\n|---|---|---|")
            parts += [_row(item) for group in groups for item in fields(group)]
            parts.append("")
    parts.append("## Others\n\n| command | |\n|---|---|")
    parts += [f"| `{name}` | {about[0]} |" for name, about in OTHERS.items()]
    return "\n".join(parts) + "\n"


def _row(item) -> str:
    names = ", ".join(f"`--{name}`" for name in (item.name, *item.metadata["aliases"]))
    default = (
        item.default_factory() if item.default is MISSING and item.default_factory is not MISSING else item.default
    )
    shown = {MISSING: "needed", None: "", "": ""}.get(default if not isinstance(default, list) else 0, f"`{default}`")
    about = item.metadata["help"].replace("|", "\\|")
    if item.metadata["choices"]:
        about += f" ({', '.join(f'`{choice}`' for choice in item.metadata['choices'])})"
    return f"| {names}{'*' if item.metadata['free'] else ''} | {shown} | {about} |"


if __name__ == "__main__":
    print(page(), end="")
