"""Loading a CSV in the format of the yelp data, of made-up text: time and memory, in a process of its own.

python benchmarks/loading.py [--rows 2000000]
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

CATEGORIES = ["Restaurants", "Bars", "Shopping", "Grocery", "Hotels", "Home", "Health", "Arts", "Beauty", "Events"]
SPEC = f"""
text: text
labels:
  - {{column: label1, domain: {[f"Business Category: {name}" for name in CATEGORIES]}}}
  - {{column: label2, domain: {[f"Review Stars: {stars}.0" for stars in range(1, 6)]}}}
splits:
  train: {{file: train.csv, hash: [0, 0.9]}}
  all: train.csv
"""
LOAD = """
import resource, sys, time
import numpy, pandas, pyarrow, pyarrow.compute, pyarrow.csv, pyarrow.parquet
from dpsda.data import DatasetSpec, load
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 / 1024
spec, before = DatasetSpec.read(sys.argv[1]), peak()
start = time.perf_counter()
corpus = load(spec, sys.argv[2])
loaded = time.perf_counter()
corpus.fingerprint(b"key")
end = time.perf_counter()
figures = f"{corpus.num_records} | {loaded - start:.1f} | {peak() - before:.2f} | {end - loaded:.1f}"
print(f"| {sys.argv[2]} | {figures} |")
"""


def write(path: Path, rows: int) -> None:
    """Texts of about 600 characters, some with quoted newlines, commas and doubled quotes."""
    rng = np.random.default_rng(0)
    letters = list("abcdefghijklmnopqrstuvwxyz")
    words = ["".join(rng.choice(letters, rng.integers(2, 9))) for _ in range(5000)]
    gaps = [" "] * 40 + ["\n", ' ""', ", "]
    pool = []
    for _ in range(10_000):
        n = rng.integers(20, 180)
        pool.append("".join(np.char.add(rng.choice(words, n), rng.choice(gaps, n))))
    with open(path, "w", encoding="utf-8", newline="") as sink:
        sink.write("text,label1,label2\n")
        for start in range(0, rows, len(pool)):
            some = pool[: rows - start]
            names, stars = rng.choice(CATEGORIES, len(some)), rng.integers(1, 6, len(some))
            sink.writelines(
                f'"{start + i} {text}",Business Category: {name},Review Stars: {star}.0\n'
                for i, (text, name, star) in enumerate(zip(some, names, stars, strict=True))
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=2_000_000)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "spec.yaml").write_text(SPEC, encoding="utf-8")
        file = Path(folder) / "train.csv"
        write(file, args.rows)
        print(f"{args.rows} rows, {file.stat().st_size / 1e9:.2f} GB\n")
        print("| split | records | load (s) | peak above the imports (GB) | fingerprint (s) |\n|---|---|---|---|---|")
        for split in ("all", "train"):
            subprocess.run([sys.executable, "-c", LOAD, folder, split], check=True)


if __name__ == "__main__":
    main()
