"""Metadata live in pyproject.toml, exact versions in requirements.lock. A wheel also has the data sets of data/."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

KEPT = {".yaml", ".md"}  # downloaded data lies beside them and stays where it is; as in MANIFEST.in


class WithDataSets(build_py):
    """Puts the data sets' files where dpsda.assets looks for them if there is no clone."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            for path in Path("data").rglob("*"):
                if path.suffix in KEPT:
                    target = Path(self.build_lib, "dpsda", "data_sets", *path.parts[1:])
                    target.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(path, target)


setup(cmdclass={"build_py": WithDataSets})
