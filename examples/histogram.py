"""Public texts, resampled to a noisy histogram of private ones (Yu et al. 2024): no model writes anything."""

import pandas as pd

import dpsda

topics = {"tea": 120, "rain": 30, "trains": 10}
private = pd.DataFrame({"text": [f"I wrote {i} lines on {topic}." for topic, n in topics.items() for i in range(n)]})
public = pd.DataFrame({"text": [f"Somebody told {i} others about {topic}." for topic in topics for i in range(40)]})
data = dpsda.dataset("results/examples/lines", private)
public.to_csv("results/examples/public.csv", index=False)
files = {"synthetic_file": "results/examples/public.csv", "synthetic_public": True}
run = dpsda.run("resample", data, "results/examples/resampled", noise=2, num_clusters=3, num_samples=60, **files)
print(run.guarantee)
print(run.texts.text.str.split().str[-1].value_counts())
