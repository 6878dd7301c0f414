"""dpmm's AIM on a table of benchmarks/rows.py: python dpmm_aim.py TABLE EPSILON, in the environment of dpmm.sh."""

import json
import math
import resource
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
from dpmm.models.aim import AIMGM
from rows import distance, pairs  # of benchmarks, where dpmm.sh looks

table, epsilon = sys.argv[1], float(sys.argv[2])
sizes = json.loads(Path(f"{table}.json").read_text())
codes = np.loadtxt(f"{table}.csv", delimiter=",", dtype=int)
names = [f"a{k}" for k in range(len(sizes))]
n = len(codes)

started = time.monotonic()
model = AIMGM(epsilon=epsilon, delta=1 / (n * math.log(n)), n_jobs=1, domain=dict(zip(names, sizes, strict=True)))
model.set_random_state(np.random.RandomState(0))
model.fit(pd.DataFrame(codes, columns=names))
rows = model.generate(n_records=n)[names].to_numpy()
seconds = time.monotonic() - started
memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
between = distance(pairs(codes, sizes), pairs(rows, sizes))
print(f"| {len(sizes)} | {epsilon:g} | dpmm's AIM | {between:.4f} | {seconds:.0f} s | {memory:.1f} GiB |")
