"""Aug-PE with an engine of one's own, here one that calls no model: whatever answers prompts in their order will do."""

import pandas as pd

import dpsda


class Echo(dpsda.TextAPI):
    def generate(self, prompts, seed, on_answer=lambda number, answer: None):
        answers = [f"Answer {seed % 997 + i} to: {prompt.text}" for i, prompt in enumerate(prompts)]
        for number, answer in enumerate(answers):
            on_answer(number, answer)
        return answers


private = pd.DataFrame({"text": [f"A note about {thing}." for thing in ("tea", "rain", "trains") * 50]})
prompts = {"init": "Write about {keyword}.", "paraphrase": "Say it again: {text}", "keywords": ["tea", "rain"]}
data = dpsda.dataset("results/examples/things", private, prompts=prompts)
run = dpsda.run("augpe", data, "results/examples/own_engine", api=Echo(), epsilon=2, epochs=1, num_seed_samples=8, L=2)
print(run.guarantee, run.texts, sep="\n")
