"""Aug-PE on a DataFrame, with the embedded model: about a minute on two cores."""

import pandas as pd

import dpsda

private = pd.DataFrame({"note": [f"Order {i}: my {thing} came late." for i in range(100) for thing in ("tea", "mug")]})
prompts = {"init": "Write a complaint about {keyword}.", "paraphrase": "Rewrite: {text}", "keywords": ["tea", "mugs"]}
data = dpsda.dataset("results/examples/orders", private, text="note", prompts=prompts)
size = {"epochs": 1, "num_seed_samples": 8, "L": 2, "length": 24, "model_type": "embedded:smollm2-135m-instruct"}
run = dpsda.run("augpe", data, "results/examples/complaints", epsilon=4, **size)
print(run.guarantee)
print(run.texts.text.to_string(index=False))
